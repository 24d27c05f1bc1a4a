package forge

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A MAC is written in JSON as usual; zero: everybody.
type MAC string

func (m MAC) bytes() ([]byte, error) {
	if m == "" {
		return []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, nil
	}
	b, err := net.ParseMAC(string(m))
	if err == nil && len(b) != 6 {
		err = fmt.Errorf("%s: not 6 bytes", m)
	}
	return b, err
}

// A Frame is one of Ethernet with a UDP datagram in IPv4 or IPv6, or an announcement.
type Frame struct {
	Dst, Src MAC
	From, To netip.Addr
	Text     string // the datagram's content, by which it is found again; behind an announcement it is padding
	// Claim makes it say that From is at Src: by ARP (RFC 826) or a neighbour advertisement (RFC 4861 section 4.4). With To
	// it is an answer that To did not ask for.
	Claim bool
}

func (f Frame) encode() ([]byte, error) {
	dst, err := f.Dst.bytes()
	if err != nil {
		return nil, err
	}
	src, err := f.Src.bytes()
	if err != nil {
		return nil, err
	}
	b := append(append([]byte{}, dst...), src...)
	if f.From.Is4() {
		if f.Claim {
			return append(append(be16(b, unix.ETH_P_ARP), f.arp(src, dst)...), f.Text...), nil
		}
		return append(be16(b, unix.ETH_P_IP), packet(f.From, f.To, unix.IPPROTO_UDP, 64, datagram(f.From, f.To, 9, 9, []byte(f.Text)))...), nil
	}
	b = be16(b, unix.ETH_P_IPV6)
	if !f.Claim {
		return append(b, packet(f.From, f.To, unix.IPPROTO_UDP, 64, datagram(f.From, f.To, 9, 9, []byte(f.Text)))...), nil
	}
	to := f.To
	if !to.IsValid() {
		to = netip.IPv6LinkLocalAllNodes()
		if f.Dst == "" {
			copy(b, "\x33\x33\x00\x00\x00\x01") // RFC 2464 section 7
		}
	}
	// Hop limit 255 says that no router has passed it on, RFC 4861 section 7.1.2.
	return append(append(b, packet(f.From, to, unix.IPPROTO_ICMPV6, 255, f.advertisement(to, src))...), f.Text...), nil
}

// arp is a request about oneself to everybody, or an answer to one.
func (f Frame) arp(src, dst []byte) []byte {
	to, operation := f.From, uint16(1)
	if f.To.IsValid() {
		to, operation = f.To, 2
	}
	b := be16([]byte{0, 1, 8, 0, 6, 4}, operation)
	b = append(append(b, src...), f.From.AsSlice()...)
	return append(append(b, dst...), to.AsSlice()...)
}

func (f Frame) advertisement(to netip.Addr, src []byte) []byte {
	const override = 0x20
	b := []byte{136, 0, 0, 0, override, 0, 0, 0}
	b = append(append(b, f.From.AsSlice()...), 2, 1) // option target link-layer address, 8 bytes
	b = append(b, src...)
	binary.BigEndian.PutUint16(b[2:], checksum(f.From, to, unix.IPPROTO_ICMPV6, b))
	return b
}

// vxlan is the header of RFC 7348 section 5 before a frame.
func vxlan(flags byte, vni uint32, frame []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{flags, 0, 0, 0}, vni<<8)
	return append(b, frame...)
}

func datagram(from, to netip.Addr, fromPort, toPort uint16, payload []byte) []byte {
	b := be16(be16(nil, fromPort), toPort)
	b = be16(be16(b, uint16(8+len(payload))), 0)
	b = append(b, payload...)
	sum := checksum(from, to, unix.IPPROTO_UDP, b)
	if sum == 0 { // which would say that there is none, RFC 768
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// packet is one of IPv4 or IPv6, whole.
func packet(from, to netip.Addr, protocol, ttl byte, payload []byte) []byte {
	if from.Is4() {
		return packet4(from, to, protocol, ttl, 0, payload)
	}
	b := be16([]byte{6 << 4, 0, 0, 0}, uint16(len(payload)))
	b = append(append(b, protocol, ttl), from.AsSlice()...)
	return append(append(b, to.AsSlice()...), payload...)
}

// packet4 is one of RFC 791 section 3.1, with the word that places a fragment.
func packet4(from, to netip.Addr, protocol, ttl byte, place uint16, payload []byte) []byte {
	b := be16([]byte{0x45, 0}, uint16(20+len(payload)))
	b = be16(be16(b, fragmentID), place)
	b = be16(append(b, ttl, protocol), 0)
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], ^fold(sumOf(0, b)))
	return append(b, payload...)
}

const fragmentID = 0x4242

// fragments cuts a payload after its first 8 bytes: the ports are in the first, and what VXLAN says is in the second.
func fragments(from, to netip.Addr, protocol byte, payload []byte) [][]byte {
	var all [][]byte
	for i, part := range [][]byte{payload[:8], payload[8:]} {
		first := uint16(1 - i)
		if from.Is4() {
			all = append(all, packet4(from, to, protocol, 64, first<<13|uint16(i), part))
			continue
		}
		header := be16([]byte{protocol, 0}, uint16(i)<<3|first) // RFC 8200 section 4.5
		header = append(header, 0, 0, fragmentID>>8, fragmentID&0xff)
		all = append(all, packet(from, to, unix.IPPROTO_FRAGMENT, 64, append(header, part...)))
	}
	return all
}

// checksum is that of RFC 1071 over a pseudo-header (RFC 768, RFC 8200 section 8.1) and a payload.
func checksum(from, to netip.Addr, protocol byte, payload []byte) uint16 {
	sum := sumOf(uint32(protocol)+uint32(len(payload)), from.AsSlice())
	return ^fold(sumOf(sumOf(sum, to.AsSlice()), payload))
}

func sumOf(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func be16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
