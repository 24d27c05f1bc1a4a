package ipam

import (
	"net/netip"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// register makes hosts nodes of the cluster, by their ids.
func register(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		id := h.node.id
		if _, err := h.node.Propose(t.Context(), cluster.Txn{Then: []cluster.Op{{Key: "node/" + id, Value: []byte(`{"v":1,"name":"` + id + `"}`)}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// allBut are routes that leave one /20 of the pool to choose from.
func allBut(left netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for p := left; p.Bits() > testPools[0].Bits(); p = netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked() {
		b := p.Addr().As4()
		b[(p.Bits()-1)/8] ^= 0x80 >> ((p.Bits() - 1) % 8)
		all = append(all, netip.PrefixFrom(netip.AddrFrom4(b), p.Bits()))
	}
	return all
}

// TestChooseAvoidsWhatOtherHostsHave: the routes of the second host count on the first, until it is forgotten.
func TestChooseAvoidsWhatOtherHostsHave(t *testing.T) {
	w := newWorld()
	one, two := newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	left := netip.MustParsePrefix("10.213.64.0/20")
	two.inUse = allBut(left)
	chosen := func(r PoolRequest) (netip.Prefix, error) {
		r.Space = localSpace
		_, p, _, err := one.RequestPool(t.Context(), r)
		return p, err
	}
	if err := two.occupy(t.Context()); err != nil || len(w.head().InUse()) > 0 {
		t.Fatalf("%v, %v: told by a host that is no node", w.head().InUse(), err)
	}
	register(t, one, two)
	if err := two.occupy(t.Context()); err != nil {
		t.Fatal(err)
	}
	versions := len(w.versions)
	for range 5 { // the same again, and what comes too soon
		two.clock.pass(lookInUse)
		if err := two.occupy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.versions) != versions {
		t.Errorf("%d facts were written about what has not changed", len(w.versions)-versions)
	}
	if p, err := chosen(PoolRequest{}); err != nil || p != left {
		t.Fatalf("%s %v, want %s", p, err, left)
	}
	_, err := chosen(PoolRequest{})
	want(t, err, "no subnet is free in 10.192.0.0/10", "routes, addresses or name servers of other hosts", "on host2", "and 5 more", "--subnet")
	if _, err := chosen(PoolRequest{V6: true}); err != nil {
		t.Errorf("the other family: %v", err)
	}
	if _, err := chosen(PoolRequest{Pool: "10.192.0.0/24"}); err != nil {
		t.Errorf("a subnet that the user names: %v", err)
	}
	// What is gone is told later, when it has been gone for a while.
	two.inUse = nil
	two.clock.pass(5 * time.Minute)
	if err := two.occupy(t.Context()); err != nil || len(w.head().InUse()) != 1 {
		t.Errorf("%v, %v: want it to be kept for a while", w.head().InUse(), err)
	}
	two.clock.pass(10 * time.Minute)
	if err := two.occupy(t.Context()); err != nil || len(w.head().InUse()) != 0 {
		t.Errorf("%v, %v: want it to be forgotten", w.head().InUse(), err)
	}
	if _, err := chosen(PoolRequest{}); err != nil {
		t.Error(err)
	}
}

// TestTellingWithoutAQuorum is tried again a minute later, and keeps nothing waiting.
func TestTellingWithoutAQuorum(t *testing.T) {
	w := newWorld()
	h := newHost(t, w.node("host1"))
	register(t, h)
	h.inUse = allBut(netip.MustParsePrefix("10.213.64.0/20"))
	tries := 0
	h.node.before = func(cluster.Txn) proposal { tries++; return lost }
	for range 4 {
		_ = h.occupy(t.Context())
		h.clock.pass(20 * time.Second)
	}
	if tries != 1 {
		t.Errorf("proposed %d times within a minute, want once", tries)
	}
	h.node.before = nil
	h.clock.pass(time.Minute)
	if err := h.occupy(t.Context()); err != nil || len(w.head().InUse()) != 1 {
		t.Errorf("%v %v", w.head().InUse(), err)
	}
}
