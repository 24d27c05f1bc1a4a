package cluster

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestHintQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newHintQueue("self")
		sends := rapid.IntRange(1, 6).Draw(t, "sends")
		newest := map[rowKey]version{}
		left := map[rowKey]int{}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				h := hint{rowKey{"blue", rapid.StringMatching("[a-h]{1,30}").Draw(t, "origin")}, version{1, rapid.Uint64Range(1, 9).Draw(t, "seq")}}
				q.add(h)
				if left[h.rowKey] == 0 || h.newer(newest[h.rowKey]) {
					newest[h.rowKey], left[h.rowKey] = h.version, sends
				}
			},
			"take": func(t *rapid.T) {
				size := rapid.IntRange(1, 120).Draw(t, "size")
				message := q.take(size, sends)
				if message == nil {
					return
				}
				if len(message) > size {
					t.Fatalf("%d bytes where %d fit", len(message), size)
				}
				hints, err := decodeHints(message)
				if err != nil || len(hints) == 0 {
					t.Fatalf("%x: %v", message, err)
				}
				for _, h := range hints {
					if h.version != newest[h.rowKey] || left[h.rowKey] == 0 {
						t.Fatalf("%v was sent, the newest is %v with %d to go", h, newest[h.rowKey], left[h.rowKey])
					}
					left[h.rowKey]--
				}
			},
		})
		for q.take(2000, sends) != nil {
			for key := range left {
				left[key] = max(0, left[key]-1)
			}
		}
		if len(q.hints) != 0 {
			t.Fatalf("%d hints are never sent", len(q.hints))
		}
		for key, n := range left {
			if n != 0 {
				t.Fatalf("%v was sent %d times too seldom", key, n)
			}
		}
	})
}

func TestHintQueueFreshFirst(t *testing.T) {
	q := newHintQueue("self")
	h := func(name string, seq uint64) hint { return hint{rowKey{"blue", name}, version{1, seq}} }
	q.add(h("old1", 1))
	q.add(h("old2", 1))
	q.take(1000, 9)
	q.add(h("fresh", 1))
	q.add(h("old2", 2))
	one := len(q.take(22, 9)) // room for one
	got, err := decodeHints(q.take(22, 9))
	if err != nil || len(got) != 1 || got[0] != h("old2", 2) || one == 0 {
		t.Fatalf("second is %v, %v", got, err)
	}
}

// A host that changes many networks at once says one thing, which stands for all of them.
func TestHintQueueSumsUp(t *testing.T) {
	q := newHintQueue("self")
	q.add(hint{rowKey{"blue", "other"}, version{1, 1}})
	for i := range uint64(maxOwnHints) {
		q.add(hint{rowKey{fmt.Sprint("net", i), "self"}, version{7, 1000 - i}})
	}
	if len(q.hints) != 1+maxOwnHints || q.own != maxOwnHints {
		t.Fatalf("%d hints, %d of our own", len(q.hints), q.own)
	}
	q.take(100, 9)
	q.add(hint{rowKey{"one more", "self"}, version{7, 5}})
	all := hint{rowKey{everyNetwork, "self"}, version{7, 1000}}
	if item := q.hints[all.rowKey]; len(q.hints) != 2 || q.own != 1 || item == nil || item.hint != all {
		t.Fatalf("%d hints, %d of our own, %v", len(q.hints), q.own, item)
	}
	q.add(hint{rowKey{"net1", "self"}, version{7, 1001}})
	got, err := decodeHints(q.take(1000, 1))
	if want := (hint{rowKey{"net1", "self"}, version{7, 1001}}); err != nil || !slices.Contains(got, all) || !slices.Contains(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
}

// Nobody is there to hear, and everybody talks at once: the queue stays as small as it is.
func TestHintQueueIsBounded(t *testing.T) {
	q := newHintQueue("self")
	for i := range uint64(100_000) {
		q.add(hint{rowKey{"blue", "self"}, version{1, i + 1}})
	}
	if len(q.levels[0]) != 1 || q.hints[rowKey{"blue", "self"}].seq != 100_000 {
		t.Errorf("100000 changes of a row are %d hints", len(q.levels[0]))
	}
	often := hint{rowKey{"blue", "often"}, version{1, 1}}
	q.add(often)
	q.take(1000, 9)
	for i := range 2 * maxHints {
		q.add(hint{rowKey{"blue", fmt.Sprint(i)}, version{1, 1}})
	}
	if len(q.hints) != maxHints || q.hints[often.rowKey] != nil {
		t.Errorf("%d hints, want %d; the one that was sent most: %v", len(q.hints), maxHints, q.hints[often.rowKey])
	}
	sent := 0
	for message := q.take(1400, 3); message != nil; message = q.take(1400, 3) {
		hints, err := decodeHints(message)
		if err != nil {
			t.Fatal(err)
		}
		sent += len(hints)
	}
	if sent < 3*maxHints-2 || sent > 3*maxHints || !q.empty() {
		t.Errorf("%d sent, %d left", sent, len(q.hints))
	}
}

// A hint that is still on its way is not new again while others come by the thousand.
func TestPassedOnce(t *testing.T) {
	var p passed
	key := func(i int) rowKey { return rowKey{"blue", fmt.Sprint(i)} }
	for i := range maxSeen {
		if !p.see(key(i), version{1, 1}) {
			t.Fatalf("%d is not new", i)
		}
	}
	for i := range maxSeen {
		p.see(key(maxSeen+i), version{1, 1})
		if p.see(key(i+1), version{1, 1}) && i+1 < maxSeen {
			t.Fatalf("%d is new again after %d others", i+1, maxSeen)
		}
	}
	if !p.see(key(5), version{1, 2}) || p.see(key(5), version{1, 1}) {
		t.Error("versions are not told apart")
	}
	for i := range 3 * maxSeen {
		p.see(key(i), version{2, 1})
	}
	if got := len(p.now) + len(p.before); got > 2*maxSeen {
		t.Errorf("%d are remembered", got)
	}
}
