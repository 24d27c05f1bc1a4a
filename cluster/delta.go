package cluster

import (
	"maps"
	"slices"
)

// deltaKind says how a delta is to be read.
type deltaKind uint8

const (
	deltaSame    deltaKind = iota + 1 // nothing has changed
	deltaAbsent                       // the origin does not attend the network
	deltaChanges                      // what has changed after a version of the same epoch
	deltaFull                         // everything
)

// delta is what an origin answers about one network.
type delta struct {
	network string
	kind    deltaKind
	from    uint64 // deltaChanges: the sequence after which changes begin
	to      version
	changes []change
}

// change sets a record, or deletes it when value is nil.
type change struct {
	key   string
	value []byte
}

// ownRow is what this node says about one network, and in which order it did.
type ownRow struct {
	seq     uint64 // of its newest change
	floor   uint64 // what was deleted up to here is not remembered any more
	records map[string]ownRecord
	live    int        // records that are not deleted
	bytes   int        // of their values
	log     []logEntry // by seq; one that is not the newest of its key is void
}

type ownRecord struct {
	value []byte // nil: deleted
	seq   uint64
}

type logEntry struct {
	seq uint64
	key string
}

// put tells whether it changed anything; only then seq is used up.
func (r *ownRow) put(key string, value []byte, seq uint64) bool {
	old, ok := r.records[key]
	switch {
	case value == nil && old.value == nil:
		return false
	case value != nil && old.value != nil && slices.Equal(old.value, value):
		return false
	case value == nil:
		r.live--
	case !ok || old.value == nil:
		r.live++
	}
	if value != nil {
		value = append(make([]byte, 0, len(value)), value...) // not nil, even if it is empty
	}
	r.bytes += len(value) - len(old.value)
	r.records[key] = ownRecord{value, seq}
	r.log = append(r.log, logEntry{seq, key})
	r.seq = seq
	r.compact()
	return true
}

func (r *ownRow) current(e logEntry) bool { return r.records[e.key].seq == e.seq }

// compact forgets the older half of the deletions when there are too many, and void entries when they are the most.
func (r *ownRow) compact() {
	if deleted := len(r.records) - r.live; deleted > minTombstones+r.live {
		r.forgetDeleted(deleted / 2)
	}
	if len(r.log) > 2*len(r.records)+minTombstones {
		r.log = slices.DeleteFunc(r.log, func(e logEntry) bool { return !r.current(e) })
	}
}

// forgetDeleted drops the oldest n deletions. Whoever has not heard of them gets the row whole.
func (r *ownRow) forgetDeleted(n int) {
	for i := 0; n > 0; i++ {
		if e := r.log[i]; r.current(e) && r.records[e.key].value == nil {
			delete(r.records, e.key)
			r.floor = e.seq
			n--
		}
	}
}

// since lists the changes after seq, oldest first. From 0, that is the whole row, without what was deleted.
func (r *ownRow) since(seq uint64) []change {
	first, _ := slices.BinarySearchFunc(r.log, seq+1, func(e logEntry, seq uint64) int {
		if e.seq < seq {
			return -1
		}
		return 1
	})
	var changes []change
	for _, e := range r.log[first:] {
		if rec := r.records[e.key]; r.current(e) && (seq > 0 || rec.value != nil) {
			changes = append(changes, change{e.key, rec.value})
		}
	}
	return changes
}

func (r *remoteRow) unshare() {
	if r.shared {
		r.records, r.shared = maps.Clone(r.records), false
	}
}

func (r *remoteRow) apply(changes []change) {
	for _, c := range changes {
		r.bytes += len(c.value) - len(r.records[c.key])
		if c.value == nil {
			delete(r.records, c.key)
		} else {
			r.records[c.key] = c.value
		}
	}
}
