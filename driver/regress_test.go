package driver

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

// empty is a node that has dropped its copy of the facts, and gets them again.
type empty struct {
	*clustertest.Node
	filled atomic.Bool
	looked atomic.Int32
}

func (n *empty) View() cluster.View {
	n.looked.Add(1)
	if !n.filled.Load() {
		return cluster.View{}
	}
	return n.Node.View()
}

// TestTrafficGoesOnUntilThereAreFacts: by no facts nobody is a node.
func TestTrafficGoesOnUntilThereAreFacts(t *testing.T) {
	h, _ := twoInStep(t)
	before := h.kernel.String()
	node := &empty{Node: h.node}
	config := h.Config
	config.Facts = node
	h.Driver = New(config)
	must(t, h.Restore(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.hear(t.Context())
	}()
	looked := node.looked.Load()
	eventually(t, "it waits", func() bool { return node.looked.Load() > looked+3 })
	h.reconcile(t.Context(), func(*network) bool { return true })
	if after := h.kernel.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	node.filled.Store(true)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits although there are facts")
	}
	if after := h.kernel.String(); after != before {
		t.Errorf("with facts:\n%s\nbefore:\n%s", after, before)
	}
}

// TestOrphansOfRecordsThatMayBeOld: they are left alone while nobody could be asked, kept if the records are old, and removed if they
// are the newest.
func TestOrphansOfRecordsThatMayBeOld(t *testing.T) {
	for name, c := range map[string]struct{ unsure, damaged, stays, kept bool }{
		"nobody could be asked":     {unsure: true, stays: true},
		"the records are old":       {damaged: true, stays: true, kept: true},
		"old, and nobody was asked": {unsure: true, damaged: true, stays: true, kept: true},
		"they are the newest":       {},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, &clustertest.Cluster{}, "host1")
			must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
			owner := endpointOwner(id("e9"))
			must(t, h.kernel.Set(t.Context(), owner, kernel.State{Links: []kernel.Link{{Name: kernel.Name("ckb", "dead"), NS: kernel.Shared, Bridge: &kernel.Bridge{}}}}))
			config := h.Config
			config.Unsure, config.Damaged = c.unsure, c.damaged
			h.Driver = New(config)
			must(t, h.Restore(t.Context()))
			if stays := strings.Contains(h.kernel.String(), kernel.Name("ckb", "dead")); stays != c.stays {
				t.Errorf("it stays: %v", stays)
			}
			if kept := h.has(keptKey(owner)); kept != c.kept {
				t.Errorf("it is kept: %v", kept)
			}
			// The engine knows it, and ends it.
			if err := h.DeleteEndpoint(t.Context(), id("a1"), id("e9")); err != nil {
				t.Error(err)
			}
			if strings.Contains(h.kernel.String(), kernel.Name("ckb", "dead")) {
				t.Error("it is left behind by its end")
			}
		})
	}
}
