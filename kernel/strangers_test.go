package kernel_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"golang.org/x/sys/unix"
)

// A container that writes a node's address into its packets sends them by another device than the one that leads to that
// node. Wherever on the host it sends them, they come in without the rule and do not with it; the node's own come in.
func TestRulesKnowTheWayBack(t *testing.T) {
	h := newHost(t)
	container, node := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, container, "c0", []string{"10.0.0.1/24", "fd00::1/64"}, []string{"10.0.0.2/24", "fd00::2/64"})
	kerneltest.Join(t, h.NetNS, node, "u0", []string{"198.51.100.1/24", "2001:db8::1/64"}, []string{"198.51.100.2/24", "2001:db8::2/64"})
	h.Run(t, "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.c0.rp_filter=0") // what some systems have of their own
	container.Run(t, "ip route add default via 10.0.0.1")
	container.Run(t, "ip -6 route add default via fd00::1")
	for _, f := range []struct{ local, node, gateway string }{
		{"198.51.100.1", "198.51.100.2", "10.0.0.1"}, {"2001:db8::1", "2001:db8::2", "fd00::1"},
	} {
		local, from := addr(f.local), addr(f.node)
		state := kernel.State{Links: []kernel.Link{
			{Name: vx, NS: kernel.Shared, Up: true, VXLAN: &kernel.VXLAN{VNI: guarded, Local: local, Port: 4789}},
			{Name: vx2, NS: kernel.Shared, Up: true, VXLAN: &kernel.VXLAN{VNI: other, Local: local, Port: 4789}},
		}}
		count := func(ns *kerneltest.NetNS, to netip.Addr) uint64 {
			return countGuarded(t, h.shared(t), func(vni uint32) {
				sendPackets(t, ns, to, packets(from, to, part{data: udp(from, to, vxlanFrame(vni))}))
			}, 1)
		}
		for _, guard := range []bool{false, true} {
			if guard {
				state.Rules = []kernel.Rule{{Chain: kernel.Prerouting, UDPPort: 4789, VNI: guarded, Astray: true, Verdict: kernel.Drop}}
			}
			h.set(t, "network", state)
			want := uint64(1)
			if guard {
				want = 0
			}
			for _, to := range []string{f.local, f.gateway} {
				if n := count(container, addr(to)); n != want {
					t.Errorf("from a container as %s to %s, guarded %v: %d frames came in, want %d", from, to, guard, n, want)
				}
			}
			if n := count(node, local); n != 1 {
				t.Errorf("from %s itself, guarded %v: %d frames came in, want 1", from, guard, n)
			}
		}
		h.set(t, "network", kernel.State{})
	}
}

// Of what is forwarded to a node, rules that speak of all networks from a number on let the others pass.
func TestRulesAboutManyNetworks(t *testing.T) {
	h := newHost(t)
	container, node := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, container, "c0", []string{"10.0.0.1/24", "fd00::1/64"}, []string{"10.0.0.2/24", "fd00::2/64"})
	kerneltest.Join(t, h.NetNS, node, "u0", []string{"198.51.100.1/24", "2001:db8::1/64"}, []string{"198.51.100.2/24", "2001:db8::2/64"})
	h.Run(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	container.Run(t, "ip route add default via 10.0.0.1")
	container.Run(t, "ip -6 route add default via fd00::1")
	for _, to := range []string{"198.51.100.2", "2001:db8::2"} {
		var c *net.UDPConn
		err := node.Do(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr(to), 4789)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// arrived sends frames of these networks, and says of which they come, up to the last.
		arrived := func(vnis ...uint32) (got []uint32) {
			for _, vni := range vnis {
				send(t, container, to, vxlanFrame(vni))
			}
			buf := make([]byte, 2048)
			for last := vnis[len(vnis)-1]; len(got) == 0 || got[len(got)-1] != last; {
				_ = c.SetReadDeadline(time.Now().Add(patience))
				n, err := c.Read(buf)
				if err != nil || n < 8 {
					t.Fatalf("%s: frames of network %d are lost: %v", to, last, err)
				}
				got = append(got, binary.BigEndian.Uint32(buf[4:])>>8)
			}
			return got
		}
		all := []uint32{1 << 20, 1<<24 - 1, 1<<20 + 1, 4096, 1<<20 - 1}
		if got := arrived(all...); len(got) != len(all) {
			t.Errorf("%s: without a rule frames of %d arrive, want all", to, got)
		}
		h.set(t, "node", kernel.State{Rules: []kernel.Rule{{Chain: kernel.Forward, UDPPort: 4789, VNIFrom: 1 << 20,
			To: []netip.Addr{addr(to)}, Verdict: kernel.Drop}}})
		if got := arrived(all...); fmt.Sprint(got) != "[4096 1048575]" {
			t.Errorf("%s: frames of %d arrive, want those of 4096 and 1048575", to, got)
		}
		h.set(t, "node", kernel.State{})
	}
}

