package kernel_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// echo answers datagrams at an address of a namespace until the test ends.
func echo(t *testing.T, ns *kerneltest.NetNS, addr netip.Addr) {
	t.Helper()
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 7)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDP(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDP(buf[:n], from)
		}
	}()
}

// reach sends datagrams of a size until one is answered, or gives up.
func reach(ns *kerneltest.NetNS, addr netip.Addr, size int, patience time.Duration) error {
	var c *net.UDPConn
	err := ns.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 7)))
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 2048)
	for end := time.Now().Add(patience); ; {
		if _, err := c.Write(buf[:size]); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(min(time.Second, time.Until(end))))
		_, err := c.Read(buf)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return err
		}
	}
}

// A node is a host in a network of two, with one container.
type node struct {
	*host
	box *sandbox
	n   int
}

func containerMAC(t *testing.T, n int) kernel.MAC {
	return mac(t, fmt.Sprintf("02:00:00:00:02:0%d", n))
}

// overlay is the state of a network of node n whose remote container is that of node 3-n. Nothing is flooded: an address
// that the bridge does not answer for cannot be found.
func (n *node) overlay(t *testing.T, local, remote string, answered bool) kernel.State {
	other := 3 - n.n
	s := kernel.State{
		Links: []kernel.Link{
			{Name: br, NS: kernel.Shared, MTU: 1430, Up: true, Bridge: &kernel.Bridge{}},
			{Name: vx, NS: kernel.Shared, MTU: 1430, Master: br, Up: true, NoLearning: true, NeighSuppress: true,
				VXLAN: &kernel.VXLAN{VNI: 1 << 20, Local: addr(local), Port: 4789}},
		},
		FDB: []kernel.FDB{{NS: kernel.Shared, Dev: vx, MAC: containerMAC(t, other), Dst: addr(remote), Bridge: true}},
	}
	if answered {
		for _, ip := range []string{fmt.Sprintf("10.9.0.%d", other), fmt.Sprintf("fd09::%d", other)} {
			s.Neighs = append(s.Neighs, kernel.Neigh{NS: kernel.Shared, Dev: br, IP: addr(ip), MAC: containerMAC(t, other)})
		}
	}
	return s
}

// attach gives the node its container.
func (n *node) attach(t *testing.T) {
	t.Helper()
	n.box = n.container(t, id1, n.n, containerMAC(t, n.n), false)
}

// container puts one with the addresses 10.9.0.N and fd09::N on the bridge br, and lets them answer. Nothing in it tells
// others of itself.
func (h *host) container(t *testing.T, id string, n int, mac kernel.MAC, announced bool) *sandbox {
	t.Helper()
	ip4, ip6 := fmt.Sprintf("10.9.0.%d", n), fmt.Sprintf("fd09::%d", n)
	veth := kernel.Veth{Peer: kernel.Name(kernel.KindContainerEnd, id), PeerMAC: mac, PeerMTU: 1430}
	if announced {
		veth.Announce = []netip.Addr{addr(ip4), addr(ip6)}
	}
	h.set(t, "endpoint "+id, kernel.State{Links: []kernel.Link{{Name: kernel.Name(kernel.KindHostEnd, id), NS: kernel.Shared,
		MTU: 1430, Master: br, Up: true, Veth: &veth}}})
	box := newSandbox(t)
	h.Run(t, "ip link set %s netns %s", veth.Peer, box.path)
	box.Run(t, "ip link set %s name eth0", veth.Peer)
	box.Run(t, "ip link set eth0 up")
	box.Run(t, "ip addr add %s/24 dev eth0", ip4)
	box.Run(t, "ip addr add %s/64 dev eth0 nodad", ip6)
	echo(t, box.NetNS, addr(ip4))
	echo(t, box.NetNS, addr(ip6))
	return box
}

// Containers of two hosts find and reach each other in both families over an underlay of either, because the bridge of
// their own host answers for the other.
func TestOverlayOfTwoHosts(t *testing.T) {
	a, b := &node{host: newHost(t), n: 1}, &node{host: newHost(t), n: 2}
	kerneltest.Join(t, a.NetNS, b.NetNS, "u0", []string{"198.51.100.1/24", "2001:db8::1/64"}, []string{"198.51.100.2/24", "2001:db8::2/64"})
	for i, underlay := range [][2]string{{"198.51.100.1", "198.51.100.2"}, {"2001:db8::1", "2001:db8::2"}} {
		a.set(t, "network", a.overlay(t, underlay[0], underlay[1], false))
		b.set(t, "network", b.overlay(t, underlay[1], underlay[0], false))
		if i == 0 {
			a.attach(t)
			b.attach(t)
		}
		for _, ip := range []string{"10.9.0.2", "fd09::2"} {
			for _, n := range []*node{a, b} {
				n.box.Run(t, "ip neigh flush all")
			}
			if err := reach(a.box.NetNS, addr(ip), 100, time.Second); err == nil {
				t.Errorf("%s over %s: found though nobody answers for it", ip, underlay[1])
			}
		}
		a.set(t, "network", a.overlay(t, underlay[0], underlay[1], true))
		b.set(t, "network", b.overlay(t, underlay[1], underlay[0], true))
		for _, ip := range []string{"10.9.0.2", "fd09::2"} {
			const headers = 48 // IPv6 and UDP
			for _, size := range []int{1, 1430 - headers} {
				if err := reach(a.box.NetNS, addr(ip), size, patience); err != nil {
					t.Errorf("%s over %s, %d bytes: %v", ip, underlay[1], size, err)
				}
			}
		}
		// The bridge itself has no address, and so says nothing of its own.
		wantLines(t, a.shared(t).Run(t, "ip -o addr show"), "")
	}
	sockets := a.Run(t, "ss -uln sport = 4789")
	wantLines(t, sockets, "4789")
	if out := a.shared(t).Run(t, "ss -Huln"); out != "" {
		t.Errorf("the socket is in our namespace: %s", out)
	}
	for _, n := range []*node{a, b} {
		n.set(t, "endpoint "+id1, kernel.State{})
		n.set(t, "network", kernel.State{})
	}
}
