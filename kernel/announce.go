package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// maxAnnounced bounds the frames of one Set. Each goes to every port of a bridge: so many to 100 containers take 0.75 s, and
// none of a million deliveries was lost (Linux 6.18, two cores). Whoever is not told finds out by himself: Linux doubts an
// entry 15 to 45 s after it was last confirmed, and gives it up 8 s later (RFC 4861 sections 7.3 and 10).
const maxAnnounced = 10_000

// announce tells everybody on a bridge that an address is at a MAC. A new container with the address of an old one has a new
// MAC, which the engine chooses or we do at random, and neighbour caches keep the old one. Engine 28 lets a container announce
// itself, 20.10 does not; and what a container announces stays on its host, for the bridge keeps it from ports with
// neigh_suppress (br_do_proxy_suppress_arp and br_do_suppress_nd of Linux 6.18). So each host announces: its own containers
// when it makes them, those of other hosts when it hears of them.
type announce struct {
	bridge ref
	ip     netip.Addr
	mac    MAC
}

func (o announce) String() string {
	return fmt.Sprintf("# announce %s at %s to the ports of %s", o.ip, o.mac, o.bridge)
}

// announce adds an announcement where it can matter: on a bridge that has just been made, or is down, nobody has a cache.
func (d *differ) announce(bridge ref, ip netip.Addr, mac MAC) []op {
	w, ours := d.wanted[bridge]
	if ours && !w.Up || d.dead[bridge].all || d.announced == maxAnnounced {
		return nil
	}
	d.announced++
	return []op{announce{bridge, ip, mac}}
}

// newcomer announces what is behind a pair that takes its place on a master. Once the other end is handed over it is up to
// the container; and telling a container about its own address is something that its kernel warns of (ndisc_recv_na).
func (d *differ) newcomer(have, want Link) []op {
	if want.Veth == nil || want.Master == "" || !want.Up || have.Up && have.Master == want.Master {
		return nil
	}
	if have.Veth != nil && have.Veth.Peer == "" { // out of sight: handed over
		return nil
	}
	var ops []op
	for _, ip := range want.Veth.Announce {
		ops = append(ops, d.announce(ref{want.NS, want.Master}, ip, want.Veth.PeerMAC)...)
	}
	return ops
}

// apply never fails: what is wanted is there without, and others only notice later.
func (o announce) apply(s *scope) error {
	if s.mute {
		return nil
	}
	err := o.send(s)
	s.mute = err != nil
	level := logrus.DebugLevel
	if !s.k.mute {
		level = logrus.WarnLevel
	}
	s.k.mute = s.mute
	if err != nil {
		s.k.log.WithError(err).WithField("owner", s.owner).Logf(level,
			"cannot announce %s on %s: containers that knew it before may not reach it for a minute", o.ip, o.bridge)
	}
	return nil
}

// send puts the frame out of the bridge's own device. So the bridge learns nothing from it (br_dev_xmit, other than
// br_handle_frame_finish, does not call br_fdb_update), and it goes to every port but those with neigh_suppress. Its source is
// the MAC it speaks of, as in the answers that the bridge gives for others (br_arp_send, br_nd_send).
func (o announce) send(s *scope) error {
	index, err := s.indexOf(o.bridge)
	if err != nil {
		return err
	}
	socket, err := s.space(o.bridge.ns).frameSocket()
	if err != nil {
		return err
	}
	frame, protocol := arpAnnouncement(o.ip, o.mac), uint16(unix.ETH_P_ARP)
	if o.ip.Is6() {
		frame, protocol = advertisement(o.ip, o.mac), unix.ETH_P_IPV6
	}
	// The protocol must be said: br_dev_xmit goes by it, and older kernels do not take it from the frame.
	to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16(be16(protocol))}
	if err := unix.Sendto(socket, frame, unix.MSG_DONTWAIT, to); err != nil {
		return fmt.Errorf("sending a frame: %w", err)
	}
	return nil
}

// frameSocket takes CAP_NET_RAW, which the engine gives to every managed plugin. It listens for no protocol, so nothing
// comes in.
func (sp *space) frameSocket() (int, error) {
	if sp.frames != 0 {
		return sp.frames, nil
	}
	err := inside(sp.fd, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			sp.frames = fd
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("packet socket: %w", err)
	}
	return sp.frames, nil
}

// arpAnnouncement is a frame with an ARP request (RFC 826) whose sender and target are the same address: RFC 5227 sections
// 2.3 and, why it is not a reply, 3. Linux takes it over into an entry that is there, also within the second in which it
// does not believe a reply (locktime; arp_is_garp).
func arpAnnouncement(ip netip.Addr, mac MAC) []byte {
	b := ethernet(MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths in bytes, request
	b = append(append(b, mac[:]...), ip.AsSlice()...)
	return append(append(b, make([]byte, len(mac))...), ip.AsSlice()...)
}

// advertisement is a frame with an unsolicited neighbour advertisement to all nodes (RFC 4861 sections 4.4 and 7.2.6).
func advertisement(ip netip.Addr, mac MAC) []byte {
	const (
		icmpType = 136
		override = 0x20 // the third of the flags; not "solicited", which neigh_suppress would let pass
		target   = 2    // option target link-layer address, section 4.6.1
		length   = 32   // of the message in bytes: 8, the target's 16, the option's 8
		hopLimit = 255  // says that no router has passed it on, section 7.1.2
	)
	all := netip.IPv6LinkLocalAllNodes().As16()
	from := ip.As16()
	message := append([]byte{icmpType, 0, 0, 0, override, 0, 0, 0}, from[:]...)
	message = append(append(message, target, 1 /* times 8 bytes */), mac[:]...)
	pseudo := append(append(from[:], all[:]...), 0, 0, 0, length, 0, 0, 0, unix.IPPROTO_ICMPV6) // RFC 8200 section 8.1
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))

	b := ethernet(MAC{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6) // RFC 2464 section 7
	b = append(b, 6<<4, 0, 0, 0, 0, length, unix.IPPROTO_ICMPV6, hopLimit)
	b = append(append(b, from[:]...), all[:]...)
	return append(b, message...)
}

func ethernet(to, from MAC, protocol uint16) []byte {
	return append(append(append(make([]byte, 0, 128), to[:]...), from[:]...), be16(protocol)...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
