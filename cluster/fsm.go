package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// entryVersion is the version of the log's entries, of what a Txn means, and of snapshots.
const entryVersion = 1

// rememberedRequests is how many request ids have their result remembered. A repeated request comes within seconds, at a
// few a minute; a hundred nodes with ten requests each in flight are a quarter of it.
const rememberedRequests = 4096

// entry is one command in the log. ID is the request's: the same one again has the result of the first.
type entry struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
	Txn     Txn    `json:"txn"`
}

// result of an entry.
type result struct {
	Index    uint64 `json:"index"`
	Conflict string `json:"conflict,omitempty"` // the key whose condition did not hold
	Failed   bool   `json:"failed,omitempty"`   // a condition did not hold: nothing was written
}

// haltedError: the state machine met an entry that it does not understand.
type haltedError struct{ why string }

func (e haltedError) Error() string { return e.why }

// fsm is the state machine behind the log. It is only written to by raft's one goroutine for that, and while it is
// loaded. An entry that it does not understand stops it: to skip what others apply would make this copy another. The
// view stays as it is, snapshots are no longer made, and a restart comes to the same entry again.
type fsm struct {
	// save is called with the index of the newest decided entry before it can be seen, so that after a restart this node
	// sees at least what it has seen before, also when there is nobody to ask. nil: not wanted.
	save func(index uint64)
	// changed is called after each change of the view or the halt. nil: not wanted.
	changed func()
	// whole says whether a view is one to go by, while none has been: a node that begins with an empty log comes to one entry after
	// the other, and what the next ones say is not there yet. nil: every view is.
	whole func(View) bool

	mu     sync.Mutex
	tree   atomic.Pointer[tree]
	open   atomic.Bool // whole was true once, and views are seen
	seen   map[string]result
	order  []string // of seen, oldest first; a ring once it is full
	oldest int
	halt   string        // why it has stopped; empty: it has not
	moved  chan struct{} // closed at the next change
}

func newFSM() *fsm {
	return &fsm{seen: map[string]result{}, moved: make(chan struct{})}
}

func (f *fsm) view() View {
	if f.whole != nil && !f.open.Load() {
		return View{}
	}
	return View{tree: f.tree.Load()}
}

// uncover lets views be seen from now on, if they are whole.
func (f *fsm) uncover() {
	if f.whole != nil && !f.open.Load() && f.whole(View{tree: f.tree.Load()}) {
		f.open.Store(true)
	}
}

// halted says why the state machine has stopped, or nothing.
func (f *fsm) halted() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.halt
}

// next is closed when the view is another or the state machine has stopped.
func (f *fsm) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

// Apply is of raft.FSM.
func (f *fsm) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch is of raft.BatchingFSM. The answers are a result or a haltedError each.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	f.mu.Lock()
	now := f.tree.Load()
	before := now
	for i, log := range logs {
		if log.Type == raft.LogCommand {
			now, answers[i] = f.apply(now, log.Index, log.Data)
		}
	}
	f.publish(before, now)
	f.mu.Unlock()
	if f.changed != nil {
		f.changed()
	}
	return answers
}

// publish makes the tree seen.
func (f *fsm) publish(before, now *tree) {
	if now != before && f.save != nil {
		f.save(now.index())
	}
	f.tree.Store(now)
	f.uncover()
	close(f.moved)
	f.moved = make(chan struct{})
}

// apply is one entry. One that was applied before the last restart comes again without anybody waiting for its result.
func (f *fsm) apply(now *tree, index uint64, data []byte) (*tree, any) {
	if f.halt != "" {
		return now, haltedError{f.halt}
	}
	if index <= now.index() {
		return now, result{Index: index}
	}
	e, err := decodeEntry(data)
	if err != nil {
		if f.save != nil {
			f.save(index) // it is decided: the next start comes to it without being told
		}
		f.halt = fmt.Sprintf("this node does not understand entry %d of the cluster's log and keeps to the facts before it: %v; install the version that the other nodes have", index, err)
		return now, haltedError{f.halt}
	}
	if first, ok := f.seen[e.ID]; ok {
		return now.at(index), first
	}
	next, conflict, ok := now.apply(index, e.Txn)
	r := result{Index: index, Conflict: conflict, Failed: !ok}
	f.remember(e.ID, r)
	return next, r
}

func (f *fsm) remember(id string, r result) {
	f.seen[id] = r
	if len(f.order) < rememberedRequests {
		f.order = append(f.order, id)
		return
	}
	delete(f.seen, f.order[f.oldest])
	f.order[f.oldest] = id
	f.oldest = (f.oldest + 1) % rememberedRequests
}

func encodeEntry(e entry) ([]byte, error) {
	e.Version = entryVersion
	return json.Marshal(e)
}

// decodeEntry refuses whatever it does not know, also a field: it may be a condition.
func decodeEntry(data []byte) (entry, error) {
	var version struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return entry{}, err
	}
	if version.Version != entryVersion {
		return entry{}, fmt.Errorf("format version %d, this node knows %d", version.Version, entryVersion)
	}
	var e entry
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return entry{}, err
	}
	return e, nil
}
