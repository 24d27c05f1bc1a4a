package ledger

import (
	"fmt"
	"testing"

	"github.com/carricknet/carrick/cluster"
)

func TestHostsThatAreGone(t *testing.T) {
	h := hosts{self: "a", nodes: map[string]cluster.Node{
		"a": {}, "b": {Alive: true}, "c": {}, "d": {Suspended: true}, "e": {Alive: true, Lost: true},
	}}
	for id, want := range map[string]string{
		"a": "this node false", "b": "alive false", "c": "silent false", "d": "suspended true", "e": "left behind true", "f": "gone true", "": " false",
	} {
		state, _, stranded := h.state(id)
		if got := fmt.Sprint(state, " ", stranded); got != want {
			t.Errorf("%q: %s, want %s", id, got, want)
		}
	}
	if _, _, stranded := (hosts{self: "a"}).state("b"); stranded {
		t.Error("nobody is known, and one is gone")
	}
}
