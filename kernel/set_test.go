package kernel_test

import (
	"testing"

	"github.com/carricknet/carrick/kernel"
)

// A network is made, is what it should be, and leaves nothing.
func TestSetMakesAndRemovesEverything(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	h.set(t, "network a", network(t))
	shared := h.shared(t)
	t.Log(h.Dump(t))
	t.Log(shared.Dump(t))
	t.Log(shared.Run(t, "ip -d link show"))
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
