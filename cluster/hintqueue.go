package cluster

import "math/bits"

// hintQueue holds the hints that are still to be gossiped: one per network and origin, the newer in the place of the
// older. The least often sent go first. It does nothing by itself.
type hintQueue struct {
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

func newHintQueue() *hintQueue { return &hintQueue{hints: map[rowKey]*queuedHint{}} }

// add queues a hint unless one that is at least as new is queued.
func (q *hintQueue) add(h hint) {
	if old := q.hints[h.rowKey]; old != nil && !h.newer(old.version) {
		return
	}
	item := &queuedHint{hint: h}
	q.hints[h.rowKey] = item
	q.push(item)
}

func (q *hintQueue) push(item *queuedHint) {
	for len(q.levels) <= item.sent {
		q.levels = append(q.levels, nil)
	}
	q.levels[item.sent] = append(q.levels[item.sent], item)
}

// take fills one message of at most size bytes; nil if there is nothing to say. A hint that was sent often enough is
// dropped.
func (q *hintQueue) take(size, sends int) []byte {
	e := encoder{hintsVersion}
	var taken []*queuedHint
	for level := range q.levels {
		for len(q.levels[level]) > 0 {
			item := q.levels[level][0]
			if q.hints[item.rowKey] == item && item.sent == level {
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
			delete(q.hints, item.rowKey)
			continue
		}
		q.push(item)
	}
	return message
}
