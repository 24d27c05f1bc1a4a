package cluster

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// world is a few tables that learn from each other by deltas which may be late, lost, doubled and out of order.
type world struct {
	tables  []*table
	pending []sent
	said    map[rowKey]map[version]map[string]string // what an origin had said when its row had a version; nil: not attending
}

type sent struct {
	origin string
	delta  delta
}

func newWorld(n int) *world {
	w := &world{said: map[rowKey]map[version]map[string]string{}}
	for i := range n {
		t := newTable(fmt.Sprintf("node%d", i))
		t.setEpoch(1)
		w.tables = append(w.tables, t)
		w.note(t)
	}
	return w
}

var testNetworks = []string{"blue", "red"}

// note writes down what t says now, to be compared with what others believe it said.
func (w *world) note(t *table) {
	for _, network := range testNetworks {
		key := rowKey{network, t.self}
		if w.said[key] == nil {
			w.said[key] = map[version]map[string]string{}
		}
		w.said[key][t.version(key)] = ownRecords(t, network)
	}
}

func ownRecords(t *table, network string) map[string]string {
	row, ok := t.own[network]
	if !ok {
		return nil
	}
	records := map[string]string{}
	for key, rec := range row.records {
		if rec.value != nil {
			records[key] = string(rec.value)
		}
	}
	return records
}

// check holds everything that anybody believes against what the origin said when it had that version.
func (w *world) check(t *rapid.T) {
	for _, reader := range w.tables {
		for network, rows := range reader.remote {
			for origin, row := range rows {
				want, ok := w.said[rowKey{network, origin}][row.version]
				if !ok {
					t.Fatalf("%s has %s of %s at %v, which %s never said", reader.self, network, origin, row.version, origin)
				}
				if row.attending != (want != nil) {
					t.Fatalf("%s: %s attends %s at %v: %v", reader.self, origin, network, row.version, row.attending)
				}
				if !maps.Equal(texts(row.records), want) && row.attending {
					t.Fatalf("%s believes of %s in %s at %v: %v, it said %v", reader.self, origin, network, row.version, texts(row.records), want)
				}
			}
		}
	}
}

func texts(records map[string][]byte) map[string]string {
	all := map[string]string{}
	for k, v := range records {
		all[k] = string(v)
	}
	return all
}

// pull is one exchange without loss, repeated as the puller does when there is a gap.
func (w *world) pull(t *rapid.T, reader, origin *table, network string) {
	for range 2 {
		_, err := reader.merge(origin.self, origin.since(network, reader.version(rowKey{network, origin.self})))
		if err == nil {
			return
		}
		if !errors.Is(err, errGap) {
			t.Fatal(err)
		}
	}
	t.Fatalf("%s cannot follow %s in %s", reader.self, origin.self, network)
}

func TestTableConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		anyone := func(t *rapid.T, what string) *table { return rapid.SampledFrom(w.tables).Draw(t, what) }
		network := func(t *rapid.T) string { return rapid.SampledFrom(testNetworks).Draw(t, "network") }
		key := rapid.StringMatching("[a-d]")
		t.Repeat(map[string]func(*rapid.T){
			"attend": func(t *rapid.T) {
				node := anyone(t, "node")
				if _, _, err := node.attend(network(t), rapid.Bool().Draw(t, "on")); err != nil {
					t.Fatal(err)
				}
				w.note(node)
			},
			"put": func(t *rapid.T) {
				node, net := anyone(t, "node"), network(t)
				value := []byte(rapid.StringMatching("[xyz]?").Draw(t, "value"))
				if _, _, err := node.put(net, key.Draw(t, "key"), value); err != nil && !errors.Is(err, errNotAttended) {
					t.Fatal(err)
				}
				w.note(node)
			},
			"delete": func(t *rapid.T) {
				node, net := anyone(t, "node"), network(t)
				if _, _, err := node.put(net, key.Draw(t, "key"), nil); err != nil && !errors.Is(err, errNotAttended) {
					t.Fatal(err)
				}
				w.note(node)
			},
			"forget deletions": func(t *rapid.T) {
				if row := anyone(t, "node").own[network(t)]; row != nil {
					row.forgetDeleted(len(row.records) - row.live)
				}
			},
			"restart": func(t *rapid.T) {
				i := rapid.IntRange(0, len(w.tables)-1).Draw(t, "node")
				fresh := newTable(w.tables[i].self)
				fresh.setEpoch(w.tables[i].epoch + 1)
				if rapid.Bool().Draw(t, "cache") {
					fresh.remote = w.tables[i].remote
				}
				w.tables[i] = fresh
				w.note(fresh)
			},
			"new epoch": func(t *rapid.T) {
				node := anyone(t, "node")
				node.setEpoch(node.epoch + 1)
				w.note(node)
			},
			"answer": func(t *rapid.T) {
				origin, reader, net := anyone(t, "origin"), anyone(t, "reader"), network(t)
				d := origin.since(net, reader.version(rowKey{net, origin.self}))
				w.pending = append(w.pending, sent{origin.self, d})
			},
			"deliver": func(t *rapid.T) {
				if len(w.pending) == 0 {
					return
				}
				s, reader := rapid.SampledFrom(w.pending).Draw(t, "delta"), anyone(t, "reader")
				before := reader.version(rowKey{s.delta.network, s.origin})
				changed, err := reader.merge(s.origin, s.delta)
				after := reader.version(rowKey{s.delta.network, s.origin})
				if before.newer(after) || changed != after.newer(before) || (err != nil && changed) {
					t.Fatalf("merge took %v to %v, changed %v, error %v", before, after, changed, err)
				}
				if again, _ := reader.merge(s.origin, s.delta); again {
					t.Fatal("the same delta changed the row twice")
				}
			},
			"hand out": func(t *rapid.T) {
				reader := anyone(t, "reader")
				k := rowKey{network(t), anyone(t, "origin").self}
				if records, ok := reader.share(k); ok {
					want, v := texts(records), reader.version(k)
					t.Cleanup(func() {
						if !maps.Equal(texts(records), want) {
							t.Fatalf("records handed out at %v have changed", v)
						}
					})
				}
			},
			"": w.check,
		})
		for _, reader := range w.tables {
			for _, origin := range w.tables {
				for _, net := range testNetworks {
					if reader != origin {
						w.pull(t, reader, origin, net)
					}
				}
			}
		}
		w.check(t)
		for _, net := range testNetworks {
			for _, other := range w.tables[1:] {
				all := func(x *table) map[hint]bool {
					set := map[hint]bool{}
					for _, o := range w.tables {
						k := rowKey{net, o.self}
						if v := x.version(k); x.self != o.self || x.attends(net) {
							set[hint{k, v}] = true
						}
					}
					return set
				}
				if w.tables[0].attends(net) && other.attends(net) {
					if !maps.Equal(all(w.tables[0]), all(other)) || w.tables[0].digest(net) != other.digest(net) {
						t.Fatalf("%s and %s differ about %s after everything was pulled", w.tables[0].self, other.self, net)
					}
				}
			}
		}
	})
}

func TestTableMergeOrder(t *testing.T) {
	// Whatever the order in which the deltas of one origin come, and however often: the newest version wins.
	rapid.Check(t, func(t *rapid.T) {
		origin := newTable("origin")
		origin.setEpoch(1)
		var deltas []delta
		for range rapid.IntRange(1, 8).Draw(t, "lives") {
			if _, _, err := origin.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(0, 5).Draw(t, "puts") {
				if _, _, err := origin.put("blue", rapid.StringMatching("[ab]").Draw(t, "key"), []byte{byte(len(deltas))}); err != nil {
					t.Fatal(err)
				}
				deltas = append(deltas, origin.since("blue", version{}))
			}
			origin.setEpoch(origin.epoch + 1)
			deltas = append(deltas, origin.since("blue", version{}))
		}
		reader := newTable("reader")
		for _, d := range rapid.Permutation(append(deltas, deltas...)).Draw(t, "order") {
			if _, err := reader.merge("origin", d); err != nil {
				t.Fatal(err)
			}
		}
		got, _ := reader.share(rowKey{"blue", "origin"})
		if !maps.Equal(texts(got), ownRecords(origin, "blue")) {
			t.Fatalf("got %v, want %v", texts(got), ownRecords(origin, "blue"))
		}
	})
}

