package cluster

import (
	"errors"
	"fmt"
	"iter"
)

// Errors of Propose. They are wrapped with what was being done.
var (
	// ErrConflict: a condition of the transaction did not hold. Nothing was written.
	ErrConflict = errors.New("the cluster's facts have changed meanwhile")
	// ErrNoQuorum: no majority of the voters could be reached in time. The transaction may or may not be written later.
	ErrNoQuorum = errors.New("no quorum")
)

// View is one version of the facts: an immutable copy of what raft has committed and this node has applied. The zero
// View is empty.
type View struct {
	tree *tree // immutable
}

// Fact is one key with its value and the index of the log entry that wrote it last.
type Fact struct {
	Key   string
	Value []byte // not to be changed
	Index uint64
}

// Index is that of the newest log entry in the view.
func (v View) Index() uint64 { return v.tree.index() }

// Get returns the fact of a key.
func (v View) Get(key string) (Fact, bool) { return v.tree.get(key) }

// Prefix yields the facts whose keys begin with prefix, in the order of their keys.
func (v View) Prefix(prefix string) iter.Seq[Fact] { return v.tree.prefix(prefix) }

// Changed is the index of the log entry that wrote or deleted something at key or below it last, or a larger one.
func (v View) Changed(key string) uint64 {
	if v.tree == nil {
		return 0
	}
	return v.tree.changed(key)
}

// Apply returns the view after txn, as the log entry after the newest in v; or v as it was and ErrConflict.
func (v View) Apply(txn Txn) (View, error) {
	next, key, ok := v.tree.apply(v.Index()+1, txn)
	if !ok {
		return v, fmt.Errorf("%s: %w", key, ErrConflict)
	}
	return View{next}, nil
}

// Txn is a set of writes that happen together, or not at all when a condition does not hold. All policy is in those who
// make transactions out of a View; the state machine behind raft only compares and writes, so that nodes of different
// versions cannot come to different results.
type Txn struct {
	If   []Cond `json:"if,omitempty"`
	Then []Op   `json:"then"`
}

// Cond holds if nothing at Key or below it ("network/ab12" is below "network") was written or deleted after the log
// entry with the given Index. Of what was deleted only the parents are remembered, so a condition may fail although
// it holds; the caller reads again and retries, as it does after any conflict.
type Cond struct {
	Key   string `json:"key"`
	Index uint64 `json:"index"`
}

// Op writes Value to Key, or deletes Key when Value is nil.
type Op struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}
