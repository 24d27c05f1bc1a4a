package kernel_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"golang.org/x/sys/unix"
)

// udp is a UDP datagram to port 4789 (RFC 768), with its checksum where the family asks for one.
func udp(from, to netip.Addr, payload []byte) []byte {
	b := append(make([]byte, 8), payload...)
	binary.BigEndian.PutUint16(b, 50000)
	binary.BigEndian.PutUint16(b[2:], 4789)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	if from.Is4() {
		return b // 0: none
	}
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, 0, 0, byte(len(b)), 0, 0, 0, unix.IPPROTO_UDP) // RFC 8200 section 8.1
	var sum uint32
	for all := append(pseudo, append(b, make([]byte, len(b)%2)...)...); len(all) > 0; all = all[2:] {
		sum += uint32(binary.BigEndian.Uint16(all))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[6:], ^uint16(sum))
	return b
}

// A part of a datagram, and where it lies: as a packet of its own.
type part struct {
	data   []byte
	offset uint16 // in units of 8 bytes
	more   uint16 // 1: others follow
}

// inFragments cuts a datagram after its first 8 bytes: the first fragment says which port it is for, and the second which
// network.
func inFragments(from, to netip.Addr, datagram []byte) [][]byte {
	return packets(from, to, part{datagram[:8], 0, 1}, part{datagram[8:], 1, 0})
}

func packets(from, to netip.Addr, parts ...part) [][]byte {
	var packets [][]byte
	const id = 0x4242
	for _, part := range parts {
		var h []byte
		if from.Is4() { // RFC 791 section 3.1
			h = make([]byte, 12)
			h[0], h[8], h[9] = 0x45, 64, unix.IPPROTO_UDP
			binary.BigEndian.PutUint16(h[2:], uint16(20+len(part.data)))
			binary.BigEndian.PutUint16(h[4:], id)
			binary.BigEndian.PutUint16(h[6:], part.more<<13|part.offset)
			h = append(append(h, from.AsSlice()...), to.AsSlice()...) // the kernel fills in the checksum
		} else { // RFC 8200 sections 3 and 4.5
			h = []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_FRAGMENT, 64}
			binary.BigEndian.PutUint16(h[4:], uint16(8+len(part.data)))
			h = append(append(h, from.AsSlice()...), to.AsSlice()...)
			fragment := []byte{unix.IPPROTO_UDP, 0, 0, 0, 0, 0, 0x42, 0x42}
			binary.BigEndian.PutUint16(fragment[2:], part.offset<<3|part.more)
			h = append(h, fragment...)
		}
		packets = append(packets, append(h, part.data...))
	}
	return packets
}

func sendPackets(t *testing.T, ns *kerneltest.NetNS, to netip.Addr, packets [][]byte) {
	t.Helper()
	err := ns.Do(func() error {
		domain, dst := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.AsSlice()[:4])})
		if to.Is6() {
			domain, dst = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW, unix.IPPROTO_RAW) // headers are ours
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, dst); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A frame in fragments of which the first ends before the VNI shows no rule which network it is for. It must be put together
// before it is judged.
func TestRulesSeeThroughFragments(t *testing.T) {
	h := newHost(t)
	stranger := kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, stranger, "u0", []string{"203.0.113.1/24", "2001:db8::1/64"}, []string{"203.0.113.66/24", "2001:db8::66/64"})
	for _, f := range [][2]netip.Addr{{addr("203.0.113.66"), addr("203.0.113.1")}, {addr("2001:db8::66"), addr("2001:db8::1")}} {
		state := kernel.State{Links: []kernel.Link{
			{Name: vx, NS: kernel.Shared, Up: true, VXLAN: &kernel.VXLAN{VNI: guarded, Local: f[1], Port: 4789}},
			{Name: vx2, NS: kernel.Shared, Up: true, VXLAN: &kernel.VXLAN{VNI: other, Local: f[1], Port: 4789}},
		}}
		h.set(t, "network", state)
		shared := h.shared(t)
		count := func() uint64 {
			return countGuarded(t, shared, func(vni uint32) {
				sendPackets(t, stranger, f[1], inFragments(f[0], f[1], udp(f[0], f[1], vxlanFrame(vni))))
			}, 1)
		}
		if n := count(); n != 1 {
			t.Errorf("%s, without a rule: %d frames came in", f[0], n)
		}
		state.Rules = []kernel.Rule{{Chain: kernel.Prerouting, UDPPort: 4789, VNI: guarded, Verdict: kernel.Drop,
			NotFrom: []netip.Addr{addr("203.0.113.2"), addr("2001:db8::2")}}}
		h.set(t, "network", state)
		if n := count(); n != 0 {
			t.Errorf("%s: %d frames came in past the rule", f[0], n)
		}
		h.set(t, "network", kernel.State{})
	}
}
