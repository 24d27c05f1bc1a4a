package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// running is a host whose Run runs until the test ends.
func running(t *testing.T, n *node) *host {
	t.Helper()
	h := newHost(t, n)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

// wakeAll stands in for the cluster: every node hears of every change.
func wakeAll(nodes ...*node) func() {
	return func() {
		for _, n := range nodes {
			select {
			case n.wake <- struct{}{}:
			default:
			}
		}
	}
}

func both(t *testing.T, subnet string) (one, two *host, pool string) {
	t.Helper()
	w := newWorld()
	a, b := w.node("host1"), w.node("host2")
	one, two = running(t, a), newHost(t, b)
	var err error
	for _, h := range []*host{one, two} {
		if pool, _, err = h.create(dockerID, PoolRequest{Pool: subnet}, true); err != nil {
			t.Fatal(err)
		}
	}
	a.after, b.after = wakeAll(a, b), wakeAll(a, b)
	return one, two, pool
}

func TestCarveOut(t *testing.T) {
	one, two, pool := both(t, "10.1.0.0/24")
	mine := netip.MustParseAddr(addressOf(t, one, pool, "", 1))
	next := mine.Next()
	if got := addressOf(t, two, pool, next.String(), 2); got != next.String() {
		t.Fatalf("%s", got)
	}
	if got := addressOf(t, one, pool, "", 3); got == next.String() {
		t.Errorf("%s was given twice", got)
	}
	_, err := two.RequestAddress(t.Context(), pool, mine.String(), macOptions(mac(4)))
	want(t, err, "address "+mine.String()+": host host1 has it in its block", "it is in use")
	_, err = one.RequestAddress(t.Context(), pool, next.String(), macOptions(mac(5)))
	if err == nil || !strings.Contains(err.Error(), "host host2") {
		t.Errorf("error is %v", err) // two does not run: it does not answer, or one's view is refused
	}
	for f := range two.node.View().Prefix("want/") {
		t.Errorf("left over: %s %s", f.Key, f.Value)
	}
	// it stays with host2, which gives it to the next who asks
	if err := two.ReleaseAddress(t.Context(), pool, next.String()); err != nil {
		t.Fatal(err)
	}
	two.restart(false)
	if got := addressOf(t, two, pool, next.String(), 6); got != next.String() {
		t.Errorf("%s", got)
	}
}

func TestSilentOwnerIsNamed(t *testing.T) {
	_, two, pool := both(t, "10.1.0.0/24")
	w := two.node.w
	silent := newHost(t, w.node("host3"))
	if _, _, err := silent.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	addr := addressOf(t, silent, pool, "", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := two.RequestAddress(ctx, pool, netip.MustParseAddr(addr).Next().String(), macOptions(mac(2)))
	want(t, err, "of host host3, which did not answer within 8s")
	for f := range two.node.View().Prefix("want/") {
		t.Errorf("left over: %s %s", f.Key, f.Value)
	}
}

// TestOldWantIsTakenBack: that of a request whose process was killed.
func TestOldWantIsTakenBack(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	if _, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.1.0.77")
	h.asks(t, h.Status()[0].Shared, addr)
	if err := h.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := h.node.View().Want(h.Status()[0].Shared, addr); ok {
		t.Error("the want is still there")
	}
}

func TestWithoutQuorumOwnSpaceIsGiven(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	h.node.before = func(cluster.Txn) proposal { return lost }
	n := 0
	for ; ; n++ {
		if _, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(n))); err != nil {
			break
		}
	}
	if n < 13 {
		t.Errorf("only %d addresses out of the own block", n)
	}
	want(t, err, fmt.Sprintf("subnet 10.1.0.0/24: no address left: %d used and 0 free on this host, %d in blocks that no host has, "+
		"0 stranded in blocks of hosts that do not answer: ", n, 253-n), "no quorum")
	if !errors.Is(err, cluster.ErrNoQuorum) {
		t.Errorf("%v is not ErrNoQuorum", err)
	}
	_, _, err = h.create("other", PoolRequest{Options: map[string]string{"network": "blue"}}, true)
	want(t, err, "network blue", "no quorum")
	_, _, err = h.create("third", PoolRequest{Pool: "10.2.0.0/24"}, true)
	want(t, err, "no quorum")
	if len(h.Status()) != 1 {
		t.Errorf("left over: %+v", h.Status())
	}
	if _, _, err = h.create("fourth", PoolRequest{Pool: "10.3.0.0/24"}, false); err != nil {
		t.Errorf("a network of this host needs no quorum: %v", err)
	}
}

// TestBindIsUndone when there is no block for the host.
func TestBindIsUndone(t *testing.T) {
	w := newWorld()
	one, two := newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	pool, s, err := one.create(dockerID, PoolRequest{Pool: "10.1.0.0/29"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		addressOf(t, one, pool, "", n)
	}
	_, err = one.RequestAddress(t.Context(), pool, "", macOptions(mac(9)))
	want(t, err, "5 used and 0 free on this host", "all 5 blocks are taken: 5 by host1")
	_, _, err = two.create(dockerID, PoolRequest{Pool: "10.1.0.0/29"}, true)
	want(t, err, "subnet 10.1.0.0/29: all 5 blocks are taken: 5 by host1")
	if len(two.store.values) != 0 {
		t.Errorf("left over: %v", two.store.values)
	}
	if err := one.Bind(t.Context(), dockerID, one.Status()[0].Shared, []cluster.Subnet{s}); err != nil {
		t.Errorf("bound again: %v", err)
	}
	want(t, one.Bind(t.Context(), "other", "", []cluster.Subnet{s}), "is that of network "+dockerID[:12])
	want(t, newHost(t, nil).Bind(t.Context(), "other", "shared", nil), "SECRET is not set")
}

func TestClaimAhead(t *testing.T) {
	h := running(t, newWorld().node("host1"))
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 9 {
		addressOf(t, h, pool, "", n)
	}
	await(t, "a second block", func() bool { return len(h.Status()[0].Blocks) == 2 })
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(60 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within 60 s", what)
		}
	}
}