// A container that sends with the MAC of another one gets none of the other's frames, whether that one is behind the VXLAN
// device or on this host. Where the bridge learns it does: even the static entry moves.
func TestNobodyTakesTheMACOfAnother(t *testing.T) {
	for _, learns := range []bool{true, false} {
		h := newHost(t)
		thief, victim, far := mac(t, "02:00:00:00:02:01"), mac(t, "02:00:00:00:02:02"), mac(t, "02:00:00:00:02:03")
		h.set(t, "network", kernel.State{
			Links: []kernel.Link{
				{Name: br, NS: kernel.Shared, Up: true, Bridge: &kernel.Bridge{}},
				{Name: vx, NS: kernel.Shared, Master: br, Up: true, NoLearning: true, NeighSuppress: true,
					VXLAN: &kernel.VXLAN{VNI: guarded, Local: addr("198.51.100.1"), Port: 4789}},
			},
			FDB: []kernel.FDB{{NS: kernel.Shared, Dev: vx, MAC: far, Dst: addr("198.51.100.2"), Bridge: true}},
		})
		var boxes []*sandbox
		for i, id := range []string{id1, id2} {
			own := []kernel.MAC{thief, victim}[i]
			end, peer := kernel.Name(kernel.KindHostEnd, id), kernel.Name(kernel.KindContainerEnd, id)
			state := kernel.State{
				Links: []kernel.Link{{Name: end, NS: kernel.Shared, Master: br, Up: true, NoLearning: !learns,
					Veth: &kernel.Veth{Peer: peer, PeerMAC: own}}},
				FDB: []kernel.FDB{{NS: kernel.Shared, Dev: end, MAC: own, Bridge: true}},
			}
			h.set(t, "endpoint "+id, state)
			if lines, err := h.Plan("endpoint "+id, state); err != nil || len(lines) != 0 {
				t.Errorf("what is there would be changed: %v, %v", lines, err)
			}
			box := newSandbox(t)
			h.Run(t, "ip link set %s netns %s", peer, box.path)
			box.Run(t, "ip link set %s name eth0", peer)
			box.Run(t, "ip link set eth0 addrgenmode none") // else it would speak by itself, and take its place back
			box.Run(t, "ip link set eth0 up")
			boxes = append(boxes, box)
		}
		shared := h.shared(t)
		for _, stolen := range []kernel.MAC{far, victim} {
			broadcast(t, boxes[0].NetNS, boxes[1].NetNS, stolen)
			where := ""
			for line := range strings.Lines(shared.Run(t, "bridge fdb show br %s", br)) {
				if strings.HasPrefix(line, stolen.String()) && strings.Contains(line, "master") {
					where += line
				}
			}
			if took := strings.Contains(where, "dev "+vh); took != learns {
				t.Errorf("learning %v: after the thief has sent as %s: %s", learns, stolen, where)
			}
		}
		for _, id := range []string{id1, id2} {
			h.set(t, "endpoint "+id, kernel.State{})
		}
		h.set(t, "network", kernel.State{})
	}
}

// broadcast sends frames from eth0 with a source that may be another's, until they come out of the bridge: it takes a port
// when the kernel has told it of the carrier.
func broadcast(t *testing.T, ns, to *kerneltest.NetNS, from kernel.MAC) {
	t.Helper()
	before, end := received(t, to, "eth0"), time.Now().Add(patience)
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, from[:]...)
	frame = append(frame, 0x88, 0xb5) // EtherType for experiments, IEEE 802
	frame = append(frame, make([]byte, 46)...)
	for received(t, to, "eth0") < before+3 {
		if time.Now().After(end) {
			t.Fatal("the frames did not arrive")
		}
		err := ns.Do(func() error {
			dev, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
