package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

// counting counts what a kernel is told, and may refuse it. Without a kernel below it does nothing else.
type counting struct {
	Kernel
	mu     sync.Mutex
	sets   map[string]int // owner
	refuse bool
}

func (c *counting) Set(ctx context.Context, owner string, want kernel.State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sets == nil {
		c.sets = map[string]int{}
	}
	c.sets[owner]++
	switch {
	case c.refuse:
		return errors.New("refused")
	case c.Kernel == nil:
		return nil
	}
	return c.Kernel.Set(ctx, owner, want)
}

// apart are the records of a node whose networks change one by one.
type apart struct {
	*clustertest.Node
	revisions map[string]uint64
}

func (a apart) Revision(network string) uint64 { return a.revisions[network] }

func TestOnlyWhatHasChangedIsLookedAt(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "here"), newHost(t, c, "other")
	count := &counting{Kernel: h.kernel}
	records := apart{h.node, map[string]uint64{}}
	h.Driver.Kernel, h.Driver.Records = count, records
	for nid, net := range map[string]string{"a1": "10.1.0.", "b2": "10.2.0."} {
		for i, on := range []*host{h, other} { // the other host's block is a fact that is new to the first one
			must(t, on.CreateNetwork(t.Context(), netRequest("shared", nid, net+"0/24")))
			_, err := on.CreateEndpoint(t.Context(), epRequest(nid, "e"+nid, fmt.Sprintf("%s%d/24", net, 2+i)))
			must(t, err)
		}
	}
	a, b := networkOwner(id("a1")), networkOwner(id("b2"))
	pass := func(what string, wantA, wantB int) {
		t.Helper()
		clear(count.sets)
		h.reconcile(t.Context(), h.stale())
		if count.sets[a] != wantA || count.sets[b] != wantB {
			t.Errorf("%s: the networks were set %d and %d times, want %d and %d", what, count.sets[a], count.sets[b], wantA, wantB)
		}
	}
	pass("the facts have changed since the networks were made", 1, 1)
	pass("nothing has changed", 0, 0)
	records.revisions[sharedID("10.1.0.0/24")]++
	pass("a record has changed", 1, 0)
	pass("and nothing else", 0, 0)
	count.refuse = true
	records.revisions[sharedID("10.2.0.0/24")]++
	pass("the kernel refuses", 0, 1)
	count.refuse = false
	pass("it does not any more", 0, 1)
	pass("nothing is left to be done", 0, 0)
	must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("ea1")))
	pass("an endpoint has gone, which others may claim the address of", 0, 0)
	if h.networks[id("a1")].from == (basis{}) {
		t.Error("its network was not looked at when it went")
	}
}
