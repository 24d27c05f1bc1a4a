package cluster

import (
	"hash/fnv"
	"iter"
	"strings"
)

// tree is one immutable version of the facts. What changes it returns another that shares most of it.
type tree struct {
	last  uint64 // index of the newest log entry
	facts *treap
	// marks remember deletions for conditions: the index of the last one below a path, kept as long as something lives at the
	// path or below it, and for the root ("") for ever. Deleting the last fact of a path moves its mark to the parents.
	marks *treap

	memo *memo
}

// treap is a persistent search tree, balanced by a hash of the keys: its shape depends on its content alone.
type treap struct {
	fact        Fact
	prio        uint64
	left, right *treap
	newest      uint64 // the largest index in this subtree
}

func (t *tree) index() uint64 {
	if t == nil {
		return 0
	}
	return t.last
}

func (t *tree) get(key string) (Fact, bool) {
	if t == nil {
		return Fact{}, false
	}
	return t.facts.get(key)
}

func (t *tree) prefix(prefix string) iter.Seq[Fact] {
	return func(yield func(Fact) bool) {
		if t != nil {
			t.facts.walk(prefix, yield)
		}
	}
}

// at is the tree after the log entry of that index, which wrote nothing yet.
func (t *tree) at(index uint64) *tree {
	if t == nil {
		t = &tree{memo: &memo{}}
	}
	next := *t
	next.last = index
	return &next
}

// apply returns the tree after the writes of txn at index, or the key whose condition does not hold.
func (t *tree) apply(index uint64, txn Txn) (next *tree, conflict string, ok bool) {
	next = t.at(index)
	for _, c := range txn.If {
		if next.changed(c.Key) > c.Index {
			return next, c.Key, false
		}
	}
	next.memo = next.memo.without(txn.Then)
	for _, op := range txn.Then {
		if op.Value == nil {
			next.remove(op.Key)
		} else {
			next.facts = next.facts.put(Fact{Key: op.Key, Value: op.Value, Index: index})
		}
	}
	return next, "", true
}

// remove changes t, which must not be shared yet.
func (t *tree) remove(key string) {
	if _, ok := t.facts.get(key); !ok {
		return
	}
	t.facts = t.facts.del(key)
	for _, path := range ancestors(key) {
		if path == "" || t.alive(path) {
			t.marks = t.marks.put(Fact{Key: path, Index: t.last})
		} else {
			t.marks = t.marks.del(path)
		}
	}
}

// changed is the index of the last write or deletion at key or below it, or a larger one if that is not known exactly.
func (t *tree) changed(key string) uint64 {
	last := t.facts.newestBelow(key)
	if t.alive(key) {
		mark, _ := t.marks.get(key)
		return max(last, mark.Index)
	}
	for _, path := range ancestors(key) {
		mark, _ := t.marks.get(path)
		last = max(last, mark.Index)
	}
	return last
}

// alive tells whether there is a fact at path or below it.
func (t *tree) alive(path string) bool { return t.facts.newestBelow(path) > 0 }

// ancestors of "a/b/c" are "a/b/c", "a/b", "a" and "": a fact is among what is at its own path.
func ancestors(key string) []string {
	all := []string{key}
	for key != "" {
		key = parent(key)
		all = append(all, key)
	}
	return all
}

// parent is the path above one; "" is above all.
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

func (n *treap) get(key string) (Fact, bool) {
	for n != nil {
		switch {
		case key == n.fact.Key:
			return n.fact, true
		case key < n.fact.Key:
			n = n.left
		default:
			n = n.right
		}
	}
	return Fact{}, false
}

// walk yields what begins with prefix, in order, and tells whether to go on.
func (n *treap) walk(prefix string, yield func(Fact) bool) bool {
	if n == nil {
		return true
	}
	within := strings.HasPrefix(n.fact.Key, prefix)
	if n.fact.Key >= prefix && !n.left.walk(prefix, yield) {
		return false
	}
	if within && !yield(n.fact) {
		return false
	}
	if n.fact.Key <= prefix || within {
		return n.right.walk(prefix, yield)
	}
	return true
}

// newestBelow is the largest index at path or below it. The root "" is above everything.
func (n *treap) newestBelow(path string) uint64 {
	if path == "" {
		return n.max()
	}
	self, _ := n.get(path)
	// '0' is the byte after '/': everything below path lies between the two.
	return max(self.Index, n.newestBetween(path+"/", path+"0"))
}

// newestBetween is the largest index of the keys from lo up to but not including hi; "" for either leaves that side open.
func (n *treap) newestBetween(lo, hi string) uint64 {
	switch {
	case n == nil:
		return 0
	case lo == "" && hi == "":
		return n.newest
	case lo != "" && n.fact.Key < lo:
		return n.right.newestBetween(lo, hi)
	case hi != "" && n.fact.Key >= hi:
		return n.left.newestBetween(lo, hi)
	}
	return max(n.fact.Index, n.left.newestBetween(lo, ""), n.right.newestBetween("", hi))
}

func (n *treap) max() uint64 {
	if n == nil {
		return 0
	}
	return n.newest
}

func (n *treap) with(left, right *treap) *treap {
	return &treap{
		fact: n.fact, prio: n.prio, left: left, right: right,
		newest: max(n.fact.Index, left.max(), right.max()),
	}
}

func (n *treap) put(f Fact) *treap {
	if _, ok := n.get(f.Key); ok {
		return n.replace(f)
	}
	return n.insert(&treap{fact: f, prio: priority(f.Key), newest: f.Index})
}

// priority is FNV-1a, whose high bits hardly see the last characters of a key, with the finalizer of MurmurHash3, so that
// keys that count up do not make a list.
func priority(key string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key)) // never fails
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

func (n *treap) replace(f Fact) *treap {
	switch {
	case f.Key < n.fact.Key:
		return n.with(n.left.replace(f), n.right)
	case f.Key > n.fact.Key:
		return n.with(n.left, n.right.replace(f))
	}
	other := *n
	other.fact = f
	return other.with(n.left, n.right)
}

func (n *treap) insert(leaf *treap) *treap {
	switch {
	case n == nil:
		return leaf
	case leaf.prio > n.prio:
		left, right := n.split(leaf.fact.Key)
		return leaf.with(left, right)
	case leaf.fact.Key < n.fact.Key:
		return n.with(n.left.insert(leaf), n.right)
	}
	return n.with(n.left, n.right.insert(leaf))
}

// split divides into what is before key and what is after it; key itself is not there.
func (n *treap) split(key string) (left, right *treap) {
	if n == nil {
		return nil, nil
	}
	if n.fact.Key < key {
		l, r := n.right.split(key)
		return n.with(n.left, l), r
	}
	l, r := n.left.split(key)
	return l, n.with(r, n.right)
}

func (n *treap) del(key string) *treap {
	switch {
	case n == nil:
		return nil
	case key < n.fact.Key:
		return n.with(n.left.del(key), n.right)
	case key > n.fact.Key:
		return n.with(n.left, n.right.del(key))
	}
	return join(n.left, n.right)
}

// join puts two together of which all of the left is before all of the right.
func join(left, right *treap) *treap {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.prio > right.prio:
		return left.with(left.left, join(left.right, right))
	}
	return right.with(join(left, right.left), right.right)
}