// TestSpareSingleAddresses: where blocks are single addresses a host keeps a few, and leaves most to the others.
func TestSpareSingleAddresses(t *testing.T) {
	for subnet, want := range map[string]int{"10.1.0.0/26": 4, "10.1.0.0/27": 3, "10.1.0.0/29": 1} {
		h := newHost(t, newWorld().node("host1"))
		if _, _, err := h.create(dockerID, PoolRequest{Pool: subnet}, true); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := h.keep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.Status()[0]; len(got.Blocks) != want || got.Free != uint64(want) {
			t.Errorf("%s: %d spare, %d free, want %d", subnet, len(got.Blocks), got.Free, want)
		}
	}
}

// TestOldViewIsNotBelieved: a host that gave its blocks back, and whose copy of the facts is older than that. The receipts
// of what it has now are good all the same.
func TestOldViewIsNotBelieved(t *testing.T) {
	w := newWorld()
	h := newHost(t, w.node("host1"))
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 { // two blocks
		addressOf(t, h, pool, "", n)
	}
	old := len(w.versions) - 1
	shared, blocks := h.Status()[0].Shared, h.Status()[0].Blocks
	if err := h.remove(dockerID, pool, shared); err != nil {
		t.Fatal(err)
	}
	if pool, _, err = h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	mine := h.Status()[0].Blocks
	if len(blocks) != 2 || len(mine) != 1 {
		t.Fatalf("blocks %v, then %v", blocks, mine)
	}
	gone := blocks[0].Prefix
	if gone == mine[0].Prefix {
		gone = blocks[1].Prefix
	}
	for _, version := range []int{0, old} {
		h.node.lags, h.node.at = true, version
		h.node.before = func(cluster.Txn) proposal { return lost }
		h.restart(false)
		if got := netip.MustParseAddr(addressOf(t, h, pool, "", 100+version)); !mine[0].Prefix.Contains(got) {
			t.Errorf("%s is not in %s", got, mine[0].Prefix)
		}
		_, err = h.RequestAddress(t.Context(), pool, gone.Addr().Next().String(), macOptions(mac(99)))
		want(t, err, "is older than its own part in the network", "no quorum")
		if a := h.Alarms(); len(a) != 1 || !strings.Contains(a[0], "waiting for the cluster") {
			t.Errorf("alarms %q", a)
		}
	}
	for n := range 20 {
		if _, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(200+n))); err != nil {
			break
		}
	}
	want(t, err, "is older than its own part in the network")
	h.node.lag(false)
	h.node.before = nil
	addressOf(t, h, pool, "", 300)
	if a := h.Alarms(); len(a) != 0 {
		t.Errorf("alarms %q", a)
	}
}

// TestDamagedStoreFreezesBlocks: what was handed out of them is not known.
func TestDamagedStoreFreezesBlocks(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	inUse := netip.MustParseAddr(addressOf(t, h, pool, "", 1))
	shared, block := h.Status()[0].Shared, h.Status()[0].Blocks[0].Prefix
	h.store.values = nil
	h.restart(true)
	h.restart(false) // the store tells of damage only once; the record stays

	// Docker's replay comes before anybody binds the pool: no endpoints then.
	if _, _, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: "10.1.0.0/24"}); err != nil {
		t.Fatal(err)
	}
	_, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(2)))
	want(t, err, "overlaps 10.1.0.0/24 of a network of the cluster", "remove it and create it again")

	if err := h.Bind(t.Context(), dockerID, shared, []cluster.Subnet{s}); err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		if got := netip.MustParseAddr(addressOf(t, h, pool, "", 10+n)); block.Contains(got) {
			t.Fatalf("%s is in the frozen block", got)
		}
	}
	_, err = h.RequestAddress(t.Context(), pool, inUse.Next().String(), macOptions(mac(3)))
	want(t, err, "which is frozen", "Remove the network from this host and create it again")
	if err := h.Use(t.Context(), dockerID, "endpoint", []netip.Addr{inUse}); err != nil {
		t.Errorf("what is in use is not taken over: %v", err)
	}
	if _, err := h.RequestAddress(t.Context(), pool, inUse.Next().String(), nil); err != nil {
		t.Errorf("replay: %v", err)
	}
	if a := h.Alarms(); len(a) != 1 || !strings.Contains(a[0], "frozen") || !strings.Contains(a[0], block.String()) {
		t.Errorf("alarms %q", a)
	}
	if err := h.remove(dockerID, pool, shared); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	if a := h.Alarms(); len(a) != 0 {
		t.Errorf("alarms after the network was made anew: %q", a)
	}
}

// TestSecretTakenAway: a network of the cluster on a host that is in none any more.
func TestSecretTakenAway(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	a := addressOf(t, h, pool, "", 1)
	h.node = nil
	h.restart(false)
	_, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(2)))
	want(t, err, "SECRET is not set")
	if err := errors.Join(h.ReleaseAddress(t.Context(), pool, a), h.Unbind(t.Context(), dockerID)); err != nil {
		t.Error(err)
	}
}

func TestNewerRecordsAreNotGuessedAt(t *testing.T) {
	m := &memory{limit: -1, values: map[string][]byte{"pool/x": []byte(`{"v":2}`)}}
	_, err := New(Config{Store: m})
	want(t, err, "format version 2, this program knows 1")
}
