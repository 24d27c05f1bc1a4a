package kernel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// longMemory lets a container believe for ten minutes what it has heard of its neighbours, where it would ask again after 15 to
// 45 s: whatever it learns within patience it has been told.
func longMemory(t *testing.T, box *sandbox) {
	t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		box.Run(t, "sysctl -w net.%s.neigh.eth0.base_reachable_time_ms=600000", family)
	}
}

var addrsOfTwo = []string{"10.9.0.2", "fd09::2"}

// checkReplaced sends to the container that has been replaced by one with another MAC.
func checkReplaced(t *testing.T, from *sandbox, old, next kernel.MAC, announced bool) {
	t.Helper()
	for _, ip := range addrsOfTwo {
		known, start := old, time.Now()
		if announced {
			known = next
			if err := reach(from.NetNS, addr(ip), 100, patience); err != nil {
				t.Errorf("%s: %v", ip, err)
			}
			t.Logf("%s answered after %v", ip, time.Since(start).Round(10*time.Microsecond))
		} else if err := reach(from.NetNS, addr(ip), 100, time.Second); err == nil {
			t.Errorf("%s: answered though nobody has said that it has another MAC", ip)
		}
		wantLines(t, from.Run(t, "ip neigh show %s dev eth0", ip), "lladdr "+known.String())
	}
}

// Two containers talk, one is replaced by another with the same addresses, as by `docker restart` on an engine that does not
// announce it, and the first reaches that at once. Without the announcement it does not.
func TestAContainerIsReplacedOnItsHost(t *testing.T) {
	for _, announced := range []bool{false, true} {
		t.Run(fmt.Sprintf("announced=%v", announced), func(t *testing.T) {
			h := newHost(t)
			h.set(t, "network", kernel.State{Links: []kernel.Link{{Name: br, NS: kernel.Shared, MTU: 1430, Up: true, Bridge: &kernel.Bridge{}}}})
			old, next := mac(t, "02:00:00:00:02:02"), mac(t, "02:00:00:00:02:22")
			one := h.container(t, id1, 1, mac(t, "02:00:00:00:02:01"), announced)
			longMemory(t, one)
			h.container(t, id2, 2, old, announced)
			for _, ip := range addrsOfTwo {
				if err := reach(one.NetNS, addr(ip), 100, patience); err != nil {
					t.Fatalf("%s: %v", ip, err)
				}
			}
			h.set(t, "endpoint "+id2, kernel.State{})
			h.container(t, id2, 2, next, announced)
			checkReplaced(t, one, old, next, announced)
		})
	}
}

// The same where the replaced container is on another host, of which this one hears by its record.
func TestAContainerIsReplacedOnAnotherHost(t *testing.T) {
	for _, announced := range []bool{false, true} {
		t.Run(fmt.Sprintf("announced=%v", announced), func(t *testing.T) {
			a, b := joinedHosts(t)
			old, next := containerMAC(t, 2), mac(t, "02:00:00:00:02:22")
			a.set(t, "network", a.record(t, "198.51.100.1", "198.51.100.2", old, announced))
			b.set(t, "network", b.record(t, "198.51.100.2", "198.51.100.1", containerMAC(t, 1), announced))
			a.box = a.container(t, id1, 1, containerMAC(t, 1), announced)
			longMemory(t, a.box)
			b.container(t, id2, 2, old, announced)
			for _, ip := range addrsOfTwo {
				if err := reach(a.box.NetNS, addr(ip), 100, patience); err != nil {
					t.Fatalf("%s: %v", ip, err)
				}
			}
			b.set(t, "endpoint "+id2, kernel.State{})
			gone := a.record(t, "198.51.100.1", "198.51.100.2", old, announced)
			gone.FDB, gone.Neighs = gone.FDB[1:], nil
			a.set(t, "network", gone)
			b.container(t, id2, 2, next, announced)
			a.set(t, "network", a.record(t, "198.51.100.1", "198.51.100.2", next, announced))
			checkReplaced(t, a.box, old, next, announced)
		})
	}
}

