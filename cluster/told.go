package cluster

import (
	"sync"
	"time"
)

const (
	// minTold is how long an answer is that is worth keeping, in bytes: encoding it takes a millisecond.
	minTold = 64 << 10
	// maxTold answers are kept: several networks may change at once, and what is dropped is made again.
	maxTold = 8
	// toldKept is for how long: a change reaches everybody, and everybody asks, within a second.
	toldKept = 3 * time.Second
)

// told keeps long answers for the others who ask the same, as all nodes do after a burst: a hundred of them are answered
// with the work for one.
type told struct {
	mu      sync.Mutex // held while an answer is made: those who wait for it mostly want the same
	answers map[want]keptAnswer
}

// keptAnswer is the difference between two versions of a row, in frames.
type keptAnswer struct {
	to      version
	encoded []byte
	made    time.Time
}

// answer returns what a node that wants a row is told, in frames that nobody may change.
func (g *gossip) answer(w want, now time.Time) []byte {
	g.told.mu.Lock()
	defer g.told.mu.Unlock()
	g.mu.Lock()
	if kept, ok := g.told.answers[w]; ok && g.table.attends(w.network) && kept.to == g.table.ownVersion(w.network) {
		g.mu.Unlock()
		return kept.encoded
	}
	d := g.table.since(w.network, w.have)
	g.mu.Unlock()
	a := keptAnswer{to: d.to, encoded: encodeDelta(d), made: now}
	if len(a.encoded) >= minTold {
		g.told.keep(w, a)
	}
	return a.encoded
}

// keep drops the oldest if there are too many. The caller holds mu.
func (t *told) keep(w want, a keptAnswer) {
	if t.answers == nil {
		t.answers = map[want]keptAnswer{}
	}
	t.answers[w] = a
	if len(t.answers) <= maxTold {
		return
	}
	oldest := w
	for other, b := range t.answers {
		if b.made.Before(t.answers[oldest].made) {
			oldest = other
		}
	}
	delete(t.answers, oldest)
}

// forget drops what was kept for long enough.
func (t *told) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w, a := range t.answers {
		if now.Sub(a.made) > toldKept {
			delete(t.answers, w)
		}
	}
}

// encodeDelta is a row and its changes.
func encodeDelta(d delta) []byte {
	frame := func(b []byte, kind frameKind, payload []byte) []byte {
		return append(appendHead(b, kind, len(payload)), payload...)
	}
	b := frame(nil, frameRow, encodeRow(d))
	var e encoder
	pack(&e, len(d.changes), func(e *encoder, i int) { e.change(d.changes[i]) }, func(payload []byte) error {
		b = frame(b, frameChanges, payload)
		return nil
	})
	return b
}
