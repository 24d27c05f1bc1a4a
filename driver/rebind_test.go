package driver

import (
	"context"
	"slices"
	"testing"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
)

func TestPoolsThatLostTheirRecordsAreToldWhatIsBound(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	h.memory.lose()
	h.restart(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, nil) }()
	eventually(t, "the pools know the network and its endpoint again", func() bool {
		return h.memory.boundTo(id("a1")) && h.memory.usedBy(id("e1"))
	})
	cancel()
	must(t, <-done)
}

// A host that is another node now is counted among those of its networks again, and asks for its addresses; a network that
// the cluster has made anew is left alone.
func TestNetworksOfAHostWithANewIdentity(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for _, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	}
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a2", "10.2.0.0/24")))
	shared := map[string]string{}
	for _, n := range h.Networks() {
		shared[n.ID] = n.Shared
		must(t, cluster.LeaveNetwork(t.Context(), h.node, n.Shared, h.node.ID())) // forgotten
	}
	h.node = c.Node("host1-again")
	h.memory.node = h.node
	h.restart(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, nil) }()
	eventually(t, "it has the network again", func() bool {
		h.memory.mu.Lock()
		defer h.memory.mu.Unlock()
		return h.memory.reowned[id("a1")] > 0 && slices.Contains(h.node.View().Attendants(shared[id("a1")]), h.node.ID())
	})
	cancel()
	must(t, <-done)
	for _, n := range h.Networks() {
		if (n.Problem == "") != (n.ID == id("a1")) {
			t.Errorf("network %s: %q", n.ID, n.Problem)
		}
	}
}
