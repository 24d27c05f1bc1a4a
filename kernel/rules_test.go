package kernel_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"github.com/vishvananda/netlink"
)

// vxlanFrame is a broadcast frame in VXLAN (RFC 7348 section 5), as anybody with a UDP socket can send it.
func vxlanFrame(vni uint32) []byte {
	b := make([]byte, 8+14+46)
	b[0] = 8 // the VNI is valid
	binary.BigEndian.PutUint32(b[4:], vni<<8)
	copy(b[8:], "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x66\x66\x88\xb5") // EtherType for experiments, IEEE 802
	return b
}

func send(t *testing.T, from *kerneltest.NetNS, to string, payload []byte) {
	t.Helper()
	err := from.Do(func() error {
		c, err := net.Dial("udp", net.JoinHostPort(to, "4789"))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(payload)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func received(t *testing.T, ns *kerneltest.NetNS, dev string) uint64 {
	t.Helper()
	return statistics(t, ns, dev).RxPackets
}

func transmitted(t *testing.T, ns *kerneltest.NetNS, dev string) uint64 {
	t.Helper()
	return statistics(t, ns, dev).TxPackets
}

func statistics(t *testing.T, ns *kerneltest.NetNS, dev string) netlink.LinkStatistics {
	t.Helper()
	var s netlink.LinkStatistics
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err == nil {
			s = *l.Attrs().Statistics
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Two networks of which one is guarded.
const guarded, other = 1 << 20, 7

var vx2 = kernel.Name(kernel.KindVXLAN, id2)

// countGuarded sends n frames of both networks, and says how many of the guarded one came in when all n of the other did,
// which were sent after them on the same ways.
func countGuarded(t *testing.T, shared *kerneltest.NetNS, send func(vni uint32), n uint64) uint64 {
	t.Helper()
	end := time.Now().Add(patience)
	arrived := func(until time.Time, want uint64) bool {
		for received(t, shared, vx2) < want && time.Now().Before(until) {
		}
		return received(t, shared, vx2) >= want
	}
	for reached := false; !reached && time.Now().Before(end); { // what is sent while the way is looked for may be lost
		before := received(t, shared, vx2)
		send(other)
		reached = arrived(time.Now().Add(time.Second), before+1)
	}
	first, firstOther := received(t, shared, vx), received(t, shared, vx2)
	send(guarded)
	send(other)
	if !arrived(end, firstOther+n) {
		t.Fatal("frames of the other network are lost")
	}
	return received(t, shared, vx) - first
}

// Frames of a network are taken from the hosts that are in it, and from nobody else; other networks on the same port do not
// notice. Without the rule the same frames come in.
func TestRulesGuardTheNetwork(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	member, stranger := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, member, "u0", []string{"198.51.100.1/24", "2001:db8:1::1/64"}, []string{"198.51.100.2/24", "2001:db8:1::2/64"})
	kerneltest.Join(t, h.NetNS, stranger, "u1", []string{"203.0.113.1/24", "2001:db8:2::1/64"}, []string{"203.0.113.66/24", "2001:db8:2::66/64"})
	dev := func(name string, vni uint32, local string) kernel.Link {
		return kernel.Link{Name: name, NS: kernel.Shared, Up: true, VXLAN: &kernel.VXLAN{VNI: vni, Local: addr(local), Port: 4789}}
	}
	for _, f := range []struct{ local, at, member, stranger string }{
		{"198.51.100.1", "203.0.113.1", "198.51.100.2", "4"},
		{"2001:db8:1::1", "2001:db8:2::1", "2001:db8:1::2", "6"},
	} {
		state := kernel.State{Links: []kernel.Link{dev(vx, guarded, f.local), dev(vx2, other, f.local)}}
		h.set(t, "network", state)
		shared := h.shared(t)
		count := func() uint64 {
			return countGuarded(t, shared, func(vni uint32) {
				send(t, stranger, f.at, vxlanFrame(vni))
				send(t, member, f.local, vxlanFrame(vni))
			}, 2)
		}
		if n := count(); n != 2 {
			t.Errorf("IPv%s without a rule: %d frames of 2 came in", f.stranger, n)
		}
		for _, known := range [][]netip.Addr{
			{addr(f.member)},
			{addr("198.51.100.2"), addr("2001:db8:1::2")},
			{addr("198.51.100.2"), addr("198.51.100.77"), addr("2001:db8:1::2"), addr("2001:db8:1::77")},
		} {
			state.Rules = []kernel.Rule{{Chain: kernel.Prerouting, UDPPort: 4789, VNI: guarded, NotFrom: known, Verdict: kernel.Drop}}
			h.set(t, "network", state)
			if n := count(); n != 1 {
				t.Errorf("IPv%s from %v only: %d frames came in, want 1", f.stranger, known, n)
			}
		}
		// Members of the other family only: all of this one are strangers.
		none := []netip.Addr{addr("198.51.100.2")}
		if f.stranger == "4" {
			none = []netip.Addr{addr("2001:db8:1::2")}
		}
		state.Rules[0].NotFrom = none
		h.set(t, "network", state)
		if n := count(); n != 0 {
			t.Errorf("IPv%s from %v only: %d frames came in, want 0", f.stranger, none, n)
		}
		h.set(t, "network", kernel.State{})
	}
	h.Run(t, "ip link del u0")
	h.Run(t, "ip link del u1")
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// What is forwarded towards the port of the overlay is dropped, if it goes to a host of ours.
func TestRulesKeepContainersFromInjecting(t *testing.T) {
	h := newHost(t)
	container, other := kerneltest.NewNetNS(t), kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, container, "c0", []string{"10.0.0.1/24", "fd00::1/64"}, []string{"10.0.0.2/24", "fd00::2/64"})
	kerneltest.Join(t, h.NetNS, other, "u0", []string{"198.51.100.1/24", "2001:db8::1/64"},
		[]string{"198.51.100.2/24", "198.51.100.3/24", "2001:db8::2/64", "2001:db8::3/64"})
	h.Run(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	for _, ns := range []*kerneltest.NetNS{container, other} {
		dev, via := "c0", []string{"10.0.0.1", "fd00::1"}
		if ns == other {
			dev, via = "u0", []string{"198.51.100.1", "2001:db8::1"}
		}
		ns.Run(t, "ip route add default via %s dev %s", via[0], dev)
		ns.Run(t, "ip -6 route add default via %s dev %s", via[1], dev)
	}
	addrs := []string{"198.51.100.2", "2001:db8::2", "198.51.100.3", "2001:db8::3"}
	for _, a := range addrs {
		echo(t, other, addr(a))
	}
	rule := kernel.Rule{Chain: kernel.Forward, UDPPort: 7, To: []netip.Addr{addr(addrs[0]), addr(addrs[1])}, Verdict: kernel.Drop}
	for _, c := range []struct {
		rules   []kernel.Rule
		blocked int // of addrs, from the first
	}{{nil, 0}, {[]kernel.Rule{rule}, 2}, {nil, 0},
		{[]kernel.Rule{{Chain: kernel.Forward, UDPPort: 7, Verdict: kernel.Accept}, rule}, 0},
		{[]kernel.Rule{rule, {Chain: kernel.Forward, UDPPort: 7, Verdict: kernel.Accept}}, 2},
		{[]kernel.Rule{{Chain: kernel.Forward, UDPPort: 8, Verdict: kernel.Drop}}, 0}} {
		h.set(t, "guard", kernel.State{Rules: c.rules})
		for i, a := range addrs {
			wait := patience
			if i < c.blocked {
				wait = time.Second
			}
			if err := reach(container, addr(a), 10, wait); (err != nil) != (i < c.blocked) {
				t.Errorf("%v: %s: %v", c.rules, a, err)
			}
		}
	}
	h.set(t, "guard", kernel.State{})
	if out := h.Run(t, "nft list ruleset"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// The rules of one owner are replaced without a glance at those of others, or at what a hand has put beside them.
func TestRulesOfSeveralOwners(t *testing.T) {
	h := newHost(t)
	rule := func(vni uint32) kernel.State {
		return kernel.State{Rules: []kernel.Rule{{Chain: kernel.Prerouting, UDPPort: 4789, VNI: vni, Verdict: kernel.Drop}}}
	}
	h.set(t, "network a", rule(1))
	h.set(t, "network b 7", rule(2))
	h.Run(t, "nft add rule inet carrick prerouting udp dport 9 counter")
	h.Run(t, "nft add table inet other")
	h.set(t, "network a", rule(3))
	list := h.Run(t, "nft list table inet carrick")
	wantLines(t, list, "udp dport 4789 jump prerouting-4789 ", "vmap { 512 : jump prerouting-4789-0x2, 768 : jump prerouting-4789-0x3 }",
		"chain prerouting-4789-0x2 {\n\t\tdrop comment \"carrick network b 7 ",
		"chain prerouting-4789-0x3 {\n\t\tdrop comment \"carrick network a ", "udp dport 9")
	if strings.Contains(list, "-0x1 ") {
		t.Errorf("the old rule is still there: %s", list)
	}
	if got := owned(t, h); len(got) != 2 || got[0].Owner != "network a" || got[1].Owner != "network b 7" {
		t.Errorf("owners: %v", got)
	}
	h.set(t, "network a", kernel.State{})
	h.set(t, "network b 7", kernel.State{})
	wantLines(t, h.Run(t, "nft list table inet carrick"), "udp dport 9") // not ours to remove
	h.Run(t, "nft flush chain inet carrick prerouting")
	h.set(t, "network a", rule(1))
	h.set(t, "network a", kernel.State{})
	if out := h.Run(t, "nft list ruleset"); out != "table inet other {\n}\n" {
		t.Errorf("left: %s", out)
	}
}

// More networks than a single map can be told of have their rules all the same.
func TestRulesOfManyNetworks(t *testing.T) {
	const networks = 1200
	h := newHost(t)
	var state kernel.State
	for vni := range uint32(networks) {
		state.Rules = append(state.Rules, kernel.Rule{Chain: kernel.Prerouting, UDPPort: 4789, VNI: guarded + vni, Verdict: kernel.Drop})
	}
	h.set(t, "all", state)
	list := h.Run(t, "nft list table inet carrick")
	if drops, ways := strings.Count(list, "drop comment"), strings.Count(list, " : jump "); drops != networks || ways != networks {
		t.Errorf("%d networks have %d rules, and %d ways lead to them", networks, drops, ways)
	}
	state.Rules = state.Rules[:1]
	h.set(t, "all", state)
	list = h.Run(t, "nft list table inet carrick")
	if chains := strings.Count(list, "chain prerouting-4789-"); chains != 1 {
		t.Errorf("%d chains are left for one network:\n%s", chains, list)
	}
	h.set(t, "all", kernel.State{})
	if out := h.Run(t, "nft list ruleset"); out != "" {
		t.Errorf("left: %s", out)
	}
}