func mustAttend(t *testing.T, x *table, network string, on bool) {
	t.Helper()
	if _, _, err := x.attend(network, on); err != nil {
		t.Fatal(err)
	}
}

func mustPut(t *testing.T, x *table, network, key, value string) {
	t.Helper()
	if _, _, err := x.put(network, key, []byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestTableNobodyWritesForUs(t *testing.T) {
	x := newTable("us")
	x.setEpoch(1)
	mustAttend(t, x, "blue", true)
	changed, err := x.merge("us", delta{network: "blue", kind: deltaFull, to: version{99, 99}, changes: []change{{"k", []byte("v")}}})
	if changed || err != nil || x.epoch != 1 || len(x.own["blue"].records) != 0 || len(x.remote) != 0 {
		t.Fatalf("changed %v, error %v: %+v", changed, err, x)
	}
}

func TestTableGap(t *testing.T) {
	full := func(v version, keys ...string) delta {
		d := delta{network: "blue", kind: deltaFull, to: v}
		for _, k := range keys {
			d.changes = append(d.changes, change{k, []byte("x")})
		}
		return d
	}
	changes := delta{network: "blue", kind: deltaChanges, from: 5, to: version{2, 7}, changes: []change{{"b", []byte("x")}}}
	for name, have := range map[string]delta{
		"nothing":              {network: "red", kind: deltaFull, to: version{2, 5}},
		"an older version":     full(version{2, 4}, "a"),
		"an older epoch":       full(version{1, 6}, "a"),
		"that it is not there": {network: "blue", kind: deltaAbsent, to: version{2, 6}},
	} {
		reader := newTable("reader")
		if _, err := reader.merge("origin", have); err != nil {
			t.Fatal(err)
		}
		before := reader.version(rowKey{"blue", "origin"})
		changed, err := reader.merge("origin", changes)
		if after := reader.version(rowKey{"blue", "origin"}); changed || !errors.Is(err, errGap) || after != before {
			t.Errorf("on top of %s: changed %v, error %v, version %v", name, changed, err, after)
		}
	}
	reader := newTable("reader")
	for _, d := range []delta{full(version{2, 6}, "a"), changes} { // overlapping, but nothing is missing
		if changed, err := reader.merge("origin", d); err != nil || !changed {
			t.Fatalf("changed %v, error %v", changed, err)
		}
	}
	if got, ok := reader.share(rowKey{"blue", "origin"}); !ok || len(got) != 2 {
		t.Fatalf("got %v", texts(got))
	}
}

func TestTableDeltaIsSmall(t *testing.T) {
	origin := newTable("origin")
	origin.setEpoch(1)
	mustAttend(t, origin, "blue", true)
	for i := range 10000 {
		mustPut(t, origin, "blue", fmt.Sprint(i), "x")
	}
	have := origin.version(rowKey{"blue", "origin"})
	for i := range 20000 { // the same ten again and again: the log may not grow with them
		mustPut(t, origin, "blue", fmt.Sprint(i%10), fmt.Sprint(i))
	}
	if d := origin.since("blue", have); d.kind != deltaChanges || len(d.changes) != 10 {
		t.Fatalf("kind %d with %d changes", d.kind, len(d.changes))
	}
	if n := len(origin.own["blue"].log); n > 2*10000+minTombstones {
		t.Fatalf("the log has %d entries for 10,000 records", n)
	}
}

func TestTableDeletionsAreBounded(t *testing.T) {
	origin, reader := newTable("origin"), newTable("reader")
	origin.setEpoch(1)
	mustAttend(t, origin, "blue", true)
	mustPut(t, origin, "blue", "old", "x")
	if _, err := reader.merge("origin", origin.since("blue", version{})); err != nil {
		t.Fatal(err)
	}
	if _, _, err := origin.put("blue", "old", nil); err != nil {
		t.Fatal(err)
	}
	for i := range 10 * minTombstones {
		mustPut(t, origin, "blue", fmt.Sprint(i), "x")
		if _, _, err := origin.put("blue", fmt.Sprint(i), nil); err != nil {
			t.Fatal(err)
		}
	}
	row := origin.own["blue"]
	if len(row.records) > 2*minTombstones || len(row.log) > 4*minTombstones {
		t.Fatalf("%d keys and %d log entries for no record", len(row.records), len(row.log))
	}
	d := origin.since("blue", reader.version(rowKey{"blue", "origin"}))
	if d.kind != deltaFull {
		t.Fatalf("kind %d, although the deletion of %q is not remembered", d.kind, "old")
	}
	if _, err := reader.merge("origin", d); err != nil {
		t.Fatal(err)
	}
	if got, ok := reader.share(rowKey{"blue", "origin"}); !ok || len(got) != 0 {
		t.Fatalf("got %v", texts(got))
	}
}

func TestTableLimits(t *testing.T) {
	x := newTable("us")
	x.setEpoch(1)
	if _, _, err := x.put("blue", "k", nil); !errors.Is(err, errNotAttended) {
		t.Errorf("put in a network that is not attended: %v", err)
	}
	if _, _, err := x.attend(strings.Repeat("n", maxKey+1), true); err == nil {
		t.Error("a network name that is too long was accepted")
	}
	mustAttend(t, x, "blue", true)
	for key, size := range map[string]int{"": 1, strings.Repeat("k", maxKey+1): 1, "k": maxValue + 1} {
		if _, changed, err := x.put("blue", key, make([]byte, size)); err == nil || changed {
			t.Errorf("a key of %d and a value of %d bytes were accepted", len(key), size)
		}
	}
	for i := range maxRecords {
		mustPut(t, x, "blue", fmt.Sprint(i), "")
	}
	before := x.seq
	if _, _, err := x.put("blue", "one more", []byte("x")); err == nil || x.seq != before {
		t.Errorf("record %d was accepted", maxRecords+1)
	}
	mustPut(t, x, "blue", "0", "changed")
	if _, changed, err := x.put("blue", "1", nil); err != nil || !changed {
		t.Errorf("delete in a full row: %v, changed %v", err, changed)
	}
	mustPut(t, x, "blue", "one more", "x")
}

func TestTableRowBytes(t *testing.T) {
	x := newTable("us")
	x.setEpoch(1)
	mustAttend(t, x, "blue", true)
	large := strings.Repeat("x", maxValue)
	for i := range maxRowBytes / maxValue {
		mustPut(t, x, "blue", fmt.Sprint(i), large)
	}
	mustPut(t, x, "blue", "0", strings.Repeat("y", maxValue)) // instead of another
	if _, changed, err := x.put("blue", "more", []byte("x")); err == nil || changed {
		t.Error("a row grew beyond its limit")
	}
	if _, _, err := x.put("blue", "0", nil); err != nil {
		t.Error(err)
	}
	mustPut(t, x, "blue", "more", large)
}

func TestTableSameAgainChangesNothing(t *testing.T) {
	x := newTable("us")
	x.setEpoch(1)
	mustAttend(t, x, "blue", true)
	mustPut(t, x, "blue", "k", "v")
	before := x.version(rowKey{"blue", "us"})
	mustAttend(t, x, "blue", true)
	mustPut(t, x, "blue", "k", "v")
	if _, changed, err := x.put("blue", "other", nil); changed || err != nil {
		t.Fatalf("deleting nothing: changed %v, error %v", changed, err)
	}
	if after := x.version(rowKey{"blue", "us"}); after != before {
		t.Fatalf("version %v became %v", before, after)
	}
}
