package driver

import (
	"context"
	"testing"

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
