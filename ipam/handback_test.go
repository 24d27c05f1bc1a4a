package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// passes lets time go by on a host, with all that is due in it.
func (h *host) passes(t *testing.T, d time.Duration) {
	t.Helper()
	for ; d > 0; d -= ledger.SweepEvery {
		h.clock.pass(ledger.SweepEvery)
		if err := errors.Join(h.sweep(t.Context()), h.keep(t.Context())); err != nil && !errors.Is(err, cluster.ErrNoQuorum) {
			t.Fatal(err)
		}
	}
}

// had is a host with that many containers in a network, of which all but two are gone.
func had(t *testing.T, n *node, subnet string, count int) (h *host, pool string) {
	t.Helper()
	h = newHost(t, n)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: subnet}, true)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for n := range count {
		all = append(all, addressOf(t, h, pool, "", n))
		if err := h.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for n, addr := range all {
		if n >= 2 {
			err = h.ReleaseAddress(t.Context(), pool, addr)
		} else {
			err = h.Use(t.Context(), dockerID, fmt.Sprint("endpoint", n), []netip.Addr{netip.MustParseAddr(addr)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return h, pool
}

func (h *host) blocks() (all []string) {
	for _, b := range h.Status()[0].Blocks {
		if b.Mine {
			all = append(all, b.Prefix.String())
		}
	}
	return all
}

// TestEmptyBlocksAreGivenBack, after a while, and others may have them then.
func TestEmptyBlocksAreGivenBack(t *testing.T) {
	for subnet, want := range map[string]struct{ before, after int }{
		"10.1.0.0/24": {3, 1},   // 20 of 32 addresses, and a spare block
		"10.1.0.0/26": {21, 10}, // two in use, and twice the reserve
		"fd00::/122":  {21, 10},
	} {
		h, pool := had(t, newWorld().node("host1"), subnet, 20)
		before := h.blocks()
		h.passes(t, 4*time.Minute)
		if got := h.blocks(); len(got) != want.before || len(before) != want.before {
			t.Errorf("%s: blocks %v and then %v, want %d", subnet, before, got, want.before)
		}
		h.passes(t, 3*time.Minute)
		got := h.blocks()
		if len(got) != want.after || len(h.node.View().Blocks(h.Status()[0].Shared)) != want.after {
			t.Errorf("%s: blocks %v, want %d", subnet, got, want.after)
		}
		for n := range 20 {
			addressOf(t, h, pool, "", 100+n)
		}
		if err := h.remove(dockerID, pool, h.Status()[0].Shared); err != nil || len(h.store.values) != 0 {
			t.Errorf("%s: left over: %v, %v", subnet, h.store.values, err)
		}
	}
}

// TestVastBlockIsGivenBack: of an IPv6 subnet a host keeps one block.
func TestVastBlockIsGivenBack(t *testing.T) {
	h, pool := had(t, newWorld().node("host1"), "fd00::/64", 3)
	if got := addressOf(t, h, pool, "fd00::1:0:0:77", 9); len(h.blocks()) != 2 {
		t.Fatalf("%s, blocks %v", got, h.blocks())
	}
	h.passes(t, 10*time.Minute)
	if got := h.blocks(); len(got) != 1 {
		t.Errorf("blocks %v, want one: the container never came", got)
	}
}

// TestBlocksInUseStay, and what rests, and the last, and one that is needed soon.
func TestBlocksInUseStay(t *testing.T) {
	h, pool := had(t, newWorld().node("host1"), "10.1.0.0/24", 2)
	before := h.blocks()
	h.passes(t, 20*time.Minute)
	if got := h.blocks(); len(got) != 1 || got[0] != before[0] {
		t.Errorf("%v and then %v", before, got)
	}
	var used []netip.Addr
	for n := range 10 {
		used = append(used, netip.MustParseAddr(addressOf(t, h, pool, "", 50+n)))
	}
	if err := h.Use(t.Context(), dockerID, "many", used[:4]); err != nil { // six of 14, and a block claimed ahead
		t.Fatal(err)
	}
	h.passes(t, 20*time.Minute)
	if got := h.blocks(); len(got) != 2 {
		t.Errorf("blocks %v, want two: less than three quarters of one are free", got)
	}
	// Whatever comes and goes within the first block, nothing is claimed and nothing given back.
	was := len(h.node.w.versions)
	for n := range 30 {
		addr := addressOf(t, h, pool, "", 200+n)
		h.passes(t, time.Minute)
		if err := h.ReleaseAddress(t.Context(), pool, addr); err != nil {
			t.Fatal(err)
		}
		h.passes(t, time.Minute)
	}
	if got := len(h.node.w.versions); got != was {
		t.Errorf("%d entries were written for 30 containers, one after another", got-was)
	}
}

// TestUseBeginsTheWaitAnew: what stands empty is looked at for minutes, and a container in between counts.
func TestUseBeginsTheWaitAnew(t *testing.T) {
	h, pool := had(t, newWorld().node("host1"), "fd00::/64", 3)
	const addr = "fd00::1:0:0:77"
	for range 4 {
		addressOf(t, h, pool, addr, 9)
		if err := h.ReleaseAddress(t.Context(), pool, addr); err != nil {
			t.Fatal(err)
		}
		h.passes(t, 4*time.Minute)
		if got := h.blocks(); len(got) != 2 {
			t.Fatalf("blocks %v, want two", got)
		}
	}
	h.passes(t, 2*time.Minute)
	if got := h.blocks(); len(got) != 1 {
		t.Errorf("blocks %v, want one", got)
	}
}

func deletes(txn cluster.Txn) bool {
	return len(txn.Then) > 0 && strings.HasPrefix(txn.Then[0].Key, "block/") && txn.Then[0].Value == nil
}

// givingUp is a host whose hand-back was proposed, and the answer lost.
func givingUp(t *testing.T, what proposal) (h *host, pool string) {
	t.Helper()
	h, pool = had(t, newWorld().node("host1"), "10.1.0.0/24", 20)
	h.node.before = func(txn cluster.Txn) proposal {
		if deletes(txn) {
			return what
		}
		return works
	}
	h.passes(t, 7*time.Minute)
	up := 0
	for _, b := range h.Status()[0].Blocks {
		if b.GivenUp {
			up++
		}
	}
	if s := h.Status()[0]; up != 1 || len(s.Blocks) != 3 || s.Usable != uint64(s.Used)+s.Free+s.Unclaimed {
		t.Fatalf("%d blocks are given up, want one, and the next when that is gone: %+v", up, s)
	}
	h.node.before = func(cluster.Txn) proposal { return lost }
	return h, pool
}

// TestHandBackWhoseAnswerWasLost: until it is certain what became of it nothing is given out of the blocks, also after a start with
// facts of any age.
func TestHandBackWhoseAnswerWasLost(t *testing.T) {
	h, pool := givingUp(t, lostLate)
	var gone netip.Prefix
	for _, b := range h.Status()[0].Blocks {
		if b.GivenUp {
			gone = b.Prefix
		}
	}
	for version := len(h.node.w.versions) - 1; version >= 0; version-- {
		h.restart(false)
		h.node.lags, h.node.at = true, version
		given, all := 0, []string{}
		for n := range 50 {
			p, err := h.RequestAddress(t.Context(), pool, "", macOptions(mac(1000*version+n)))
			if err != nil {
				break
			}
			if given++; gone.Contains(p.Addr()) {
				t.Fatalf("version %d: %s was given out of a block that was given up", version, p.Addr())
			}
			all = append(all, p.Addr().String())
		}
		if given != 30 {
			t.Errorf("version %d: %d addresses were given out of the two other blocks, want 30", version, given)
		}
		h.clock.pass(time.Minute) // or the releases may be repetitions
		for _, addr := range all {
			if err := h.ReleaseAddress(t.Context(), pool, addr); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.node.lag(false)
	if h.node.w.writeLate() == 0 {
		t.Fatal("nothing was written late")
	}
	h.node.before = nil
	h.restart(false)
	h.passes(t, time.Minute)
	for _, b := range h.blocks() {
		if b == gone.String() {
			t.Errorf("%s is still there", b)
		}
	}
}

// TestHandBackIsTakenBack when there is need: by a new grant, after which the old proposals cannot be written.
func TestHandBackIsTakenBack(t *testing.T) {
	h, pool := givingUp(t, lostLate)
	h.node.before = func(txn cluster.Txn) proposal {
		if deletes(txn) {
			return lost
		}
		return works
	}
	for n := range 40 {
		addressOf(t, h, pool, "", 500+n)
	}
	if got := h.node.w.writeLate(); got != 0 {
		t.Errorf("%d late proposals were written", got)
	}
	h.node.before = nil
	if err := errors.Join(h.keep(t.Context()), h.keep(t.Context())); err != nil {
		t.Fatal(err)
	}
	for key := range h.store.Prefix("given/") {
		t.Errorf("left over: %s", key)
	}
	if s := h.Status()[0]; s.Used != 42 || len(s.Blocks) != 4 && len(s.Blocks) != 5 {
		t.Errorf("%+v", s)
	}
}

// TestAskedForInAGivenUpBlock: `--ip` has it granted anew.
func TestAskedForInAGivenUpBlock(t *testing.T) {
	h, pool := givingUp(t, lostLate)
	h.node.before = nil
	for _, b := range h.Status()[0].Blocks {
		if addr := b.Prefix.Addr().Next().Next(); b.GivenUp {
			if got := addressOf(t, h, pool, addr.String(), 77); got != addr.String() {
				t.Errorf("%s", got)
			}
			return
		}
	}
}

// TestNothingIsGivenUpInAPartition, nor where another host has the same identity: what is free is needed.
func TestNothingIsGivenUpInAPartition(t *testing.T) {
	h, _ := had(t, newWorld().node("host1"), "10.1.0.0/24", 20)
	h.node.before = func(cluster.Txn) proposal { return lost }
	h.passes(t, 20*time.Minute)
	h.node.before = nil
	h.node.dispute(errors.New("another host has this identity"))
	h.passes(t, 20*time.Minute)
	for key := range h.store.Prefix("given/") {
		t.Errorf("given up: %s", key)
	}
	if s := h.Status()[0]; len(s.Blocks) != 3 || s.Free < 40 {
		t.Errorf("%+v", s)
	}
	h.node.dispute(nil)
	h.passes(t, 20*time.Minute)
	if got := h.blocks(); len(got) != 1 {
		t.Errorf("blocks %v", got)
	}
}

// TestCarvedOutGoesBackByItself to the host around it, when no container has had it for a while.
func TestCarvedOutGoesBackByItself(t *testing.T) {
	one, two, pool, addr := asked(t)
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // stopped and started
		if got := addressOf(t, two, pool, addr.String(), 2); got != addr.String() {
			t.Fatalf("%s", got)
		}
		two.passes(t, 3*time.Minute)
	}
	two.passes(t, 6*time.Minute)
	if got := two.blocks(); len(got) != 1 {
		t.Errorf("blocks of host2: %v", got)
	}
	one.passes(t, time.Minute)
	if got := addressOf(t, one, pool, addr.String(), 2); got != addr.String() {
		t.Errorf("%s", got)
	}
	for key := range one.store.Prefix(belowCarve) {
		t.Errorf("left over: %s", key)
	}
}
