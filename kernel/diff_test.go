package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const (
	testBridge = "ckb000000000001"
	testVXLAN  = "ckx000000000001"
	testVeth   = "ckh000000000001"
	testPeer   = "ckc000000000001"
)

// base is a state that the tests change. Every call makes a new one.
func base() State {
	m := func(last byte) MAC { return MAC{2, 0, 0, 0, 0, last} }
	vtep := netip.MustParseAddr("198.51.100.2")
	return State{
		Links: []Link{
			{Name: testBridge, NS: Shared, MTU: 1450, MAC: m(1), Up: true, Bridge: &Bridge{MulticastSnooping: true}},
			{Name: testVXLAN, NS: Shared, MTU: 1450, Master: testBridge, Up: true, NoLearning: true, NeighSuppress: true,
				VXLAN: &VXLAN{VNI: 7, Local: netip.MustParseAddr("198.51.100.1"), Port: 4789}},
			{Name: testVeth, NS: Shared, MTU: 1450, Master: testBridge, Up: true, Isolated: true,
				Veth: &Veth{Peer: testPeer, PeerMAC: m(9), PeerMTU: 1450}},
		},
		Addrs:  []Addr{{NS: Shared, Dev: testBridge, Prefix: netip.MustParsePrefix("10.9.0.1/24")}},
		Routes: []Route{{NS: Shared, Dev: testBridge, Dst: netip.MustParsePrefix("10.8.0.0/24"), Via: netip.MustParseAddr("10.9.0.9")}},
		FDB: []FDB{
			{NS: Shared, Dev: testVXLAN, MAC: m(2), Dst: vtep, Bridge: true},
			{NS: Shared, Dev: testVXLAN, Dst: vtep},
		},
		Neighs:  []Neigh{{NS: Shared, Dev: testBridge, IP: netip.MustParseAddr("10.9.0.2"), MAC: m(2)}},
		Sysctls: []Sysctl{{NS: Shared, Key: "net/ipv6/conf/" + testBridge + "/accept_ra", Value: "0"}},
		Rules: []Rule{
			{Chain: Prerouting, UDPPort: 4789, VNI: 7, NotFrom: []netip.Addr{vtep, netip.MustParseAddr("2001:db8::2")}, Verdict: Drop},
			{Chain: Forward, UDPPort: 4789, To: []netip.Addr{vtep}, Verdict: Drop},
		},
	}
}

// held is what the kernel would have after Set(s).
func held(s State) snapshot {
	h := snapshot{State: s, unmarked: make(map[ref]bool)}
	for i, r := range s.Rules {
		for _, n := range expand(r) {
			h.rules = append(h.rules, heldRule{ns: n.ns, chain: n.place(), handle: uint64(i + 1), sum: n.sum()})
		}
	}
	h.Rules = nil
	return h
}

