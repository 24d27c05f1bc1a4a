package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxBatch is how many requests go in one message: measured on Linux 6.18, 64 pairs are programmed twice as fast as pairs of
// their own, and more at once are no faster. An answer to each fits the default buffer of a socket (212,992 bytes) if all are
// refused.
const maxBatch = 128

// A bulk is a socket for many requests about neighbours at once. The library sends one message a request and waits for its
// answer, and makes three slices of each entry that it reads.
type bulk struct {
	fd    int
	seq   uint32 // of the last request
	out   []byte // requests that wait to be sent
	count int    // how many
	last  int    // where the last of them begins
	in    []byte
}

// openBulk opens the socket at its first use in a namespace.
func (sp *space) openBulk() (*bulk, error) {
	if sp.bulk != nil && sp.bulk.fd >= 0 {
		return sp.bulk, nil
	}
	// The kernel fills up to 32 KiB of a dump at once if there is room for them (netlink_recvmsg).
	b := &bulk{fd: -1, in: make([]byte, 32<<10)}
	err := inside(sp.fd, func() (err error) {
		b.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	limit := unix.Timeval{Sec: answerTime}
	err = errors.Join(unix.Bind(b.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err != nil {
		b.close()
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	// Reasons as sentences (Linux 4.12), without the request that they are an answer to (4.3), and dumps of what was asked
	// for only (4.20). Older kernels refuse the options and do without.
	for _, option := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		_ = unix.SetsockoptInt(b.fd, unix.SOL_NETLINK, option, 1)
	}
	sp.bulk = b
	return b, nil
}

func (b *bulk) close() {
	if b != nil && b.fd >= 0 {
		_ = unix.Close(b.fd)
		b.fd = -1
	}
}

// begin begins a request: struct nlmsghdr (16 bytes), struct ndmsg (12), both of rtnetlink(7). Its length is filled in by end.
func (b *bulk) begin(kind, flags uint16, family uint8, index int, state uint16, table uint8) {
	b.seq++
	b.last = len(b.out)
	o := binary.NativeEndian.AppendUint32(b.out, 0)
	o = binary.NativeEndian.AppendUint16(o, kind)
	o = binary.NativeEndian.AppendUint16(o, flags|unix.NLM_F_REQUEST)
	o = binary.NativeEndian.AppendUint32(o, b.seq)
	o = append(o, 0, 0, 0, 0, family, 0, 0, 0)
	o = binary.NativeEndian.AppendUint32(o, uint32(index))
	o = binary.NativeEndian.AppendUint16(o, state)
	b.out = append(o, table, 0)
}

// attr adds an attribute: struct rtattr (4 bytes) and its value, filled up to a multiple of 4.
func (b *bulk) attr(kind uint16, value []byte) {
	o := binary.NativeEndian.AppendUint16(b.out, uint16(unix.SizeofRtAttr+len(value)))
	o = binary.NativeEndian.AppendUint16(o, kind)
	o = append(o, value...)
	b.out = append(o, make([]byte, -len(o)&3)...)
}

func (b *bulk) end() {
	binary.NativeEndian.PutUint32(b.out[b.last:], uint32(len(b.out)-b.last))
	b.count++
}

// add adds the request of an entry to those that wait.
func (b *bulk) add(e entry, index int) {
	r := &requests[e.do]
	family := uint8(unix.AF_BRIDGE)
	if r.table == 0 {
		family = ipFamily(e.ip)
	}
	b.begin(r.kind, r.flags, family, index, r.state, r.table)
	if r.mac {
		b.attr(unix.NDA_LLADDR, e.mac[:])
	}
	switch {
	case !r.dst:
	case e.ip.Is4():
		ip := e.ip.As4()
		b.attr(unix.NDA_DST, ip[:])
	default:
		ip := e.ip.As16()
		b.attr(unix.NDA_DST, ip[:])
	}
	b.end()
}

// flush sends what waits. The kernel answers those that it refuses, and the last one, which asks for it: refused is called
// with the place of a request and the reason. An error is one of the exchange itself: what was done is not known.
func (b *bulk) flush(refused func(i int, err error)) error {
	binary.NativeEndian.PutUint16(b.out[b.last+6:], binary.NativeEndian.Uint16(b.out[b.last+6:])|unix.NLM_F_ACK)
	count := b.count
	return b.exchange(func(i int, kind uint16, _ uint16, m []byte) (done bool, err error) {
		if kind == unix.NLMSG_ERROR {
			if err := answer(m); err != nil {
				refused(i, err)
			}
		}
		return i == count-1, nil
	})
}

// neighbours reads the entries of one family that a device has. What each is given is valid until it returns.
func (b *bulk) neighbours(family uint8, index int, each func(neighbour)) error {
	b.begin(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, family, 0, 0, 0)
	// Strict kernels filter by this attribute; it is the same for both tables, where the header is not.
	b.attr(unix.NDA_IFINDEX, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	b.end()
	disturbed := false
	err := b.exchange(func(_ int, kind, flags uint16, m []byte) (done bool, err error) {
		disturbed = disturbed || flags&unix.NLM_F_DUMP_INTR != 0
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, answer(m)
		case unix.RTM_NEWNEIGH:
			if n, ok := parseNeighbour(m); ok && int(n.Index) == index && n.Family == family {
				each(n)
			}
		}
		return false, nil
	})
	if err == nil && disturbed {
		return netlink.ErrDumpInterrupted
	}
	return err
}

// exchange sends what waits, and hands on the answers with the place of the request that each is for, until got says that
// they are complete. After an error the socket is not used again.
func (b *bulk) exchange(got func(i int, kind, flags uint16, m []byte) (done bool, err error)) (err error) {
	first, count := b.seq+1-uint32(b.count), uint32(b.count)
	defer func() {
		b.out, b.count = b.out[:0], 0
		if err != nil {
			b.close()
		}
	}()
	err = again(func() error { return unix.Sendto(b.fd, b.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
	if err != nil {
		return fmt.Errorf("netlink send: %w", err)
	}
	for {
		n := 0
		if err := again(func() (err error) { n, _, err = unix.Recvfrom(b.fd, b.in, 0); return err }); err != nil {
			return fmt.Errorf("netlink receive: %w", err)
		}
		for rest := b.in[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.SizeofNlMsghdr || size > len(rest) {
				return fmt.Errorf("netlink receive: a message of %d bytes in %d", size, len(rest))
			}
			kind, flags := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:])
			if i := binary.NativeEndian.Uint32(rest[8:]) - first; i < count {
				if done, err := got(int(i), kind, flags, rest[unix.SizeofNlMsghdr:size]); done || err != nil {
					return err
				}
			}
			rest = rest[min((size+3)&^3, len(rest)):] // NLMSG_ALIGNTO
		}
	}
}

// again repeats what a signal has interrupted.
func again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// answer is what an answer says: struct nlmsgerr, with what the kernel has to add. nil: done.
func answer(m []byte) error {
	const header = 4 + unix.SizeofNlMsghdr // number of the error, and the header of the request
	if len(m) < 4 || binary.NativeEndian.Uint32(m) == 0 {
		return nil
	}
	err := error(unix.Errno(-int32(binary.NativeEndian.Uint32(m))))
	if len(m) < header {
		return err
	}
	for rest := m[header:]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			break
		}
		if binary.NativeEndian.Uint16(rest[2:]) == nl.NLMSGERR_ATTR_MSG {
			return fmt.Errorf("%w: %s", err, unix.ByteSliceToString(rest[unix.SizeofRtAttr:size]))
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return err
}

// done says whether an error means that what was asked for is so already.
func (e entry) done(err error) bool {
	return requests[e.do].kind == unix.RTM_DELNEIGH && errors.Is(err, unix.ENOENT)
}

func ipFamily(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
