package forge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A Watch counts the frames that come in by a device, by the texts they hold.
type Watch struct {
	Device string
	Texts  []string      `json:",omitempty"`
	Until  string        `json:",omitempty"` // ends soon after a frame with this text has come in
	Limit  time.Duration // ends it in any case
	// Capture keeps the payloads of so many UDP datagrams to Port, and ends the watch. Those that go out count as well.
	Capture int    `json:",omitempty"`
	Port    uint16 `json:",omitempty"`
}

// Seen is what has come in.
type Seen struct {
	Counts   map[string]int `json:",omitempty"` // by text
	Payloads [][]byte       `json:",omitempty"`
	Ended    bool           // by Until or Capture
}

// after is for how long a watch goes on when it has seen what it waits for: what was sent before on another way may come in
// after it.
const after = 300 * time.Millisecond

// Run calls ready when nothing more is missed.
func (w Watch) Run(ready func()) (Seen, error) {
	seen := Seen{Counts: map[string]int{}}
	dev, err := net.InterfaceByName(w.Device)
	if err != nil {
		return seen, err
	}
	all := binary.NativeEndian.Uint16(be16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		return seen, fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		return seen, err
	}
	tick := unix.NsecToTimeval((50 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
		return seen, err
	}
	ready()
	end, buf := time.Now().Add(w.Limit), make([]byte, 1<<16)
	for time.Now().Before(end) {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return seen, err
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		out := ok && ll.Pkttype == unix.PACKET_OUTGOING
		if w.take(buf[:n], out, &seen) && !seen.Ended {
			seen.Ended = true
			if w.Capture > 0 {
				return seen, nil
			}
			end = time.Now().Add(after)
		}
	}
	return seen, nil
}

// take counts a frame, and says whether it is what the watch waits for.
func (w Watch) take(frame []byte, out bool, seen *Seen) bool {
	if w.Capture > 0 {
		if p := payloadTo(w.Port, frame); p != nil {
			seen.Payloads = append(seen.Payloads, bytes.Clone(p))
		}
		return len(seen.Payloads) >= w.Capture
	}
	if out {
		return false
	}
	for _, text := range w.Texts {
		if bytes.Contains(frame, []byte(text)) {
			seen.Counts[text]++
		}
	}
	return w.Until != "" && bytes.Contains(frame, []byte(w.Until))
}

// payloadTo is what a UDP datagram to a port holds; nil if the frame is none.
func payloadTo(port uint16, frame []byte) []byte {
	const ethernet, ip4, ip6, udp = 14, 20, 40, 8
	if len(frame) < ethernet {
		return nil
	}
	b := frame[ethernet:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == unix.ETH_P_IP && len(b) >= ip4+udp && b[0] == 0x45 && b[9] == unix.IPPROTO_UDP:
		b = b[ip4:min(len(b), int(binary.BigEndian.Uint16(b[2:])))]
	case kind == unix.ETH_P_IPV6 && len(b) >= ip6+udp && b[6] == unix.IPPROTO_UDP:
		b = b[ip6:min(len(b), ip6+int(binary.BigEndian.Uint16(b[4:])))]
	default:
		return nil
	}
	if len(b) <= udp || binary.BigEndian.Uint16(b[2:]) != port {
		return nil
	}
	return b[udp:]
}