func joinedHosts(t *testing.T) (a, b *node) {
	t.Helper()
	a, b = &node{host: newHost(t), n: 1}, &node{host: newHost(t), n: 2}
	kerneltest.Join(t, a.NetNS, b.NetNS, "u0", []string{"198.51.100.1/24"}, []string{"198.51.100.2/24"})
	return a, b
}

// record is the state of node n when the other's container has a MAC. Unlike in overlay, what is flooded goes to the other.
func (n *node) record(t *testing.T, local, remote string, mac kernel.MAC, announced bool) kernel.State {
	t.Helper()
	s := n.overlay(t, local, remote, true)
	s.FDB[0].MAC = mac
	s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: vx, Dst: addr(remote)})
	for i := range s.Neighs {
		s.Neighs[i].MAC, s.Neighs[i].Announce = mac, announced
	}
	return s
}

// A tap sees the frames that come in by a device.
type tap struct{ fd int }

const allProtocols = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order, on either kind of machine

func listen(t *testing.T, ns *kerneltest.NetNS, dev string) *tap {
	t.Helper()
	p := &tap{}
	err := ns.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		short := unix.Timeval{Usec: 100_000}
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &short); err != nil {
			return err
		}
		index, err := indexOf(dev)
		return errors.Join(err, unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: index}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

func indexOf(dev string) (int, error) {
	i, err := net.InterfaceByName(dev) // of the namespace that the thread is in
	if err != nil {
		return 0, err
	}
	return i.Index, nil
}

// until collects what announces an address, until enough says so.
func (p *tap) until(t *testing.T, enough func(frame []byte, seen int) bool) [][]byte {
	t.Helper()
	var seen [][]byte
	buf := make([]byte, 2048)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, from, err := unix.Recvfrom(p.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		frame := slices.Clone(buf[:n])
		arp := binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_ARP
		if arp || n > 54 && frame[20] == unix.IPPROTO_ICMPV6 && frame[54] == 136 {
			seen = append(seen, frame)
		}
		if enough(frame, len(seen)) {
			return seen
		}
	}
	t.Fatalf("what was waited for did not come; announced was %x", seen)
	return nil
}

func after(n int) func([]byte, int) bool { return func(_ []byte, seen int) bool { return seen >= n } }

