package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/raft"
)

// A snapshot is a stream of JSON values: the header, then as many facts, marks and remembered requests as it says.
// snapshotStore puts a checksum around it.
type snapshotHeader struct {
	Version int    `json:"v"`
	Last    uint64 `json:"last"`
	Facts   int    `json:"facts"`
	Marks   int    `json:"marks"`
	Seen    int    `json:"seen"`
}

type snapshotFact struct {
	Key   string `json:"k"`
	Index uint64 `json:"i"`
	Value []byte `json:"x,omitempty"`
}

type snapshotSeen struct {
	ID     string `json:"id"`
	Result result `json:"r"`
}

// frozen is the state at one moment.
type frozen struct {
	tree *tree
	seen []snapshotSeen // oldest first
}

// Snapshot is of raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.halt != "" {
		return nil, haltedError{f.halt} // a snapshot would let raft drop the entry that was not applied
	}
	s := frozen{tree: f.tree.Load(), seen: make([]snapshotSeen, 0, len(f.order))}
	for i := range f.order {
		id := f.order[(f.oldest+i)%len(f.order)]
		s.seen = append(s.seen, snapshotSeen{ID: id, Result: f.seen[id]})
	}
	return s, nil
}

// Persist is of raft.FSMSnapshot.
func (s frozen) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		return errors.Join(fmt.Errorf("snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release is of raft.FSMSnapshot.
func (s frozen) Release() {}

func (s frozen) write(w io.Writer) error {
	var facts, marks []Fact
	if s.tree != nil {
		facts = slices.Collect(s.tree.prefix(""))
		s.tree.marks.walk("", func(f Fact) bool { marks = append(marks, f); return true })
	}
	buffered := bufio.NewWriter(w)
	enc := json.NewEncoder(buffered)
	err := enc.Encode(snapshotHeader{
		Version: entryVersion, Last: s.tree.index(), Facts: len(facts), Marks: len(marks), Seen: len(s.seen),
	})
	for _, f := range append(facts, marks...) {
		err = errors.Join(err, enc.Encode(snapshotFact{Key: f.Key, Index: f.Index, Value: f.Value}))
	}
	for _, seen := range s.seen {
		err = errors.Join(err, enc.Encode(seen))
	}
	return errors.Join(err, buffered.Flush())
}

// Restore is of raft.FSM. A snapshot older than the facts that are here, which were read from the log before raft
// started, is no news. One of a version that we do not know stops the state machine rather than raft.
func (f *fsm) Restore(from io.ReadCloser) error {
	defer from.Close()
	t, seen, err := readSnapshot(from)
	var unknown haltedError
	if err != nil && !errors.As(err, &unknown) {
		return fmt.Errorf("snapshot: %w", err)
	}
	f.mu.Lock()
	before := f.tree.Load()
	switch {
	case err != nil:
		f.halt = unknown.why
		f.publish(before, before)
	case t.index() > before.index():
		f.seen, f.order, f.oldest, f.halt = map[string]result{}, nil, 0, ""
		for _, s := range seen {
			f.remember(s.ID, s.Result)
		}
		f.publish(before, t)
	}
	f.mu.Unlock()
	if f.changed != nil {
		f.changed()
	}
	return nil
}

func readSnapshot(r io.Reader) (*tree, []snapshotSeen, error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	var h snapshotHeader
	if err := dec.Decode(&h); err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	if h.Version != entryVersion {
		return nil, nil, haltedError{fmt.Sprintf("this node does not understand the cluster's snapshot and keeps to the facts before it: format version %d, this node knows %d; install the version that the other nodes have", h.Version, entryVersion)}
	}
	t := (*tree)(nil).at(h.Last)
	for i := range h.Facts + h.Marks {
		var f snapshotFact
		if err := dec.Decode(&f); err != nil {
			return nil, nil, fmt.Errorf("fact %d of %d: %w", i, h.Facts+h.Marks, err)
		}
		if i < h.Facts {
			if f.Value == nil {
				f.Value = []byte{} // omitted because it is empty
			}
			t.facts = t.facts.put(Fact{Key: f.Key, Value: f.Value, Index: f.Index})
		} else {
			t.marks = t.marks.put(Fact{Key: f.Key, Index: f.Index})
		}
	}
	seen := make([]snapshotSeen, 0, min(h.Seen, rememberedRequests))
	for i := range h.Seen {
		var s snapshotSeen
		if err := dec.Decode(&s); err != nil {
			return nil, nil, fmt.Errorf("request %d of %d: %w", i, h.Seen, err)
		}
		seen = append(seen, s)
	}
	return t, seen, nil
}
