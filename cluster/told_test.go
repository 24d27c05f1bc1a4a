package cluster

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestToldIsNeverOld(t *testing.T) {
	g, err := newGossip(gossipConfig{id: "us", advertise: netip.MustParseAddr("192.0.2.1"), key: make([]byte, 32), dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	g.table.setEpoch(1)
	if _, _, err := g.table.attend("blue", true); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	many := func(value string) {
		for i := range 3000 {
			mustPut(t, g.table, "blue", fmt.Sprintf("%064x", i), value)
		}
	}
	many("first")
	whole := want{network: "blue"}
	first := g.answer(whole, now)
	if again := g.answer(whole, now); &again[0] != &first[0] {
		t.Errorf("an answer of %d bytes was made twice", len(first))
	}
	mustPut(t, g.table, "blue", "one", "more")
	if second := g.answer(whole, now); bytes.Equal(first, second) || !bytes.Equal(second, encodeDelta(g.table.since("blue", version{}))) {
		t.Error("an old answer was given")
	}
	// The same row, asked from another version.
	have := g.table.ownVersion("blue")
	many("second")
	if got := g.answer(want{"blue", have}, now); !bytes.Equal(got, encodeDelta(g.table.since("blue", have))) {
		t.Error("an answer to another question was given")
	}
	for i := range 3 * maxTold {
		g.answer(want{"blue", version{1, uint64(10 + i)}}, now.Add(time.Duration(i)))
	}
	if got := len(g.told.answers); got != maxTold {
		t.Errorf("%d answers are kept, want %d", got, maxTold)
	}
	// What is not attended any more is not told from memory.
	if _, _, err := g.table.attend("blue", false); err != nil {
		t.Fatal(err)
	}
	if got := g.answer(whole, now); !bytes.Equal(got, encodeDelta(g.table.since("blue", version{}))) || len(got) > 100 {
		t.Errorf("after the network was left: %d bytes", len(got))
	}
	g.told.forget(now.Add(2 * toldKept))
	if got := len(g.told.answers); got != 0 {
		t.Errorf("%d answers are kept for ever", got)
	}
}
