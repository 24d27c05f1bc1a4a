package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// slowFacts is a cluster that decides nothing about one network until it is released.
type slowFacts struct {
	*clustertest.Node
	shared  string
	release chan struct{}
	asked   atomic.Int32
}

func (f *slowFacts) Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error) {
	f.asked.Add(1)
	raw, err := json.Marshal(txn)
	if err == nil && strings.Contains(string(raw), f.shared) {
		select {
		case <-f.release:
		case <-ctx.Done():
			return f.View(), cluster.ErrNoQuorum
		}
	}
	return f.Node.Propose(ctx, txn)
}

func sharedID(prefixes ...string) string {
	var subnets []cluster.Subnet
	for _, p := range prefixes {
		subnets = append(subnets, cluster.Subnet{Prefix: netip.MustParsePrefix(p)})
	}
	return cluster.NetworkID("", subnets)
}

func TestWhoWaitsForTheClusterHoldsUpNobody(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for _, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
		_, err := host.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
		must(t, err)
	}
	slow := &slowFacts{Node: h.node, shared: sharedID("10.2.0.0/24"), release: make(chan struct{})}
	h.Driver.Facts = slow
	ctx, stop := context.WithCancel(t.Context())
	ran, made := make(chan error, 1), make(chan error, 1)
	wake, _ := h.node.Watch()
	go func() { ran <- h.Run(ctx, wake) }()
	go func() { made <- h.CreateNetwork(ctx, netRequest("shared", "a2", "10.2.0.0/24")) }()
	eventually(t, "the cluster is asked", func() bool { return slow.asked.Load() > 0 })

	if got := len(h.Networks()); got != 2 {
		t.Errorf("%d networks are shown, want 2", got)
	}
	mac, err := other.CreateEndpoint(t.Context(), epRequest("a1", "e2", "10.1.0.3/24"))
	must(t, err)
	eventually(t, "an endpoint of another host arrives", func() bool { return strings.Contains(h.kernel.String(), mac.String()) })
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a3", "10.3.0.0/24")))
	must(t, h.DeleteNetwork(t.Context(), id("a3")))
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := h.DeleteNetwork(given, id("a2")); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that nobody waits for any more said %v", err)
	}
	close(slow.release)
	must(t, <-made)
	stop()
	must(t, <-ran)
}

func TestRestoreAsksNothingOfTheCluster(t *testing.T) {
	c := &clustertest.Cluster{}
	h := newHost(t, c, "host1")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	nw := h.networks[id("a1")]
	nw.Half = true // as a process that was killed leaves it
	must(t, h.write(nw.Network))
	asked := 0
	c.Fail(func(string, cluster.Txn) error { asked++; return nil })
	h.restart(t)
	if asked > 0 {
		t.Error("the cluster, which does not run yet, was asked")
	}
	if left := h.kernel.String(); left != "" || len(h.Networks()) > 0 {
		t.Errorf("left of a network that was never answered:\n%s", left)
	}
	h.leaveAll(t.Context())
	h.wantNothing(t)
}

// lostAnswers is a cluster that decides the first thing it is asked only when everybody has given up.
type lostAnswers struct {
	*clustertest.Node
	held []cluster.Txn
}

func (l *lostAnswers) Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error) {
	if l.held == nil {
		l.held = append(l.held, txn)
		return l.View(), cluster.ErrNoQuorum
	}
	return l.Node.Propose(ctx, txn)
}

func TestNetworkThatIsDecidedLaterIsLeft(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	late := &lostAnswers{Node: h.node}
	h.Driver.Facts = late
	if err := h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")); !errors.Is(err, cluster.ErrNoQuorum) {
		t.Fatalf("said %v", err)
	}
	h.leaveAll(t.Context())
	_, err := h.node.Propose(t.Context(), late.held[0]) // the log of a leader that comes back
	must(t, err)
	h.leaveAll(t.Context())
	h.wantNothing(t)
}

func TestWhoDoesNotKnowWhatItHasLeavesNothing(t *testing.T) {
	for name, lose := range map[string]func(h *host){
		"a newer version's record": func(h *host) {
			must(t, h.memory.Apply(store.Write{Key: networkKey(id("a1")), Value: []byte(`{"v":99}`)}))
		},
		"a damaged store": func(h *host) { h.memory, h.damaged = newMemory(), true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, &clustertest.Cluster{}, "host1")
			must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
			lose(h)
			h.restart(t)
			h.damaged = false
			h.restart(t)
			h.leaveAll(t.Context())
			if got := h.node.View().Networks(); len(got) != 1 {
				t.Error("what containers may still use was given back")
			}
			must(t, h.DeleteNetwork(t.Context(), id("a1")))
			h.restart(t)
			h.leaveAll(t.Context())
			h.wantNothing(t)
		})
	}
}