func lines(ops []op) string {
	var b strings.Builder
	for _, o := range ops {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

const baseCommands = `nft add rule inet carrick prerouting-4789-0x7 ip saddr != { 198.51.100.2 } drop
nft add rule inet carrick prerouting-4789-0x7 ip6 saddr != { 2001:db8::2 } drop
nft add rule inet carrick forward-4789 ip daddr { 198.51.100.2 } drop
ip -n shared link add ckb000000000001 address 02:00:00:00:00:01 mtu 1450 type bridge mcast_snooping 1
ip link add ckx000000000001 netns shared mtu 1450 type vxlan id 7 local 198.51.100.1 dstport 4789 nolearning
ip -n shared link add ckh000000000001 mtu 1450 type veth peer name ckc000000000001 address 02:00:00:00:00:09 mtu 1450 netns host
ip netns exec shared sysctl -w net/ipv6/conf/ckb000000000001/accept_ra=0
ip -n shared link set ckb000000000001 up
ip -n shared link set ckx000000000001 master ckb000000000001
bridge -n shared link set dev ckx000000000001 learning off neigh_suppress on
ip -n shared link set ckx000000000001 up
ip -n shared link set ckh000000000001 master ckb000000000001
bridge -n shared link set dev ckh000000000001 isolated on
ip -n shared link set ckh000000000001 up
ip -n shared addr replace 10.9.0.1/24 dev ckb000000000001
ip -n shared route replace 10.8.0.0/24 via 10.9.0.9 dev ckb000000000001
bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 dst 198.51.100.2 self master static
bridge -n shared fdb append 00:00:00:00:00:00 dev ckx000000000001 dst 198.51.100.2 self permanent
ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev ckb000000000001 nud permanent
`

func TestStateString(t *testing.T) {
	if got := base().String(); got != baseCommands {
		t.Errorf("got:\n%s\nwant:\n%s", got, baseCommands)
	}
	if got := (State{}).String(); got != "" {
		t.Errorf("the zero State prints %q", got)
	}
	if !(State{}).Empty() || base().Empty() || (State{Rules: base().Rules}).Empty() || (State{Sysctls: base().Sysctls}).Empty() {
		t.Error("Empty is wrong")
	}
}

// A diffTest is a change from base, on either side, and what is to be done about it.
type diffTest struct {
	name string
	have func(*snapshot) // changes what is there
	want func(*State)
	ops  string
}

var diffTests = []diffTest{
	{name: "nothing to do"},
	{name: "everything goes with the links", want: func(s *State) { *s = State{} }, ops: `
			ip -n shared link del ckb000000000001
			ip -n shared link del ckx000000000001
			ip -n shared link del ckh000000000001
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick forward-4789 handle 2`},
	{name: "a moved MAC is one replace", want: func(s *State) { s.FDB[0].Dst = netip.MustParseAddr("198.51.100.3") }, ops: `
			bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 dst 198.51.100.3 self static`},
	{name: "a flood list loses one and gets one", want: func(s *State) { s.FDB[1].Dst = netip.MustParseAddr("198.51.100.3") }, ops: `
			bridge -n shared fdb del 00:00:00:00:00:00 dev ckx000000000001 dst 198.51.100.2 self
			bridge -n shared fdb append 00:00:00:00:00:00 dev ckx000000000001 dst 198.51.100.3 self permanent`},
	{name: "half an entry is completed", have: func(h *snapshot) { h.FDB[0].Dst = netip.Addr{} }, ops: `
			bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 dst 198.51.100.2 self static`},
	{name: "the other half too", have: func(h *snapshot) { h.FDB[0].Bridge = false }, ops: `
			bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 master static`},
	{name: "half an entry is removed", have: func(h *snapshot) { h.FDB[0].Dst = netip.Addr{} },
		want: func(s *State) { s.FDB = s.FDB[1:] }, ops: `
			bridge -n shared fdb del 02:00:00:00:00:02 dev ckx000000000001 master`},
	{name: "another VNI is another device", want: func(s *State) { s.Links[1].VXLAN.VNI, s.FDB = 8, s.FDB[:1] }, ops: `
			ip -n shared link del ckx000000000001
			ip link add ckx000000000001 netns shared mtu 1450 type vxlan id 8 local 198.51.100.1 dstport 4789 nolearning
			ip -n shared link set ckx000000000001 master ckb000000000001
			bridge -n shared link set dev ckx000000000001 learning off neigh_suppress on
			ip -n shared link set ckx000000000001 up
			bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 dst 198.51.100.2 self master static`},
	{name: "a new bridge gets its ports back", have: func(h *snapshot) { h.Links[0] = Link{Name: testBridge, NS: Shared, Veth: &Veth{}} },
		want: func(s *State) {
			s.Addrs, s.Routes, s.Sysctls, s.FDB = nil, nil, nil, s.FDB[:1]
		}, ops: `
			ip -n shared link del ckb000000000001
			ip -n shared link add ckb000000000001 address 02:00:00:00:00:01 mtu 1450 type bridge mcast_snooping 1
			ip -n shared link set ckb000000000001 up
			ip -n shared link set ckx000000000001 master ckb000000000001
			bridge -n shared link set dev ckx000000000001 learning off neigh_suppress on
			ip -n shared link set ckh000000000001 master ckb000000000001
			bridge -n shared link set dev ckh000000000001 isolated on
			bridge -n shared fdb del 00:00:00:00:00:00 dev ckx000000000001 dst 198.51.100.2 self
			bridge -n shared fdb replace 02:00:00:00:00:02 dev ckx000000000001 master static
			ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev ckb000000000001 nud permanent`},
	{name: "a container end that was handed over stays as it is", have: func(h *snapshot) { h.Links[2].Veth = &Veth{} }},
	{name: "its address and MTU are not corrected", want: func(s *State) { s.Links[2].Veth.PeerMTU, s.Links[2].Veth.PeerMAC = 1, MAC{} }},
	{name: "one that has the wrong name is made anew", have: func(h *snapshot) { h.Links[2].Veth = &Veth{Peer: "ckc000000000002"} }, ops: `
			ip -n shared link del ckh000000000001
			ip -n shared link add ckh000000000001 mtu 1450 type veth peer name ckc000000000001 address 02:00:00:00:00:09 mtu 1450 netns host
			ip -n shared link set ckh000000000001 master ckb000000000001
			bridge -n shared link set dev ckh000000000001 isolated on
			ip -n shared link set ckh000000000001 up`},
	{name: "in the other namespace it is another device", have: func(h *snapshot) { h.Links[1].NS = Host },
		want: func(s *State) { s.FDB = nil }, ops: `
			ip link del ckx000000000001
			ip link add ckx000000000001 netns shared mtu 1450 type vxlan id 7 local 198.51.100.1 dstport 4789 nolearning
			ip -n shared link set ckx000000000001 master ckb000000000001
			bridge -n shared link set dev ckx000000000001 learning off neigh_suppress on
			ip -n shared link set ckx000000000001 up`},
	{name: "what a crash left is adopted", have: func(h *snapshot) { h.unmarked[ref{Shared, testBridge}] = true }, ops: `
			ip -n shared link set ckb000000000001 addrgenmode none alias carrick`},
	{name: "what the kernel chose is not changed", have: func(h *snapshot) { h.Links[0].MAC = MAC{2, 7} },
		want: func(s *State) { s.Links[0].MAC, s.Links[0].MTU = MAC{}, 0 }},
	{name: "an address takes routes along", want: func(s *State) { s.Addrs[0].Prefix = netip.MustParsePrefix("10.9.0.2/24") }, ops: `
			ip -n shared addr del 10.9.0.1/24 dev ckb000000000001
			ip -n shared addr replace 10.9.0.2/24 dev ckb000000000001
			ip -n shared route replace 10.8.0.0/24 via 10.9.0.9 dev ckb000000000001`},
	{name: "rules in another order of addresses are the same", want: func(s *State) {
		a := s.Rules[0].NotFrom
		a[0], a[1] = a[1], a[0]
		s.Rules[0].NotFrom = append(a, a[0])
		s.Rules[0], s.Rules[1] = s.Rules[1], s.Rules[0] // of another chain
	}},
	{name: "while links go both rules hold", want: func(s *State) {
		s.Links, s.FDB = append(s.Links[:1:1], s.Links[2]), nil
		s.Rules = s.Rules[1:]
	}, ops: `
			nft add rule inet carrick forward-4789 ip daddr { 198.51.100.2 } drop
			ip -n shared link del ckx000000000001
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick forward-4789 handle 2`},
}

func TestDiff(t *testing.T) {
	for _, c := range slices.Concat(diffTests, announceTests) {
		t.Run(c.name, func(t *testing.T) {
			have, want := held(base()), base()
			if c.have != nil {
				c.have(&have)
			}
			if c.want != nil {
				c.want(&want)
			}
			got := lines(diff(have, want))
			expect := strings.ReplaceAll(strings.TrimPrefix(c.ops, "\n"), "\t", "")
			if expect != "" {
				expect += "\n"
			}
			if got != expect {
				t.Errorf("got:\n%s\nwant:\n%s", got, expect)
			}
		})
	}
}

func TestExpandRules(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		rule Rule
		want string
	}{
		{Rule{Chain: Forward, Verdict: Drop}, "forward drop"},
		{Rule{Chain: Forward, NotFrom: []netip.Addr{v4}, Verdict: Drop}, "forward ip saddr != { 192.0.2.1 } drop; forward meta nfproto ipv6 drop"},
		{Rule{Chain: Forward, NotFrom: []netip.Addr{v6}, Verdict: Drop},
			"forward meta nfproto ipv4 drop; forward ip6 saddr != { 2001:db8::1 } drop"},
		{Rule{Chain: Output, VNI: 3, UDPPort: 9, Verdict: NoTrack}, "output-9-0x3 notrack accept"},
		{Rule{Chain: Forward, To: []netip.Addr{v6}, Verdict: Accept}, "forward ip6 daddr { 2001:db8::1 } accept"},
		{Rule{Chain: Forward, NotFrom: []netip.Addr{v4}, To: []netip.Addr{v4, v6}, Verdict: Accept},
			"forward ip saddr != { 192.0.2.1 } ip daddr { 192.0.2.1 } accept; forward ip6 daddr { 2001:db8::1 } accept"},
		{Rule{Chain: Forward, To: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")}, UDPPort: 9, Verdict: Accept},
			"forward-9 ip daddr { 192.0.2.1 } accept"},
		{Rule{Chain: Prerouting, UDPPort: 9, VNIFrom: 1 << 20, Astray: true, Verdict: Drop},
			"prerouting-9 @th,96,32 >= 0x10000000 fib saddr . iif oif missing drop"},
	} {
		var got []string
		for _, r := range expand(c.rule) {
			got = append(got, string(r.place())+" "+r.String())
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("%+v:\ngot  %s\nwant %s", c.rule, text, c.want)
		}
	}
}

// Signposts lead from the base chains to those of ports, and from there to those of networks.
func TestSignposts(t *testing.T) {
	for _, c := range []struct{ places, want string }{
		{"", ""},
		{"forward output", ""},
		{"forward-9", "forward -> forward-9"},
		{"output-4789-0x3 output-4789-0x100000 output-7", "output -> output-4789; output-4789 -> output-4789-0x100000 output-4789-0x3; output -> output-7"},
		{"prerouting-4789 prerouting-4789-0x3", "prerouting -> prerouting-4789; prerouting-4789 -> prerouting-4789-0x3"},
	} {
		at := map[Chain]bool{}
		for place := range strings.FieldsSeq(c.places) {
			at[Chain(place)] = true
		}
		var got []string
		for _, g := range signposts(at) {
			got = append(got, fmt.Sprintf("%s -> %s", g.at, strings.Trim(fmt.Sprint(g.to), "[]")))
		}
		if text := strings.Join(got, "; "); text != c.want {
			t.Errorf("rules in %q need %q, want %q", c.places, text, c.want)
		}
	}
}

func TestName(t *testing.T) {
	for _, c := range []struct{ kind, id, want string }{
		{KindBridge, "4f1c0ea0d2b3a8f9aaaa", "ckb4f1c0ea0d2b3"},
		{KindVXLAN, "4f1c0ea0d2b3", "ckx4f1c0ea0d2b3"},
		{KindHostEnd, "u2j1xq3z9y8w7v6t5s4r3q2p1", "ckhad876a1c435a"},
		{KindContainerEnd, "", "ckce3b0c44298fc"},
	} {
		got := Name(c.kind, c.id)
		if got != c.want || !isOurs(got) || len(got) != 15 {
			t.Errorf("Name(%s, %s) = %s, want %s", c.kind, c.id, got, c.want)
		}
	}
	for _, foreign := range []string{"ckb", "ckblue", "ckb0123456789abc", "ckd0123456789ab", "ckb0123456789AB", "eth0", ""} {
		if isOurs(foreign) {
			t.Errorf("%s is taken for ours", foreign)
		}
	}
}
