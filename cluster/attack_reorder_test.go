package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

// history is what one node says in a network, as deltas that others have pulled at different times: of everything, and of
// what has changed between any two versions.
func history(t *testing.T, seed uint64) (origin *table, deltas []delta) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	origin = newTable("origin")
	origin.setEpoch(1)
	versions := []version{{}}
	for range 30 {
		var err error
		switch random.IntN(10) {
		case 0:
			_, _, err = origin.attend("blue", random.IntN(2) == 0)
		case 1:
			origin.setEpoch(origin.epoch + 1)
		case 2, 3:
			_, _, err = origin.put("blue", fmt.Sprint(random.IntN(5)), nil)
		default:
			if _, _, err = origin.attend("blue", true); err == nil {
				_, _, err = origin.put("blue", fmt.Sprint(random.IntN(5)), []byte{byte(random.IntN(256))})
			}
		}
		if err != nil && !errors.Is(err, errNotAttended) {
			t.Fatal(err)
		}
		for _, have := range versions {
			deltas = append(deltas, origin.since("blue", have))
		}
		versions = append(versions, origin.ownVersion("blue"))
	}
	return origin, deltas
}

// mergeAsEvents is the bug: what comes last counts.
func mergeAsEvents(x *table, d delta) {
	key := rowKey{d.network, "origin"}
	row := x.remote[d.network]["origin"]
	if row == nil || d.kind == deltaFull {
		row = &remoteRow{records: map[string][]byte{}}
	}
	row.attending, row.version = d.kind != deltaAbsent, d.to
	if d.kind == deltaAbsent {
		row.records = map[string][]byte{}
	}
	row.apply(d.changes)
	x.set(key, row)
}

// Somebody between two nodes delivers what one says to the other in any order, as often as he likes: an old pull after a new
// one, a deletion before what it deletes, and what a node said before it started anew after what it says now. What is known
// at the end is what was said last, and nothing that was ever known goes back.
func TestAttackReorder(t *testing.T) {
	const histories = 300
	differ := func(merge func(x *table, d delta)) int {
		count := 0
		for seed := range uint64(histories) {
			origin, deltas := history(t, seed)
			random := rand.New(rand.NewPCG(seed, 2))
			reader := newTable("reader")
			if _, _, err := reader.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			newest := version{}
			for range 2 * len(deltas) {
				merge(reader, deltas[random.IntN(len(deltas))])
				now := reader.version(rowKey{"blue", "origin"})
				if newest.newer(now) {
					count++
					break
				}
				newest = now
			}
			merge(reader, origin.since("blue", reader.version(rowKey{"blue", "origin"})))
			merge(reader, deltas[random.IntN(len(deltas))]) // and one more that is late
			row, want := reader.remote["blue"]["origin"], ownRecords(origin, "blue")
			if row.attending != (want != nil) || want != nil && !maps.Equal(texts(row.records), want) {
				count++
			}
		}
		return count
	}
	if got := differ(mergeAsEvents); got < histories/2 {
		t.Errorf("%d of %d histories end wrong when what comes last counts: the attack does nothing", got, histories)
	}
	if got := differ(func(x *table, d delta) { x.merge("origin", d) }); got > 0 {
		t.Errorf("%d of %d histories end wrong", got, histories)
	}
}
