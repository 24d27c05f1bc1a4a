package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// blockNode is a proposer over facts in memory. before runs ahead of each proposal, so that others can come in between.
type blockNode struct {
	view   *View
	id     string
	before func()
}

func (n blockNode) View() View { return *n.view }
func (n blockNode) ID() string { return n.id }
func (n blockNode) Propose(_ context.Context, txn Txn) (View, error) {
	if n.before != nil {
		n.before()
	}
	next, err := n.view.Apply(txn)
	if err == nil {
		*n.view = next
	}
	return *n.view, err
}

// attending makes nodes that have the network "net".
func attending(t interface{ Fatal(...any) }, names ...string) (*View, []blockNode) {
	view := &View{}
	var nodes []blockNode
	for _, name := range names {
		next, err := view.Apply(Txn{Then: []Op{{"attend/net/" + name, []byte("{}")}}})
		if err != nil {
			t.Fatal(err)
		}
		*view = next
		nodes = append(nodes, blockNode{view: view, id: name})
	}
	return view, nodes
}

func subnet(prefix string) Subnet {
	p := netip.MustParsePrefix(prefix)
	return Subnet{Prefix: p, Range: p}
}

func TestLayoutTilesTheRange(t *testing.T) {
	for _, family := range []struct {
		addr netip.Addr
		name string
	}{{netip.MustParseAddr("255.255.255.255"), "4"}, {netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "6"}} {
		for bits := range family.addr.BitLen() + 1 {
			r := netip.PrefixFrom(family.addr, bits).Masked()
			l := Subnet{Prefix: r, Range: r}.layout()
			if l.bits < bits || l.bits > family.addr.BitLen() || l.count == 0 {
				t.Fatalf("%s: %d blocks of /%d", r, l.count, l.bits)
			}
			seen := map[netip.Prefix]bool{}
			for _, k := range []uint64{0, 1, 2, 3, l.count / 3, l.count / 2, l.count - 2, l.count - 1} {
				if k >= l.count {
					continue
				}
				p := l.block(k)
				if p != p.Masked() || !r.Contains(p.Addr()) || p.Bits() != l.bits || l.blockOf(p.Addr()) != p {
					t.Fatalf("%s: block %d is %s", r, k, p)
				}
				seen[p] = true
			}
			if first := l.block(0).Addr(); first != r.Addr() {
				t.Errorf("%s: first block is at %s", r, first)
			}
			if last := l.block(l.count - 1); bits > 18 && !last.Contains(lastOf(r)) {
				t.Errorf("%s: last block is %s", r, last)
			}
			if len(seen) < int(min(l.count, 4)) {
				t.Errorf("%s: blocks repeat: %v", r, seen)
			}
		}
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func TestBlockBits(t *testing.T) {
	for _, test := range []struct {
		rng  string
		want int
	}{
		{"0.0.0.0/0", 26}, {"10.0.0.0/16", 26}, {"10.0.0.0/21", 26}, {"10.0.0.0/22", 28}, {"10.0.0.0/24", 28}, {"10.0.0.0/25", 28},
		{"10.0.0.0/26", 32}, {"10.0.0.0/32", 32}, {"::/0", 80}, {"fd00::/48", 80}, {"fd00::/64", 80}, {"fd00::/80", 96},
		{"fd00::/106", 122}, {"fd00::/107", 122}, {"fd00::/117", 122}, {"fd00::/118", 124}, {"fd00::/122", 128}, {"fd00::/128", 128},
	} {
		if got := blockBits(netip.MustParsePrefix(test.rng)); got != test.want {
			t.Errorf("%s: /%d, want /%d", test.rng, got, test.want)
		}
	}
}

func TestUsable(t *testing.T) {
	s4 := subnet("10.1.0.0/24")
	s4.Gateway = netip.MustParseAddr("10.1.0.1")
	s4.Aux = map[string]netip.Addr{"printer": netip.MustParseAddr("10.1.0.9")}
	for _, test := range []struct {
		s    Subnet
		addr string
		want bool
	}{
		{s4, "10.1.0.0", false}, {s4, "10.1.0.1", false}, {s4, "10.1.0.2", true}, {s4, "10.1.0.9", false}, {s4, "10.1.0.254", true},
		{s4, "10.1.0.255", false}, {s4, "10.1.1.2", false}, {s4, "fd00::1", false},
		{subnet("10.1.0.0/31"), "10.1.0.0", true}, {subnet("10.1.0.0/31"), "10.1.0.1", true}, {subnet("10.1.0.7/32"), "10.1.0.7", true},
		{subnet("fd00::/64"), "fd00::", false}, {subnet("fd00::/64"), "fd00::1", true}, {subnet("fd00::/64"), "fd00::ffff:ffff:ffff:ffff", true},
		{subnet("fd00::/127"), "fd00::", true}, {subnet("fd00::/128"), "fd00::", true}, {subnet("255.255.255.0/24"), "255.255.255.255", false},
	} {
		if got := test.s.Usable(netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("%s in %s: %v", test.addr, test.s.Prefix, got)
		}
	}
}

func TestClaimsAreNeverShared(t *testing.T) {
	view, nodes := attending(t, "host1", "host2", "host3")
	s := subnet("10.1.0.0/24")
	s.Range = netip.MustParsePrefix("10.1.0.128/25")
	for i := range 8 {
		b, err := ClaimBlock(t.Context(), nodes[i%3], "net", s)
		if err != nil {
			t.Fatal(err)
		}
		if b.Node != nodes[i%3].id || b.Index == 0 || b.Prefix.Bits() != 28 || !s.Range.Contains(b.Prefix.Addr()) {
			t.Errorf("block %d: %+v", i, b)
		}
	}
	if blocks := view.Blocks("net"); len(blocks) != 8 {
		t.Errorf("blocks are %v", blocks)
	}
	_, err := ClaimBlock(t.Context(), nodes[0], "net", s)
	if want := "subnet 10.1.0.0/24: all 8 blocks are taken: 3 by host1, 3 by host2, 2 by host3"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}

func TestClaimSkipsWhatNobodyMayHave(t *testing.T) {
	view, nodes := attending(t, "host1")
	s := subnet("10.1.0.0/29")
	s.Gateway = netip.MustParseAddr("10.1.0.1")
	for range 5 {
		if _, err := ClaimBlock(t.Context(), nodes[0], "net", s); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(prefixesOfBlocks(view.Blocks("net"))); got != "[10.1.0.2/32 10.1.0.3/32 10.1.0.4/32 10.1.0.5/32 10.1.0.6/32]" {
		t.Error(got)
	}
	if _, err := ClaimBlock(t.Context(), nodes[0], "net", s); err == nil || !strings.Contains(err.Error(), "all 5 blocks are taken: 5 by host1") {
		t.Errorf("error is %v", err)
	}
	only := subnet("10.2.0.0/32")
	only.Gateway = only.Prefix.Addr()
	if _, err := ClaimBlock(t.Context(), nodes[0], "net", only); err == nil || !strings.Contains(err.Error(), "there is no address for endpoints") {
		t.Errorf("error is %v", err)
	}
}

func prefixesOfBlocks(blocks []Block) []netip.Prefix {
	var all []netip.Prefix
	for _, b := range blocks {
		all = append(all, b.Prefix)
	}
	return all
}

func TestClaimBlockOf(t *testing.T) {
	_, nodes := attending(t, "host1", "host2")
	s := subnet("10.1.0.0/24")
	s.Range = netip.MustParsePrefix("10.1.0.0/25")
	for _, test := range []struct {
		node  int
		addr  string
		block string
		owner string
	}{
		{0, "10.1.0.20", "10.1.0.16/28", "host1"},
		{1, "10.1.0.21", "10.1.0.16/28", "host1"},
		{1, "10.1.0.200", "10.1.0.200/32", "host2"}, // outside --ip-range
		{0, "10.1.0.200", "10.1.0.200/32", "host2"},
		{0, "10.1.0.201", "10.1.0.201/32", "host1"},
	} {
		b, err := ClaimBlockOf(t.Context(), nodes[test.node], "net", s, netip.MustParseAddr(test.addr))
		if err != nil || b.Prefix.String() != test.block || b.Node != test.owner {
			t.Errorf("%s: %+v, %v", test.addr, b, err)
		}
	}
	if _, err := ClaimBlockOf(t.Context(), nodes[0], "net", s, netip.MustParseAddr("10.1.0.255")); err == nil {
		t.Error("the broadcast address was claimed")
	}
}

func TestLongerBlockWins(t *testing.T) {
	view, nodes := attending(t, "host1")
	s := subnet("10.1.0.0/24")
	addr := netip.MustParseAddr("10.1.0.20")
	if _, err := ClaimBlockOf(t.Context(), nodes[0], "net", s, addr); err != nil {
		t.Fatal(err)
	}
	op, err := BlockOp("net", netip.PrefixFrom(addr, 32), "host2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[0].Propose(t.Context(), Txn{Then: []Op{op}}); err != nil {
		t.Fatal(err)
	}
	if b, _ := view.Owner("net", addr); b.Node != "host2" {
		t.Errorf("owner is %+v", b)
	}
	if b, _ := view.Owner("net", addr.Next()); b.Node != "host1" {
		t.Errorf("owner of the next is %+v", b)
	}
	if _, ok := view.Owner("net", netip.MustParseAddr("10.1.0.40")); ok {
		t.Error("an address that nobody claimed has an owner")
	}
}

func TestClaimRereadsAfterAConflict(t *testing.T) {
	view, nodes := attending(t, "host1", "host2")
	s := subnet("10.1.0.0/24")
	races := 0
	racer := nodes[0]
	racer.before = func() { // host2 takes what host1 is about to take
		if races++; races > 3 {
			return
		}
		p, err := freeBlock(*view, "net", s, s.layout(), "host1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ClaimBlockOf(t.Context(), nodes[1], "net", s, p.Addr().Next()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := ClaimBlock(t.Context(), racer, "net", s)
	if err != nil {
		t.Fatal(err)
	}
	if owner, _ := view.Owner("net", b.Prefix.Addr()); owner.Node != "host1" || races != 4 {
		t.Errorf("after %d tries %s belongs to %+v", races, b.Prefix, owner)
	}
}

func TestClaimNeedsTheNetwork(t *testing.T) {
	view, nodes := attending(t, "host1")
	s := subnet("10.1.0.0/24")
	stranger := blockNode{view: view, id: "host9"}
	if _, err := ClaimBlock(t.Context(), stranger, "net", s); err == nil || !strings.Contains(err.Error(), "is not on this host") {
		t.Errorf("error is %v", err)
	}
	leaver := nodes[0]
	leaver.before = func() { // network rm comes in between
		next, err := view.Apply(Txn{Then: []Op{{Key: "attend/net/host1"}}})
		if err != nil {
			t.Fatal(err)
		}
		*view = next
	}
	if _, err := ClaimBlock(t.Context(), leaver, "net", s); err == nil || !strings.Contains(err.Error(), "is not on this host") {
		t.Errorf("error is %v", err)
	}
	if blocks := view.Blocks("net"); len(blocks) != 0 {
		t.Errorf("blocks of a network that is gone: %v", blocks)
	}
}

type withoutQuorum struct{ blockNode }

func (n withoutQuorum) Propose(context.Context, Txn) (View, error) { return *n.view, ErrNoQuorum }

func TestClaimWithoutQuorum(t *testing.T) {
	_, nodes := attending(t, "host1")
	_, err := ClaimBlock(t.Context(), withoutQuorum{nodes[0]}, "net", subnet("10.1.0.0/24"))
	if !errors.Is(err, ErrNoQuorum) || !strings.Contains(err.Error(), "claim a block of subnet 10.1.0.0/24") {
		t.Errorf("error is %v", err)
	}
}

func TestForeignBlockFacts(t *testing.T) {
	view, nodes := attending(t, "host1")
	txn := Txn{Then: []Op{
		{"block/net/10.1.0.0/28", []byte(`{"v":2,"node":"host2"}`)}, {"block/net/10.1.0.16/28", []byte("x")}, {"block/net/nonsense", []byte("{}")},
	}}
	if _, err := nodes[0].Propose(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.1.0.3", "10.1.0.17"} {
		if b, ok := view.Owner("net", netip.MustParseAddr(addr)); !ok || b.Node != "" {
			t.Errorf("%s belongs to %+v, %v", addr, b, ok)
		}
	}
	for f := range view.Prefix("block/") {
		if _, err := decodeBlock(f); err == nil {
			t.Errorf("%s = %s is understood", f.Key, f.Value)
		}
	}
}

// TestBlocksNeverOverlap claims at random, from several nodes, in subnets of every size.
func TestBlocksNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		view, nodes := attending(t, "a", "b", "c")
		v6 := rapid.Bool().Draw(t, "v6")
		addr, bits := netip.MustParseAddr("10.77.205.91"), rapid.IntRange(0, 32).Draw(t, "bits")
		if v6 {
			addr, bits = netip.MustParseAddr("fd12:3456:789a:bcde:f012:3456:789a:bcde"), rapid.IntRange(0, 128).Draw(t, "bits")
		}
		s := Subnet{Prefix: netip.PrefixFrom(addr, bits).Masked()}
		s.Range = netip.PrefixFrom(addr, rapid.IntRange(bits, addr.BitLen()).Draw(t, "range")).Masked()
		for range rapid.IntRange(1, 20).Draw(t, "claims") {
			node := nodes[rapid.IntRange(0, 2).Draw(t, "node")]
			if rapid.Bool().Draw(t, "next") {
				if b, err := ClaimBlock(context.Background(), node, "net", s); err == nil && !s.Range.Contains(b.Prefix.Addr()) {
					t.Fatalf("%s is outside %s", b.Prefix, s.Range)
				}
				continue
			}
			near := netip.PrefixFrom(addr, rapid.IntRange(bits, addr.BitLen()).Draw(t, "near")).Masked().Addr()
			if _, err := ClaimBlockOf(context.Background(), node, "net", s, near); err != nil && s.Usable(near) {
				t.Fatal(err)
			}
		}
		blocks := view.Blocks("net")
		for i, a := range blocks {
			for _, b := range blocks[i+1:] {
				if a.Prefix.Overlaps(b.Prefix) {
					t.Fatalf("%v overlaps %v", a, b)
				}
			}
		}
	})
}
