package forge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// An Order says what to send, and how often.
type Order struct {
	Count int

	// Device sends the frame as it is out of a device of this name. Else it goes in datagrams.
	Device string `json:",omitempty"`
	To     netip.AddrPort
	From   netip.Addr `json:",omitzero"` // of the datagrams, if it is not to be our own: takes CAP_NET_RAW
	VXLAN  *VXLAN     `json:",omitempty"`
	Frame  *Frame     `json:",omitempty"`

	// Without a frame: these payloads one after the other, each Count times, or one of so many random bytes each time.
	Payloads [][]byte `json:",omitempty"`
	Garbage  int      `json:",omitempty"`
	Text     string   `json:",omitempty"`

	Fragments bool          `json:",omitempty"` // the first ends before VXLAN begins
	Stream    bool          `json:",omitempty"` // a TCP connection for each payload
	Pause     time.Duration `json:",omitempty"` // between two
}

// VXLAN is the header that goes before the frame.
type VXLAN struct {
	VNI   uint32
	Flags byte `json:",omitempty"` // 0: as they have to be, which says that the VNI is valid
}

// Sent is what has come of an Order.
type Sent struct {
	Sent   int    // datagrams, frames or connections
	Failed int    // that our own kernel or the other end refused
	Last   string `json:",omitempty"` // why, the last time
}

// maxCount bounds every order.
const maxCount = 100_000

// Send does what the order says. What single packets meet is counted, and no error.
func (o Order) Send() (Sent, error) {
	var s Sent
	if o.Count < 1 || o.Count*max(1, len(o.Payloads)) > maxCount {
		return s, fmt.Errorf("%d of %d: at least one, and at most %d", o.Count, len(o.Payloads), maxCount)
	}
	send, end, err := o.sender()
	if err != nil {
		return s, err
	}
	defer end()
	pace := time.NewTicker(max(o.Pause, 1))
	defer pace.Stop()
	for i := range o.Count * max(1, len(o.Payloads)) {
		payload, err := o.payload(i)
		if err != nil {
			return s, err
		}
		if err := send(payload); err != nil {
			s.Failed++
			s.Last = err.Error()
		} else {
			s.Sent++
		}
		if o.Pause > 0 {
			<-pace.C
		}
	}
	return s, nil
}

func (o Order) payload(i int) ([]byte, error) {
	var b []byte
	switch {
	case o.Frame != nil:
		var err error
		if b, err = o.Frame.encode(); err != nil {
			return nil, err
		}
	case len(o.Payloads) > 0:
		b = o.Payloads[i%len(o.Payloads)]
	case o.Garbage > 0:
		b = make([]byte, o.Garbage)
		_, _ = rand.Read(b) // never fails, Go 1.24
	default:
		b = []byte(o.Text)
	}
	if o.VXLAN != nil {
		flags := o.VXLAN.Flags
		if flags == 0 {
			flags = 8
		}
		b = vxlan(flags, o.VXLAN.VNI, b)
	}
	return b, nil
}

// sender returns what sends one payload.
func (o Order) sender() (send func([]byte) error, end func(), err error) {
	switch {
	case o.Device != "":
		return o.outOf()
	case o.Stream:
		return o.stream, func() {}, nil
	case o.From.IsValid() || o.Fragments:
		return o.raw()
	}
	c, err := net.Dial("udp", o.To.String())
	if err != nil {
		return nil, nil, err
	}
	return func(b []byte) error {
		_, err := c.Write(b)
		if errors.Is(err, unix.ECONNREFUSED) { // of one before
			_, err = c.Write(b)
		}
		return err
	}, func() { c.Close() }, nil
}

// stream opens a connection, says its payload and hangs up.
func (o Order) stream(b []byte) error {
	c, err := net.DialTimeout("tcp", o.To.String(), 5*time.Second)
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return errors.Join(err, c.Close())
}

// raw writes the IP header itself.
func (o Order) raw() (func([]byte) error, func(), error) {
	to := o.To.Addr()
	from := o.From
	if !from.IsValid() {
		c, err := net.Dial("udp", o.To.String()) // sends nothing, but finds our address
		if err != nil {
			return nil, nil, err
		}
		from = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
	}
	domain, dst := unix.AF_INET, unix.Sockaddr(nil)
	if to.Is4() {
		dst = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		domain, dst = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, fmt.Errorf("raw socket: %w", err)
	}
	return func(b []byte) error {
		d := datagram(from, to, 50000, o.To.Port(), b)
		packets := [][]byte{packet(from, to, unix.IPPROTO_UDP, 64, d)}
		if o.Fragments {
			packets = fragments(from, to, unix.IPPROTO_UDP, d)
		}
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, dst); err != nil {
				return err
			}
		}
		return nil
	}, func() { unix.Close(fd) }, nil
}

func (o Order) outOf() (func([]byte) error, func(), error) {
	dev, err := net.InterfaceByName(o.Device)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	return func(b []byte) error {
		return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index})
	}, func() { unix.Close(fd) }, nil
}