func TestRecordsOfANewerVersionCostNoTraffic(t *testing.T) {
	h := newHost(t, nil, "")
	must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	before := h.kernel.String()
	for _, key := range []string{networkKey(id("a1")), endpointKey(id("a1"), id("e1"))} {
		must(t, h.memory.Apply(store.Write{Key: key, Value: []byte(`{"v":99}`)}))
	}
	h.restart(t)
	if after := h.kernel.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	h.wantNothing(t)
}

// The engine forgets a network whatever DeleteNetwork answers, and never removes one whose CreateNetwork failed.
func TestWhatCannotBeRemovedGoesLater(t *testing.T) {
	for name, life := range map[string]func(h *host) error{
		"removal": func(h *host) error {
			if err := h.CreateNetwork(context.Background(), netRequest("shared", "a1", "10.1.0.0/24")); err != nil {
				return err
			}
			h.kernel.FailNth(1, errPlanned)
			return h.DeleteNetwork(context.Background(), id("a1"))
		},
		"creation": func(h *host) error {
			h.memory.failAt = 3 // Bind
			h.kernel.FailNth(1, errPlanned)
			return h.CreateNetwork(context.Background(), netRequest("shared", "a1", "10.1.0.0/24"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, &clustertest.Cluster{}, "host1")
			if err := life(h); !errors.Is(err, errPlanned) {
				t.Fatalf("said %v", err)
			}
			if alarms := h.Alarms(); len(alarms) == 0 {
				t.Error("nobody is told")
			}
			if _, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24")); !errors.Is(err, ErrNotFound) {
				t.Errorf("CreateEndpoint on what is left said %v", err)
			}
			h.reconcile(t.Context(), func(nw *network) bool { return nw.problem != nil })
			h.leaveAll(t.Context())
			h.wantNothing(t)
		})
	}
}

func TestNetworkIsMadeAgainOverWhatIsLeftOfIt(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	h.memory.failAt = 3
	h.kernel.FailNth(1, errPlanned)
	if err := h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")); !errors.Is(err, errPlanned) {
		t.Fatalf("said %v", err)
	}
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	if alarms := h.Alarms(); len(alarms) > 0 {
		t.Errorf("alarms %q", alarms)
	}
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	h.wantNothing(t)
}

// lateKernel ends the call's time while it works for one owner.
type lateKernel struct {
	Kernel
	owner string
	end   context.CancelFunc
}

func (k lateKernel) Set(ctx context.Context, owner string, want kernel.State) error {
	if owner == k.owner {
		defer k.end()
	}
	return k.Kernel.Set(ctx, owner, want)
}

func TestWhatWasAnsweredAsFailedIsUndone(t *testing.T) {
	h := newHost(t, nil, "")
	late := func(owner string, do func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		h.Driver.Kernel = lateKernel{h.kernel, owner, cancel}
		if err := do(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("said %v", err)
		}
		h.Driver.Kernel = h.kernel
	}
	late(networkOwner(id("a1")), func(ctx context.Context) error {
		return h.CreateNetwork(ctx, netRequest("local", "a1", "10.1.0.0/24"))
	})
	h.wantNothing(t)
	must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
	late(endpointOwner(id("e1")), func(ctx context.Context) error {
		_, err := h.CreateEndpoint(ctx, epRequest("a1", "e1", "10.1.0.2/24"))
		return err
	})
	if len(h.Endpoints()) > 0 || len(h.memory.used) > 0 {
		t.Errorf("left: %v, addresses %v", h.Endpoints(), h.memory.used)
	}
}

// mortal is a kernel that fails from a moment on, as all calls of a process that was killed.
type mortal struct {
	Kernel
	memory *memory
}

func (k mortal) Set(ctx context.Context, owner string, want kernel.State) error {
	k.memory.mu.Lock()
	dead := k.memory.fails()
	k.memory.mu.Unlock()
	if dead {
		return errPlanned
	}
	return k.Kernel.Set(ctx, owner, want)
}

