package cluster

import (
	"maps"
	"slices"
	"sync"
)

// recall is what this node remembers of how far the disks of others have come, and to whom it may say how far its own has. Marks
// are not read where they are kept but to see which one is newer.
type recall struct {
	mu    sync.Mutex
	marks map[string][]byte // by node
	heard map[string]bool   // nodes that have said, in this run, what they remember of this one
	fresh bool              // something is newer than in the cache
}

// take remembers what a node has proved to be its own word, if it is newer.
func (r *recall) take(id string, raw []byte) {
	m, err := decodeMark(raw)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if had, err := decodeMark(r.marks[id]); err == nil && !m.after(had) {
		return
	}
	if r.marks == nil {
		r.marks = map[string][]byte{}
	}
	r.marks[id], r.fresh = slices.Clone(raw), true
}

// of is what is remembered of a node, nil if nothing is.
func (r *recall) of(id string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.marks[id]
}

// hears: a node has said what it remembers of this one, and it was not more than this one knows. Before, it is not told anything:
// an older disk must not make it forget what it knows of the newer one.
func (r *recall) hears(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		r.heard = map[string]bool{}
	}
	r.heard[id] = true
}

func (r *recall) mayHear(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard[id]
}

func (r *recall) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marks[id] != nil {
		delete(r.marks, id)
		r.fresh = true
	}
}

// save is for the cache.
func (r *recall) save() map[string][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fresh = false
	return maps.Clone(r.marks)
}

// unsaved tells whether the cache lacks something.
func (r *recall) unsaved() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fresh
}
