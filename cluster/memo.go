package cluster

import (
	"maps"
	"sync"
)

// memo is what was made of the facts below some paths, for one version of the facts. The next version begins with what still
// holds: what many ask of each version is made once for each change.
type memo struct {
	mu sync.Mutex
	of map[string]any // by path
}

// memoized returns what build makes of the facts below path, and of nothing else, without being memoized in parts. It is shared:
// nobody may change it.
func memoized[T any](v View, path string, build func() T) T {
	if v.tree == nil {
		return build()
	}
	m := v.tree.memo
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.of[path].(T); ok {
		return have
	}
	made := build()
	if m.of == nil {
		m.of = map[string]any{}
	}
	m.of[path] = made
	return made
}

// without is the memo of a version that differs in those keys.
func (m *memo) without(ops []Op) *memo {
	m.mu.Lock()
	next := &memo{of: maps.Clone(m.of)}
	m.mu.Unlock()
	for _, op := range ops {
		for path := op.Key; path != ""; path = parent(path) {
			delete(next.of, path)
		}
	}
	return next
}