func TestKilledAtAnyMomentLeavesNothing(t *testing.T) {
	ctx := context.Background()
	for n := 1; ; n++ {
		h := newHost(t, &clustertest.Cluster{}, "host1")
		h.Driver.Kernel = mortal{h.kernel, h.memory}
		h.memory.failAt, h.memory.dies = n, true
		err := h.CreateNetwork(ctx, netRequest("shared", "a1", "10.1.0.0/24"))
		made, finished := err == nil, false
		if made {
			_, err = h.CreateEndpoint(ctx, epRequest("a1", "e1", "10.1.0.2/24"))
			finished = err == nil
		}
		if err == nil {
			err = errors.Join(h.DeleteEndpoint(ctx, id("a1"), id("e1")), h.DeleteNetwork(ctx, id("a1")))
		}
		if err != nil && !errors.Is(err, errPlanned) {
			t.Fatalf("call %d: %v", n, err)
		}
		lived := h.memory.failAt > 0
		h.memory.failAt, h.memory.dies = never, false
		h.restart(t)
		for range waitingLooks {
			if finished { // the engine knows of the endpoint, and has lost it; of one that was not, it never hears
				h.sweep(ctx)
			}
		}
		if left := len(h.Endpoints()) + len(h.memory.used); left > 0 {
			t.Errorf("killed at call %d: endpoints %v, addresses %v are left", n, h.Endpoints(), h.memory.used)
		}
		if made {
			must(t, h.DeleteNetwork(ctx, id("a1")))
		}
		h.leaveAll(ctx)
		h.wantNothing(t)
		if lived {
			t.Logf("killed at %d calls in turn", n-1)
			return
		}
	}
}

func TestTroubleIsSaidOnce(t *testing.T) {
	h := newHost(t, nil, "")
	must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
	nw := h.networks[id("a1")]
	nw.Mode = "later" // made by a newer version
	must(t, h.write(nw.Network))
	h.restart(t)
	log, lines := logtest.NewNullLogger()
	h.Driver.Logger = log
	for range 3 {
		h.reconcile(t.Context(), func(*network) bool { return true })
	}
	if said := lines.AllEntries(); len(said) > 0 {
		t.Errorf("said again: %q", said[0].Message)
	}
	if _, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24")); err == nil || !strings.Contains(err.Error(), `mode "later" is unknown`) {
		t.Errorf("said %v", err)
	}
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	h.wantNothing(t)
}

func TestNetworkThatIsNotTheClustersIsAnAlarm(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for _, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	}
	if alarms := h.Alarms(); len(alarms) > 0 {
		t.Fatalf("alarms %q", alarms)
	}
	shared := sharedID("10.1.0.0/24")
	for _, tt := range []struct{ leaves, want string }{
		{h.node.ID(), "the cluster does not know that this host has the network"},
		{other.node.ID(), "the cluster does not have this network any more"},
	} {
		must(t, cluster.LeaveNetwork(t.Context(), h.node, shared, tt.leaves))
		if alarms := fmt.Sprint(h.Alarms()); !strings.Contains(alarms, tt.want) {
			t.Errorf("alarms %s, want %q", alarms, tt.want)
		}
	}
}

func TestNothingIsAnOrphanWhileNobodyKnows(t *testing.T) {
	h := newHost(t, nil, "")
	must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
	before := h.kernel.String()
	lost := New(Config{Kernel: h.kernel, Store: newMemory(), Pools: h.memory, Leases: h.memory, Damaged: true})
	h.kernel.FailNth(1, errPlanned)
	if err := lost.Restore(t.Context()); !errors.Is(err, errPlanned) {
		t.Errorf("went on without knowing what to keep: %v", err)
	}
	if after := h.kernel.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestSubnetsInAnyOrderAreTheSameRequest(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	for range 2 {
		must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.2.0.0/24", "10.1.0.0/24", "fd01::/64")))
	}
}

func TestSecretTakenAwayCostsNoTraffic(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	before, node := h.kernel.String(), h.node
	h.node = nil
	h.restart(t)
	if after := h.kernel.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if _, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e2", "10.1.0.3/24")); err == nil || !strings.Contains(err.Error(), "SECRET is not set") {
		t.Errorf("said %v", err)
	}
	must(t, h.Leave(t.Context(), id("a1"), id("e1")))
	must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
	must(t, h.DeleteNetwork(t.Context(), id("a1")))
	h.node = node // and given back
	h.restart(t)
	h.leaveAll(t.Context())
	h.wantNothing(t)
}
