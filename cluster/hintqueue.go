package cluster

import "math/bits"

const (
	// everyNetwork stands in a hint where the name of a network does otherwise: the origin has changed more rows than it
	// names, all of them up to that version. No network is called so, see table.attend.
	everyNetwork = "*"
	// maxOwnHints at once: they fill a datagram. A host that starts with a thousand networks says one thing instead.
	maxOwnHints = 40
	// maxHints to be sent at once: a hundred nodes with a few times maxOwnHints each. What each of them is sent less often
	// then, digests make up for.
	maxHints = 1 << 14
)

// hintQueue holds the hints that are still to be gossiped: one per network and origin, the newer in the place of the
// older. The least often sent go first. It does nothing by itself.
type hintQueue struct {
	self   string
	own    int // hints whose origin is self
	hints  map[rowKey]*queuedHint
	levels [][]*queuedHint // by how often they were sent; those that were replaced or moved on are skipped
}

type queuedHint struct {
	hint
	sent int
}

// hintSends is how often each node passes a hint on: 4 log2(n). Rumours reach everybody with a number that grows with the
// logarithm (Demers et al. 1987); with 4 a node of 25 is missed once in 10^8 hints (it is sent 4 log2(26) = 18 copies), and
// once in 10^6 when a third of the datagrams is lost. Whoever is missed is found by comparing digests.
func hintSends(nodes int) int { return 4 * bits.Len(uint(nodes)) }

func newHintQueue(self string) *hintQueue {
	return &hintQueue{self: self, hints: map[rowKey]*queuedHint{}}
}

// add queues a hint unless one that is at least as new is queued. Too many of this node's own become one.
func (q *hintQueue) add(h hint) {
	old := q.hints[h.rowKey]
	switch {
	case old != nil && !h.newer(old.version):
		return
	case old != nil && old.sent == 0: // it keeps its place, however often it changes while nobody is there to hear of it
		old.hint = h
		return
	case old != nil:
		q.remove(old)
	case len(q.hints) >= maxHints:
		q.evict()
	}
	item := &queuedHint{hint: h}
	q.hints[h.rowKey] = item
	if h.origin == q.self {
		q.own++
	}
	q.push(item)
	if q.own > maxOwnHints {
		q.sum()
	}
}

func (q *hintQueue) empty() bool { return len(q.hints) == 0 }

func (q *hintQueue) push(item *queuedHint) {
	for len(q.levels) <= item.sent {
		q.levels = append(q.levels, nil)
	}
	q.levels[item.sent] = append(q.levels[item.sent], item)
}

func (q *hintQueue) remove(item *queuedHint) {
	delete(q.hints, item.rowKey)
	if item.origin == q.self {
		q.own--
	}
}

// evict drops one of those that were sent most often.
func (q *hintQueue) evict() {
	for level := len(q.levels) - 1; level >= 0; level-- {
		for items := q.levels[level]; len(items) > 0; items = q.levels[level] {
			last := items[len(items)-1]
			q.levels[level] = items[:len(items)-1]
			if q.queued(last, level) {
				q.remove(last)
				return
			}
		}
	}
}

// sum puts one hint in the place of all of this node's own.
func (q *hintQueue) sum() {
	all := hint{rowKey: rowKey{everyNetwork, q.self}}
	for key, item := range q.hints {
		if key.origin == q.self {
			if item.newer(all.version) {
				all.version = item.version
			}
			q.remove(item)
		}
	}
	q.add(all)
}

// queued tells whether an item that stands at a level is still to be sent from there.
func (q *hintQueue) queued(item *queuedHint, level int) bool {
	return q.hints[item.rowKey] == item && item.sent == level
}

// take fills one message of at most size bytes; nil if there is nothing to say. A hint that was sent often enough is
// dropped.
func (q *hintQueue) take(size, sends int) []byte {
	e := encoder{hintsVersion}
	var taken []*queuedHint
	for level := range q.levels {
		for len(q.levels[level]) > 0 {
			item := q.levels[level][0]
			if q.queued(item, level) {
				before := len(e)
				if e.hint(item.hint); len(e) > size {
					e = e[:before]
					return q.sent(e, taken, sends)
				}
				taken = append(taken, item)
			}
			q.levels[level] = q.levels[level][1:]
		}
		q.levels[level] = nil // and its memory
	}
	return q.sent(e, taken, sends)
}

// sent moves on what one message has taken, after it is full: no message says a thing twice.
func (q *hintQueue) sent(message encoder, taken []*queuedHint, sends int) []byte {
	if len(taken) == 0 {
		return nil
	}
	for _, item := range taken {
		if item.sent++; item.sent >= sends {
			q.remove(item)
			continue
		}
		q.push(item)
	}
	return message
}
