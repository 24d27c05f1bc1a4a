package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

func TestNetworkAndEndpointLiveAndLeaveNothing(t *testing.T) {
	for _, mode := range []string{"local", "shared"} {
		t.Run(mode, func(t *testing.T) {
			h := newHost(t, &clustertest.Cluster{}, "host1")
			for range 2 { // every call may be repeated
				must(t, h.CreateNetwork(t.Context(), netRequest(mode, "a1", "10.1.0.0/24", "fd01::/64")))
			}
			var first kernel.MAC
			for i := range 2 {
				mac, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24", "fd01::2/64"))
				must(t, err)
				if i == 0 {
					first = mac
				}
				if mac != first || mac == (kernel.MAC{}) {
					t.Errorf("the MAC chosen first was %s, then %s", first, mac)
				}
			}
			a, err := h.Join(t.Context(), id("a1"), id("e1"), "/var/run/docker/netns/e1")
			must(t, err)
			if want := kernel.Name("ckc", id("e1")); a.Link != want || a.Prefix != "eth" {
				t.Errorf("the engine is told to move %q as %q, the device is %q", a.Link, a.Prefix, want)
			}
			must(t, h.Leave(t.Context(), id("a1"), id("e1")))
			must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
			must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
			must(t, h.DeleteNetwork(t.Context(), id("a1")))
			must(t, h.DeleteNetwork(t.Context(), id("a1")))
			h.wantNothing(t)
		})
	}
}

func TestEveryFailureLeavesNothing(t *testing.T) {
	life := func(h *host) error {
		ctx := context.Background()
		if err := h.CreateNetwork(ctx, netRequest("shared", "a1", "10.1.0.0/24")); err != nil {
			return err
		}
		if _, err := h.CreateEndpoint(ctx, epRequest("a1", "e1", "10.1.0.2/24")); err != nil {
			if len(h.memory.used) != 0 {
				return fmt.Errorf("addresses %v are still in use after %w", h.memory.used, err)
			}
			return errors.Join(err, h.DeleteNetwork(ctx, id("a1")))
		}
		return errors.Join(h.DeleteEndpoint(ctx, id("a1"), id("e1")), h.DeleteNetwork(ctx, id("a1")))
	}
	for _, where := range []string{"kernel", "store and pools"} {
		failed := 0
		for n := 1; ; n++ {
			h := newHost(t, &clustertest.Cluster{}, "host1")
			h.kernel.FailNth(0, nil) // counts anew
			if where == "kernel" {
				h.kernel.FailNth(n, errPlanned)
				h.memory.failAt = never
			} else {
				h.memory.failAt = n
			}
			err := life(h)
			if err != nil && !errors.Is(err, errPlanned) {
				t.Fatalf("%s, call %d: %v", where, n, err)
			}
			if (where == "kernel" && n > h.kernel.Calls()) || (where != "kernel" && h.memory.failAt > 0) {
				break // every call of a life has failed once
			}
			failed++
			// What could not be undone at once goes when it is asked again, or at the next start.
			must(t, h.DeleteNetwork(t.Context(), id("a1")))
			h.restart(t)
			h.leaveAll(t.Context())
			h.wantNothing(t)
		}
		t.Logf("%s: %d calls failed in turn", where, failed)
		if failed < 3 {
			t.Errorf("%s: only %d calls were failed", where, failed)
		}
	}
}

