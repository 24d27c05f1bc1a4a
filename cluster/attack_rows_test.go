package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// A node says more about its own endpoints than anybody can need, at once or little by little. It is not kept, the operator
// is told, and the others are heard all the same.
func TestAttackHugeRow(t *testing.T) {
	g := testGossip(t)
	records := func(from, count int) []change {
		value := make([]byte, maxValue)
		all := make([]change, count)
		for i := range all {
			all[i] = change{fmt.Sprint("r", from+i), value}
		}
		return all
	}
	const most = maxRowBytes / maxValue
	ask := func(origin string, d delta) {
		t.Helper()
		b := newBatch()
		b.wants["blue"] = nil
		if _, err := g.takeOver(origin, b, pulled{rows: []delta{d}}); err != nil {
			t.Fatal(err)
		}
	}
	held := func(origin string) int {
		records, _ := g.table.share(rowKey{"blue", origin})
		return len(records)
	}
	full := delta{network: "blue", kind: deltaFull, to: version{1, 1}, changes: records(0, most)}
	ask("allowed", full)
	if got := held("allowed"); got != most {
		t.Fatalf("%d of %d records that are allowed: the attack does nothing", got, most)
	}
	full.changes = records(0, most+1)
	ask("at once", full)
	full.changes = records(0, most)
	ask("little by little", full)
	ask("little by little", delta{network: "blue", kind: deltaChanges, from: 1, to: version{1, 2}, changes: records(most, 1)})
	many := delta{network: "blue", kind: deltaFull, to: version{1, 1}, changes: make([]change, maxRecords+1)}
	for i := range many.changes {
		many.changes[i] = change{fmt.Sprint("r", i), []byte{}}
	}
	ask("many", many)
	for _, origin := range []string{"at once", "little by little", "many"} {
		if got := held(origin); got != 0 {
			t.Errorf("%s: %d records are kept", origin, got)
		}
		if texts := fmt.Sprint(g.cfg.alarms.texts()); !strings.Contains(texts, "node "+origin+" is not listened to") {
			t.Errorf("%s: alarms %s", origin, texts)
		}
	}
	if got := held("allowed"); got != most {
		t.Errorf("%d of %d records of another node are left", got, most)
	}
}

// The same while it is being read: the connection ends.
func TestAttackHugeAnswer(t *testing.T) {
	g := testGossip(t)
	in := bytes.NewBuffer(frame(frameHello, hello{meta{"", "n", 1, 5, 0}, netip.MustParseAddrPort("192.0.2.2:1"), 0, nil, nil}.encode()))
	in.Write(frame(frameRow, encodeRow(delta{network: "blue", kind: deltaFull, to: version{5, 1}, changes: make([]change, 2*maxRecords)})))
	var one encoder
	one.change(change{"k", make([]byte, maxValue)})
	for range 2*maxRowBytes/len(one) + 2 {
		in.Write(frame(frameChanges, one))
	}
	if _, err := g.readAnswer(newFrames(scripted{in: in}), "other", 1); !errors.Is(err, errHuge) {
		t.Errorf("%v", err)
	}
}

// Somebody brings an old pull of a node again after this one was started anew: what was remembered on disk is newer. Without
// the memory it would count.
func TestAttackReplayedPull(t *testing.T) {
	g := testGossip(t)
	old := delta{network: "blue", kind: deltaFull, to: version{5, 1}, changes: []change{{"gone", []byte("x")}}}
	for _, d := range []delta{old, {network: "blue", kind: deltaChanges, from: 1, to: version{5, 2}, changes: []change{{"gone", nil}}}} {
		if _, err := g.table.merge("other", d); err != nil {
			t.Fatal(err)
		}
	}
	if err := saveCache(g.cfg.dir, g.table.remembered().encode()); err != nil {
		t.Fatal(err)
	}
	for _, remembers := range []bool{false, true} {
		dir := t.TempDir()
		if remembers {
			dir = g.cfg.dir
		}
		again, err := newGossip(gossipConfig{id: "us", advertise: g.cfg.advertise, key: g.cfg.key, dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.table.merge("other", old); err != nil {
			t.Fatal(err)
		}
		records, _ := again.table.share(rowKey{"blue", "other"})
		if _, back := records["gone"]; back == remembers {
			t.Errorf("with a memory %v: what was deleted is back: %v", remembers, back)
		}
	}
}
