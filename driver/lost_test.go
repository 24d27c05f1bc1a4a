package driver

import (
	"errors"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
)

// A network that Docker has lost is removed by its identifier, the beginning of it, or its name, unless it has endpoints; and
// the cluster hears of it.
func TestRemoveNetwork(t *testing.T) {
	c := &clustertest.Cluster{}
	h := newHost(t, c, "host1")
	for _, what := range []string{id("a1"), "a100", "a1000000000"} {
		must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
		must(t, h.CreateNetwork(t.Context(), netRequest("local", "a2", "10.2.0.0/24")))
		_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
		must(t, err)
		for _, bad := range []struct {
			what string
			want error
		}{{what, ErrInvalid}, {"b1", ErrNotFound}, {"a", ErrNotFound}, {"", ErrNotFound}} {
			if err := h.RemoveNetwork(t.Context(), bad.what); !errors.Is(err, bad.want) {
				t.Errorf("%q: %v, want %v", bad.what, err, bad.want)
			}
		}
		if len(h.Networks()) != 2 {
			t.Fatalf("%d networks", len(h.Networks()))
		}
		must(t, h.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
		must(t, h.RemoveNetwork(t.Context(), what))
		must(t, h.RemoveNetwork(t.Context(), "a2000"))
		h.wantNothing(t)
	}
}
