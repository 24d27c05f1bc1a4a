package cluster

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// copied is a host with a store, whose disk can be copied and put back.
type copied struct {
	pasts []past
	at    []point
}

func (c copied) copy() copied { return copied{slices.Clone(c.pasts), slices.Clone(c.at)} }

func (c copied) mark() mark {
	last := c.pasts[len(c.pasts)-1]
	return mark{last.Number, last.Random, slices.Clone(c.at)}
}

// TestOldDiskIsFound: whatever is done to a disk that was put back, how often it is started and how much is written to it, any mark
// of the newer one that says more than the copy had is found to do so, and no other one.
func TestOldDiskIsFound(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		var random uint32
		host := copied{at: []point{{1, 0}, {2, 0}, {3, 0}}}
		start := func() {
			random++
			host.pasts = nextPast(host.pasts, random, slices.Clone(host.at))
			host.at[2].Commits++ // the start itself is written down
		}
		work := func(name string) (told []mark) {
			for range rapid.IntRange(0, 8).Draw(t, name) {
				if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
					start()
				} else {
					host.at[rapid.IntRange(0, 2).Draw(t, "store")].Commits++
				}
				told = append(told, host.mark())
			}
			return told
		}
		start()
		before := work("before the copy")
		backup := host.copy()
		lost := work("after the copy")
		host = backup.copy()
		start()
		since := work("since it was put back")
		for _, m := range slices.Concat(before, since) {
			if missing, older := lag(host.pasts, host.at, m); older {
				t.Fatalf("the disk is said to be older than %+v, which is its own: %v", m, missing)
			}
		}
		for _, m := range lost {
			missing, older := lag(host.pasts, host.at, m)
			more := m.number > backup.mark().number || slices.ContainsFunc(ahead(m.at, backup.at), func(n uint64) bool { return n > 0 })
			if older != more {
				t.Fatalf("%+v of the newer disk: older %v, missing %v; the copy was at %+v", m, older, missing, backup.mark())
			}
			if older {
				found++
				if !slices.ContainsFunc(missing, func(n uint64) bool { return n > 0 }) && len(since) == 0 {
					t.Fatalf("%+v of the newer disk: nothing is missing", m)
				}
			}
		}
		// When that was dealt with, it is over.
		for _, m := range lost {
			if _, older := lag(host.pasts, host.at, m); older {
				random++
				host.pasts = pastBeyond(host.pasts, m, random, slices.Clone(host.at))
				if _, again := lag(host.pasts, host.at, m); again {
					t.Fatalf("%+v is found again", m)
				}
			}
		}
	})
	if found < 100 {
		t.Errorf("an older disk was found %d times", found)
	}
}

func TestStoreBegunAnewIsNoOldDisk(t *testing.T) {
	pasts := nextPast(nil, 1, []point{{1, 0}, {2, 0}})
	m := mark{1, 1, []point{{1, 50}, {2, 40}}}
	now := []point{{9, 3}, {2, 40}} // the first store was damaged
	pasts = nextPast(pasts, 2, now)
	if missing, older := lag(pasts, now, m); older {
		t.Errorf("%v are missing", missing)
	}
	if _, older := lag(pasts, now, mark{1, 1, []point{{1, 50}, {2, 41}}}); !older {
		t.Error("that the other one is older is not found")
	}
}

func TestOnlyManyStartsAgoIsForgotten(t *testing.T) {
	var pasts []past
	for range 3 * maxPasts {
		pasts = nextPast(pasts, 7, []point{{1, 5}})
	}
	if len(pasts) != maxPasts {
		t.Fatalf("%d starts are remembered", len(pasts))
	}
	now := []point{{1, 5}}
	if _, older := lag(pasts, now, mark{2 * maxPasts, 7, []point{{1, 6}}}); older {
		t.Error("a start that is not remembered is judged")
	}
	if _, older := lag(pasts, now, mark{2*maxPasts + 1, 8, now}); !older {
		t.Error("another start with the number of the oldest is not found")
	}
	if _, older := lag(nil, now, mark{1, 1, now}); older {
		t.Error("without a start there is nothing to compare")
	}
}

// TestMarks: only a node itself can make its marks, and only newer ones are remembered.
func TestMarks(t *testing.T) {
	key, other := []byte("the key of a node, 32 bytes long."), []byte("another one")
	raw := mark{7, 0xffffffff, []point{{0xffffffff, 1 << 40}, {2, 3}, {4, 5}}}.encode(key)
	if len(raw) > 60 {
		t.Errorf("a mark has %d bytes", len(raw))
	}
	if m, err := openMark(key, raw); err != nil || m.number != 7 || m.random != 0xffffffff || !slices.Equal(m.at, []point{{0xffffffff, 1 << 40}, {2, 3}, {4, 5}}) {
		t.Errorf("%+v, %v", m, err)
	}
	for i := range raw {
		forged := slices.Clone(raw)
		forged[i] ^= 1
		if _, err := openMark(key, forged); err == nil {
			t.Errorf("byte %d may be changed", i)
		}
	}
	for _, bad := range [][]byte{nil, raw[:8], raw[:len(raw)-1], make([]byte, maxMark+1)} {
		if _, err := openMark(key, bad); err == nil {
			t.Errorf("%x is a mark", bad)
		}
		var r recall
		if r.take("a", bad); r.of("a") != nil && !slices.Equal(bad, raw[:len(raw)-1]) {
			t.Errorf("%x is remembered", bad)
		}
	}
	if _, err := openMark(other, raw); err == nil {
		t.Error("another node's key opens it")
	}
	var r recall
	of := func(number, commits uint64) []byte { return mark{number, 1, []point{{1, commits}}}.encode(key) }
	for _, step := range []struct{ number, commits, wantNumber, wantCommits uint64 }{
		{2, 5, 2, 5}, {2, 4, 2, 5}, {1, 9, 2, 5}, {2, 6, 2, 6}, {3, 1, 3, 1}, {2, 7, 3, 1},
	} {
		r.take("a", of(step.number, step.commits))
		if want := of(step.wantNumber, step.wantCommits); !slices.Equal(r.of("a"), want) {
			t.Errorf("after %d/%d: %x, want %x", step.number, step.commits, r.of("a"), want)
		}
	}
	if !r.unsaved() || len(r.save()) != 1 || r.unsaved() {
		t.Error("what is new is not to be saved, or more than once")
	}
	if r.forget("a"); r.of("a") != nil || !r.unsaved() {
		t.Error("a forgotten node is remembered")
	}
}

func TestMissingText(t *testing.T) {
	stores := []Reached{{Name: "state"}, {Name: "leases"}, {Name: "raft"}}
	if s := missingText(stores, []uint64{0, 12, 30}); !strings.HasSuffix(s, ": 12 of leases, 30 of raft") {
		t.Error(s)
	}
	if s := missingText(stores, []uint64{0, 0, 0}); !strings.Contains(s, "not known how many") {
		t.Error(s)
	}
}