func TestRestartKeepsNetworksAndRemovesOrphans(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for _, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	}
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	before := h.kernel.String()
	must(t, h.kernel.Set(t.Context(), "endpoint/dead", kernel.State{Links: []kernel.Link{{Name: kernel.Name("ckb", "dead"), NS: kernel.Shared, Bridge: &kernel.Bridge{}}}}))
	h.node.Attend(cluster.NetworkID("", []cluster.Subnet{{Prefix: epRequest("", "", "10.1.0.0/24").Addrs[0]}}), false) // as a new process has not said it yet
	h.restart(t)
	if after := h.kernel.String(); after != before {
		t.Errorf("before the restart:\n%s\nafter it:\n%s", before, after)
	}
	_, err = other.CreateEndpoint(t.Context(), epRequest("a1", "e2", "10.1.0.3/24"))
	must(t, err)
	if got := len(other.behind("a1")); got != 1 {
		t.Errorf("after its restart %d endpoints of host1 are known to host2, want 1", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	ctx, stop := context.WithCancel(t.Context())
	wake, _ := h.node.Watch()
	var around, calls sync.WaitGroup
	around.Go(func() { _ = h.Run(ctx, wake) }) // never fails
	around.Go(func() {
		for ctx.Err() == nil {
			h.Networks()
			h.Endpoints()
			h.Alarms()
		}
	})
	life := func(n, e int) error {
		nid, eid := fmt.Sprint("a", n), fmt.Sprint("e", n, e)
		if _, err := h.CreateEndpoint(ctx, epRequest(nid, eid, fmt.Sprintf("10.%d.0.%d/24", n, 2+e))); err != nil {
			return err
		}
		_, err := h.Join(ctx, id(nid), id(eid), "")
		return errors.Join(err, h.Leave(ctx, id(nid), id(eid)), h.DeleteEndpoint(ctx, id(nid), id(eid)))
	}
	for n := range 4 {
		calls.Go(func() {
			if err := h.CreateNetwork(ctx, netRequest("shared", fmt.Sprint("a", n), fmt.Sprintf("10.%d.0.0/24", n))); err != nil {
				t.Error(err)
				return
			}
			var lives sync.WaitGroup
			lives.Go(func() { h.sweep(ctx) }) // one look of each network's: fewer than it takes to find a container dead
			for e := range 8 {
				lives.Go(func() {
					if err := life(n, e); err != nil {
						t.Error(err)
					}
				})
			}
			lives.Wait()
			if err := h.DeleteNetwork(ctx, id(fmt.Sprint("a", n))); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	stop()
	around.Wait()
	h.wantNothing(t)
}

func TestDeadContainersAreSwept(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	must(t, h.CreateNetwork(t.Context(), netRequest("none", "a2")))
	for i, e := range []string{"e1", "e2", "e3"} {
		_, err := h.CreateEndpoint(t.Context(), epRequest("a1", e, fmt.Sprintf("10.1.0.%d/24", i+2)))
		must(t, err)
	}
	_, err := h.CreateEndpoint(t.Context(), epRequest("a2", "e9"))
	must(t, err)
	h.kernel.Take(endpointOwner(id("e1"))) // in its sandbox
	h.kernel.Die(endpointOwner(id("e2")))  // the sandbox ended, and both ends of the pair with it
	for range goneLooks - 1 {
		h.sweep(t.Context())
	}
	if got := len(h.Endpoints()); got != 4 {
		t.Errorf("%d endpoints left before the last look, want 4", got)
	}
	for range waitingLooks {
		h.sweep(t.Context())
	}
	var left []string
	for _, e := range h.Endpoints() {
		left = append(left, e.ID[:2])
	}
	if got := strings.Join(left, " "); got != "e1 e9" {
		t.Errorf("left after the last look: %s, want e1 (in its sandbox) and e9 (has no device)", got)
	}
}

func TestNetworkLeavesTheClusterWhenThereIsAQuorumAgain(t *testing.T) {
	c := &clustertest.Cluster{}
	h := newHost(t, c, "host1")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	c.Fail(func(string, cluster.Txn) error { return cluster.ErrNoQuorum })
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	if got := len(h.node.View().Networks()); got != 1 {
		t.Fatalf("%d networks in the cluster without a quorum, want still 1", got)
	}
	h.restart(t)
	c.Fail(nil)
	h.leaveAll(t.Context())
	if got := h.node.View().Networks(); len(got) != 0 {
		t.Errorf("the cluster still has %v", got)
	}
	h.wantNothing(t)
}

func (h *host) wantNothing(t *testing.T) {
	t.Helper()
	if left := h.kernel.String(); left != "" {
		t.Errorf("left in the kernel:\n%s", left)
	}
	if left := h.memory.left(); left != "" {
		t.Errorf("left: %s", left)
	}
	if h.node != nil {
		for f := range h.node.View().Prefix("") {
			t.Errorf("left in the cluster: %s", f.Key)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: not within a minute", what)
		}
		<-tick.C
	}
	t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
}

func TestLostRecordsCostNoTraffic(t *testing.T) {
	h := newHost(t, nil, "")
	must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	before := h.kernel.String()
	h.memory = newMemory() // set aside as damaged
	h.damaged = true
	h.restart(t)
	h.damaged = false // the next start finds a sound store
	h.restart(t)
	if after := h.kernel.String(); after != before {
		t.Errorf("before the damage:\n%s\nafter it:\n%s", before, after)
	}
	must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	h.wantNothing(t)
}
