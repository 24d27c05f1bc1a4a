package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// naive is what a tree should do, said as plainly as possible: every write and deletion ever made, by key.
type naive struct {
	facts   map[string]Fact
	changes map[string]uint64 // key -> index of its last write or deletion
	deleted uint64            // index of the last deletion
}

func (m naive) below(path string) []string {
	var all []string
	for key := range m.changes {
		if path == "" || key == path || strings.HasPrefix(key, path+"/") {
			all = append(all, key)
		}
	}
	return all
}

func (m naive) changed(path string) (last uint64) {
	for _, key := range m.below(path) {
		last = max(last, m.changes[key])
	}
	return last
}

func (m *naive) write(index uint64, txn Txn) {
	for _, op := range txn.Then {
		_, there := m.facts[op.Key]
		switch {
		case op.Value != nil:
			m.facts[op.Key] = Fact{Key: op.Key, Value: op.Value, Index: index}
			m.changes[op.Key] = index
		case there:
			delete(m.facts, op.Key)
			m.changes[op.Key], m.deleted = index, index
		}
	}
}

func genKey(t *rapid.T) string {
	parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a-", "aa", "0"}), 1, 3).Draw(t, "path")
	return strings.Join(parts, "/")
}

func genTxn(t *rapid.T, last uint64) Txn {
	var txn Txn
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		index := uint64(rapid.IntRange(max(0, int(last)-4), int(last)).Draw(t, "since"))
		key := genKey(t)
		if rapid.IntRange(0, 20).Draw(t, "root") == 0 {
			key = ""
		}
		txn.If = append(txn.If, Cond{Key: key, Index: index})
	}
	for range rapid.IntRange(1, 3).Draw(t, "writes") {
		op := Op{Key: genKey(t)}
		if rapid.Bool().Draw(t, "write") {
			op.Value = []byte(rapid.StringN(0, 2, 8).Draw(t, "value"))
		}
		txn.Then = append(txn.Then, op)
	}
	return txn
}

// A tree has the facts that the model has, never lets a transaction through that the model refuses, and refuses more than
// the model only where a deletion is known by its parents alone. Old versions do not change.
func TestTreeAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := &naive{facts: map[string]Fact{}, changes: map[string]uint64{}}
		var now *tree
		type old struct {
			tree  *tree
			facts []Fact
		}
		var versions []old
		for i := range rapid.IntRange(1, 40).Draw(t, "entries") {
			index := uint64(i + 2)
			txn := genTxn(t, now.index())
			before := now
			next, conflict, ok := now.apply(index, txn)
			if allowed := model.allows(txn); ok && !allowed {
				t.Fatalf("entry %d %+v: applied against a condition", index, txn)
			} else if !ok && allowed && !model.excused(conflict, txn) {
				t.Fatalf("entry %d %+v: refused because of %q, which has not changed, nor has anything beside it been deleted", index, txn, conflict)
			}
			if ok {
				model.write(index, txn)
			}
			now = next
			checkTree(t, now, model)
			versions = append(versions, old{before, slices.Collect(View{before}.Prefix(""))})
		}
		for _, v := range versions {
			if got := slices.Collect((View{v.tree}).Prefix("")); fmt.Sprint(got) != fmt.Sprint(v.facts) {
				t.Fatalf("an old version has changed from %v to %v", v.facts, got)
			}
		}
	})
}

func (m naive) allows(txn Txn) bool {
	for _, c := range txn.If {
		if m.changed(c.Key) > c.Index {
			return false
		}
	}
	return true
}

// excused: nothing is at the key or below it now, and something that is not there any more was deleted since.
func (m naive) excused(key string, txn Txn) bool {
	for there := range m.facts {
		if key == "" || there == key || strings.HasPrefix(there, key+"/") {
			return false
		}
	}
	return slices.ContainsFunc(txn.If, func(c Cond) bool { return c.Key == key && m.deleted > c.Index })
}

func checkTree(t *rapid.T, now *tree, model *naive) {
	var want []Fact
	for _, f := range model.facts {
		want = append(want, f)
	}
	slices.SortFunc(want, func(a, b Fact) int { return strings.Compare(a.Key, b.Key) })
	if got := slices.Collect(View{now}.Prefix("")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("facts %v, want %v", got, want)
	}
	prefix := genKey(t)
	if rapid.Bool().Draw(t, "within") {
		prefix += "/"
	}
	var below []Fact
	for _, f := range want {
		if strings.HasPrefix(f.Key, prefix) {
			below = append(below, f)
		}
		if got, ok := (View{now}).Get(f.Key); !ok || fmt.Sprint(got) != fmt.Sprint(f) {
			t.Fatalf("get %s: %v, want %v", f.Key, got, f)
		}
	}
	if got := slices.Collect(View{now}.Prefix(prefix)); fmt.Sprint(got) != fmt.Sprint(below) {
		t.Fatalf("prefix %q: %v, want %v", prefix, got, below)
	}
	now.marks.walk("", func(f Fact) bool {
		if f.Key != "" && !now.alive(f.Key) {
			t.Fatalf("a mark is kept at %q, where nothing lives", f.Key)
		}
		return true
	})
}

// What is deleted is remembered: a claim that was made and given up in between is not taken for untouched.
func TestConditionSeesDeletion(t *testing.T) {
	var now *tree
	write := func(index uint64, ops ...Op) {
		t.Helper()
		next, conflict, ok := now.apply(index, Txn{Then: ops})
		if !ok {
			t.Fatalf("entry %d: conflict at %q", index, conflict)
		}
		now = next
	}
	value := []byte("x")
	write(10, Op{"block/n/1", value}, Op{"block/m/1", value})
	write(11, Op{"block/n/1", nil})
	write(12, Op{"block/n/2", value})
	write(13, Op{"block/n/2", nil})
	for _, c := range []struct {
		cond Cond
		want bool
	}{
		{Cond{"block/n/1", 10}, false},
		{Cond{"block/n", 12}, false},
		{Cond{"block/n/1", 13}, true},
		{Cond{"block/m", 10}, true},
		{Cond{"block", 12}, false},
		{Cond{"", 12}, false},
		{Cond{"", 13}, true},
		{Cond{"other", 13}, true},
	} {
		if _, _, ok := now.apply(14, Txn{If: []Cond{c.cond}}); ok != c.want {
			t.Errorf("%+v holds: %v, want %v", c.cond, ok, c.want)
		}
	}
}

func TestTreeStaysFlat(t *testing.T) {
	var root *treap
	const keys = 1 << 14
	for i := range keys {
		root = root.put(Fact{Key: fmt.Sprintf("block/net/10.%d.%d.0", i>>8, i&255), Index: uint64(i + 1)})
	}
	var depth func(*treap) int
	depth = func(n *treap) int {
		if n == nil {
			return 0
		}
		return 1 + max(depth(n.left), depth(n.right))
	}
	// 2^14 keys have an expected depth of 2 ln(2^14) = 19 on average and about twice that at the deepest.
	if d := depth(root); d > 60 {
		t.Errorf("depth %d for %d keys that count up", d, keys)
	}
}