// mark sends a broadcast frame from a container, and until(marked) says what came before it. Its EtherType is the one for
// experiments (IEEE 802).
func mark(t *testing.T, box *sandbox) {
	t.Helper()
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x02\x01\x88\xb5"), make([]byte, 46)...)
	err := box.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		index, err := indexOf("eth0")
		return errors.Join(err, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func marked(frame []byte, _ int) bool { return bytes.Equal(frame[12:14], []byte{0x88, 0xb5}) }

// Announcements reach every container of the host once, leave it by no other way, and teach no bridge anything. That they
// would leave without neigh_suppress shows that the tap would have seen them.
func TestAnnouncementsStayOnTheHost(t *testing.T) {
	a, b := joinedHosts(t)
	state := func(mac kernel.MAC) kernel.State { return a.record(t, "198.51.100.1", "198.51.100.2", mac, true) }
	a.set(t, "network", state(containerMAC(t, 2)))
	b.set(t, "network", b.record(t, "198.51.100.2", "198.51.100.1", containerMAC(t, 1), true))
	b.container(t, id1, 3, mac(t, "02:00:00:00:02:03"), false) // keeps the bridge up, as any port would
	one := a.container(t, id1, 1, containerMAC(t, 1), true)
	two := a.container(t, id2, 4, mac(t, "02:00:00:00:02:04"), true)
	forwarding(t, a.shared(t), 3)
	ears := []*tap{listen(t, one.NetNS, "eth0"), listen(t, two.NetNS, "eth0")}
	far := listen(t, b.shared(t), vx)

	moved := mac(t, "02:00:00:00:02:22")
	a.set(t, "network", state(moved))
	a.set(t, "network", state(moved)) // nothing to do, and nothing to say
	made := kernel.State{Links: []kernel.Link{{Name: kernel.Name(kernel.KindHostEnd, "eeeeeeeeeeee"), NS: kernel.Shared, Master: br, Up: true,
		Veth: &kernel.Veth{Peer: kernel.Name(kernel.KindContainerEnd, "eeeeeeeeeeee"), PeerMAC: mac(t, "02:00:00:00:02:05"),
			Announce: []netip.Addr{addr("10.9.0.5"), addr("fd09::5")}}}}}
	a.set(t, "endpoint new", made)
	a.set(t, "endpoint new", made)
	for i, p := range ears {
		seen := p.until(t, after(4))
		for _, want := range []struct{ ip, mac string }{{"10.9.0.2", "2:22"}, {"fd09::2", "2:22"}, {"10.9.0.5", "2:05"}, {"fd09::5", "2:05"}} {
			about, from := addr(want.ip).AsSlice(), mac(t, "02:00:00:00:0"+want.mac)
			if !slices.ContainsFunc(seen, func(f []byte) bool { return bytes.Equal(f[6:12], from[:]) && bytes.Contains(f, about) }) {
				t.Errorf("container %d has not seen %s at %s, but %x", i+1, want.ip, from, seen)
			}
		}
	}
	mark(t, one)
	if seen := far.until(t, marked); len(seen) != 0 {
		t.Errorf("the other host has seen %x", seen)
	}
	if seen := ears[1].until(t, marked); len(seen) != 0 {
		t.Errorf("announced more than once: %x", seen)
	}
	checkLearned(t, a.shared(t).Run(t, "bridge fdb show"), "02:00:00:00:02:05", "")
	checkLearned(t, a.shared(t).Run(t, "bridge fdb show"), moved.String(), " dev "+vx+" ")
	checkLearned(t, b.shared(t).Run(t, "bridge fdb show"), moved.String(), "")

	open := state(containerMAC(t, 2))
	open.Links[1].NeighSuppress = false
	a.set(t, "network", open)
	far.until(t, after(2))
}

// forwarding waits until n ports forward. The kernel opens one up to a second after its link came up (linkwatch_schedule_work,
// Linux 6.18).
func forwarding(t *testing.T, ns *kerneltest.NetNS, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		out := ns.Run(t, "bridge link show")
		if strings.Count(out, "state forwarding") == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not %d ports forward:\n%s", n, out)
		}
	}
}

// checkLearned looks for a MAC in forwarding entries: it may be in those only that have a part.
func checkLearned(t *testing.T, entries, mac, part string) {
	t.Helper()
	for line := range strings.Lines(entries) {
		if strings.HasPrefix(line, mac) && (part == "" || !strings.Contains(line, part)) {
			t.Errorf("learned from an announcement: %s", line)
		}
	}
}

// Nobody can be told on a bridge that somebody has taken down. That is said once, and is no reason to fail.
func TestAnAnnouncementThatFailsIsNoError(t *testing.T) {
	h := newHost(t)
	h.Close()
	log, hook := logtest.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	err := h.Do(func() (err error) {
		h.Kernel, err = kernel.New(kernel.Config{Dir: h.dir, Logger: log})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.set(t, "network", kernel.State{Links: []kernel.Link{{Name: br, NS: kernel.Shared, Up: true, Bridge: &kernel.Bridge{}}}})
	h.shared(t).Run(t, "ip link set %s down", br)
	h.container(t, id1, 1, containerMAC(t, 1), true)
	h.container(t, id2, 2, containerMAC(t, 2), true)
	count := map[logrus.Level][]string{}
	for _, e := range hook.AllEntries() {
		if strings.Contains(e.Message, "cannot announce") {
			if !errors.Is(e.Data[logrus.ErrorKey].(error), unix.ENETDOWN) {
				t.Errorf("the reason is %v", e.Data[logrus.ErrorKey])
			}
			count[e.Level] = append(count[e.Level], e.Message)
		}
	}
	if len(count[logrus.WarnLevel]) != 1 || len(count[logrus.DebugLevel]) != 1 {
		t.Errorf("logged %v, want one warning for the first container and one line for the second", count)
	}
}
