package ipam

import (
	"context"
	"net/netip"
	"testing"

	"github.com/carricknet/carrick/cluster"
)

// asked is two hosts, of which the second has asked for an address in the first's block, and the first has not answered.
func asked(t *testing.T) (one, two *host, pool string, addr netip.Addr) {
	t.Helper()
	w := newWorld()
	one, two = newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	var err error
	for _, h := range []*host{one, two} {
		if pool, _, err = h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
			t.Fatal(err)
		}
	}
	addr = netip.MustParseAddr(addressOf(t, one, pool, "", 1)).Next()
	two.asks(t, one.Status()[0].Shared, addr)
	return one, two, pool, addr
}

// refuses says that a host gives an address neither to who asks for it nor to who takes any.
func refuses(t *testing.T, h *host, pool string, addr netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := h.RequestAddress(ctx, pool, addr.String(), macOptions(mac(99))); err == nil {
		t.Errorf("%s was given", got)
	}
	for n := range 20 {
		got, err := h.RequestAddress(ctx, pool, "", macOptions(mac(100+n)))
		if err == nil && got.Addr() == addr {
			t.Errorf("%s was given to who took any", got)
		}
	}
}

func (w *world) writeLate() (applied int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, txn := range w.late {
		if w.apply(txn) == nil {
			applied++
		}
	}
	w.late = nil
	return applied
}

// TestGrantWhoseAnswerWasLost: until it is certain that it cannot be written any more the address is nobody's here, also
// after a restart.
func TestGrantWhoseAnswerWasLost(t *testing.T) {
	one, two, pool, addr := asked(t)
	one.node.before = func(cluster.Txn) proposal { return lostLate }
	if err := one.keep(t.Context()); err == nil {
		t.Fatal("no error without a quorum")
	}
	one.restart(false)
	one.node.before = func(cluster.Txn) proposal { return lost }
	if err := one.keep(t.Context()); err == nil {
		t.Fatal("no error without a quorum")
	}
	refuses(t, one, pool, addr)
	if one.node.w.writeLate() == 0 {
		t.Fatal("the late grant was not written")
	}
	refuses(t, one, pool, addr)
	if got := addressOf(t, two, pool, addr.String(), 2); got != addr.String() {
		t.Errorf("%s", got)
	}
}

// TestGrantAfterTheQuestionWasWithdrawn cannot happen, so the address goes back.
func TestGrantAfterTheQuestionWasWithdrawn(t *testing.T) {
	one, two, pool, addr := asked(t)
	one.node.before = func(cluster.Txn) proposal { return lostLate }
	if err := one.keep(t.Context()); err == nil {
		t.Fatal("no error without a quorum")
	}
	two.withdraws(t, one.Status()[0].Shared, addr)
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, one, pool, addr.String(), 2); got != addr.String() {
		t.Errorf("%s", got)
	}
	if n := one.node.w.writeLate(); n != 0 {
		t.Errorf("%d late proposals were written", n)
	}
	if owner, _ := one.node.View().Owner(one.Status()[0].Shared, addr); owner.Node != "host1" {
		t.Errorf("owner is %+v", owner)
	}
}

// TestGrantThatAnOldViewDoesNotShow: after a restart the facts may be as they were before the question.
func TestGrantThatAnOldViewDoesNotShow(t *testing.T) {
	one, two, pool, addr := asked(t)
	old := len(one.node.w.versions) - 2 // before the want
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, two, pool, addr.String(), 2); got != addr.String() {
		t.Fatalf("%s", got)
	}
	one.restart(false)
	one.node.lags, one.node.at = true, old
	one.node.before = func(cluster.Txn) proposal { return lost }
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	refuses(t, one, pool, addr)
}

// TestCarvedOutComesBack when the host that had it leaves the network.
func TestCarvedOutComesBack(t *testing.T) {
	one, two, pool, addr := asked(t)
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := two.remove(dockerID, pool, one.Status()[0].Shared); err != nil {
		t.Fatal(err)
	}
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, one, pool, addr.String(), 2); got != addr.String() {
		t.Errorf("%s", got)
	}
	for key := range one.store.Prefix(belowCarve) {
		t.Errorf("left over: %s", key)
	}
}

// TestCarvedOutOfABlockThatChangedHands: the receipt of a block says what was another host's in it.
func TestCarvedOutOfABlockThatChangedHands(t *testing.T) {
	one, two, pool, addr := asked(t)
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, two, pool, addr.String(), 2); got != addr.String() {
		t.Fatalf("%s", got)
	}
	if err := one.remove(dockerID, pool, one.Status()[0].Shared); err != nil {
		t.Fatal(err)
	}
	three := newHost(t, one.node.w.node("host3"))
	if _, _, err := three.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	beside := addr.Next().String()
	if got := addressOf(t, three, pool, beside, 3); got != beside {
		t.Fatalf("%s", got)
	}
	three.restart(false)
	three.node.lags, three.node.at = true, 0
	three.node.before = func(cluster.Txn) proposal { return lost }
	refuses(t, three, pool, addr)
}
