package ipam

import (
	"context"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// older is a host that has gone on since a copy of its store was made, and then has the copy again. early was given before, late since.
func older(t *testing.T) (h *host, pool, shared string, s cluster.Subnet, block netip.Prefix, early, late netip.Addr) {
	t.Helper()
	h = newHost(t, newWorld().node("host1"))
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	early = netip.MustParseAddr(addressOf(t, h, pool, "", 1))
	shared, block = h.Status()[0].Shared, h.Status()[0].Blocks[0].Prefix
	copied := maps.Clone(h.store.values)
	if err := h.ReleaseAddress(t.Context(), pool, early.String()); err != nil {
		t.Fatal(err)
	}
	addressOf(t, h, pool, early.String(), 2) // another container has it now
	late = netip.MustParseAddr(addressOf(t, h, pool, "", 3))
	h.store.values = copied
	return h, pool, shared, s, block, early, late
}

// TestOlderStoreUnnoticed is what happens where nobody notices: what was given since is given again.
func TestOlderStoreUnnoticed(t *testing.T) {
	h, pool, _, _, _, early, late := older(t)
	h.restart(false)
	if got := addressOf(t, h, pool, "", 1); got != early.String() {
		t.Errorf("%s; the one that another container has by now is %s", got, early)
	}
	if got := addressOf(t, h, pool, "", 4); got != late.String() {
		t.Errorf("%s; the one that was given since is %s", got, late)
	}
}

// TestOlderStoreFreezesBlocks: nothing is given out of the blocks that there were, also while the pool is not bound again, and not to
// a request that was answered before. What is in use is taken over.
func TestOlderStoreFreezesBlocks(t *testing.T) {
	h, pool, shared, s, block, early, late := older(t)
	h.regressed = "once"
	h.restart(false)
	for n, name := range []string{"", late.String()} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := h.RequestAddress(ctx, pool, name, macOptions(mac(1+n)))
		cancel()
		want(t, err, "it is not known yet what of it is this host's", "waiting for the cluster")
	}
	waits := make(chan error, 1)
	go func() {
		_, err := h.RequestAddress(t.Context(), pool, "", macOptions(mac(100)))
		waits <- err
	}()
	if err := h.Bind(t.Context(), dockerID, shared, []cluster.Subnet{s}); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err != nil {
		t.Errorf("who asks a moment too early: %v", err)
	}
	if err := h.Use(t.Context(), dockerID, "endpoint", []netip.Addr{late}); err != nil {
		t.Errorf("what is in use is not taken over: %v", err)
	}
	given := map[string]bool{}
	for n := range 12 {
		got := addressOf(t, h, pool, "", 1+n)
		if given[got] || block.Contains(netip.MustParseAddr(got)) {
			t.Fatalf("%s is in the frozen block, or was given before", got)
		}
		given[got] = true
	}
	_, err := h.RequestAddress(t.Context(), pool, early.String(), macOptions(mac(20)))
	want(t, err, "which is frozen", "damaged or older store")
	if a := h.Alarms(); len(a) != 1 || !strings.Contains(a[0], "frozen") || !strings.Contains(a[0], block.String()) {
		t.Errorf("alarms %q", a)
	}

	// The same is told at every start until the cluster has taken the host back, and is done once.
	h.restart(false)
	if got := addressOf(t, h, pool, "", 12); !given[got] {
		t.Errorf("the same request has another answer, %s", got)
	}
	if got := addressOf(t, h, pool, "", 30); given[got] || block.Contains(netip.MustParseAddr(got)) {
		t.Errorf("%s was given before", got)
	}
	h.regressed = "once more"
	h.restart(false)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := h.RequestAddress(ctx, pool, "", macOptions(mac(31))); err == nil {
		t.Error("an address is given before the pool is bound again, once more")
	}
}

// TestOlderStoreOfThisHost: in networks of this host nothing is frozen.
func TestOlderStoreOfThisHost(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	was := addressOf(t, h, pool, "", 1)
	h.regressed = "once"
	h.restart(false)
	if got := addressOf(t, h, pool, "", 1); got != was {
		t.Errorf("the same request has another answer, %s, and had %s", got, was)
	}
	addressOf(t, h, pool, "", 2)
}
