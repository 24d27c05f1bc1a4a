//go:build nemesis

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// bug is a mistake that rounds have to find. What it does not say is as it should be.
type bug struct {
	name    string
	propose func(ctx context.Context, c *Cluster, txn Txn) (View, error)
	machine func(*fsm) raft.FSM
	leave   func(v View, id, node string) Txn
	forget  func(v View, node string) (Txn, error)
	lies    bool // the disks acknowledge before they have written
}

// foundWithin so many rounds each of them has to be.
const foundWithin = 20

var plantedBugs = []bug{
	{name: "an old view answers a claim", propose: func(ctx context.Context, c *Cluster, txn Txn) (View, error) {
		if v, err := c.View().Apply(txn); err == nil && len(txn.Then) > 0 && strings.HasPrefix(txn.Then[0].Key, "block/") {
			return v, nil
		}
		return c.Propose(ctx, txn)
	}},
	{name: "a conflict is taken for success", propose: func(ctx context.Context, c *Cluster, txn Txn) (View, error) {
		v, err := c.Propose(ctx, txn)
		if errors.Is(err, ErrConflict) {
			err = nil
		}
		return v, err
	}},
	{name: "a lost answer is taken for a conflict", propose: func(ctx context.Context, c *Cluster, txn Txn) (View, error) {
		v, err := c.Propose(ctx, txn)
		if errors.Is(err, ErrNoQuorum) {
			err = ErrConflict
		}
		return v, err
	}},
	{name: "a lost request is made again as another", propose: func(ctx context.Context, c *Cluster, txn Txn) (View, error) {
		v, err := c.Propose(ctx, txn)
		if errors.Is(err, ErrNoQuorum) {
			return c.Propose(context.WithoutCancel(ctx), txn)
		}
		return v, err
	}},
	{name: "the leader answers before a majority has it", propose: answeredEarly},
	{name: "a read is not confirmed", propose: func(ctx context.Context, c *Cluster, txn Txn) (View, error) {
		if len(txn.Then) == 0 {
			return c.View(), nil
		}
		return c.Propose(ctx, txn)
	}},
	{name: "requests are not remembered", machine: func(f *fsm) raft.FSM {
		return changed{f, func(logs []*raft.Log) []*raft.Log {
			f.mu.Lock()
			defer f.mu.Unlock()
			clear(f.seen)
			return logs
		}, nil}
	}},
	{name: "conditions are not looked at", machine: without(func(Cond) bool { return true })},
	{name: "the fence does not hold", machine: without(func(c Cond) bool { return strings.HasPrefix(c.Key, belowFenced) })},
	{name: "entries are applied in another order", machine: func(f *fsm) raft.FSM {
		return changed{f, func(logs []*raft.Log) []*raft.Log {
			if slices.ContainsFunc(logs, func(log *raft.Log) bool { return bytes.Contains(log.Data, []byte(`"key":"node/`)) }) {
				return logs // a cluster that does not find together again proves nothing
			}
			logs = slices.Clone(logs)
			slices.Reverse(logs)
			return logs
		}, nil}
	}},
	{name: "a snapshot lacks the last entry", machine: func(f *fsm) raft.FSM {
		var before *tree
		return changed{f, func(logs []*raft.Log) []*raft.Log {
			before = f.tree.Load()
			return logs
		}, func(s frozen) frozen {
			if before != nil && s.tree != nil {
				s.tree = before.at(s.tree.last)
			}
			return s
		}}
	}},
	{name: "disks lose what they have acknowledged", lies: true},
	{name: "who leaves by an old view takes what is another's", leave: func(v View, id, node string) Txn {
		txn := PlanLeave(v, id, node)
		txn.If = slices.DeleteFunc(txn.If, func(c Cond) bool { return c.Key == "block/"+id || c.Key == "want/"+id })
		return txn
	}},
	{name: "questions of a forgotten node stay", forget: func(v View, node string) (Txn, error) {
		txn, err := PlanForget(v, node)
		txn.Then = slices.DeleteFunc(txn.Then, func(op Op) bool { return strings.HasPrefix(op.Key, "want/") && op.Value == nil })
		return txn, err
	}},
}

// answeredEarly is success as soon as the leader has the entry in its own log.
func answeredEarly(ctx context.Context, c *Cluster, txn Txn) (View, error) {
	v := c.View()
	if n := c.running(); n != nil && n.leads() {
		if next, err := v.Apply(txn); err == nil && len(txn.Then) > 0 {
			data, err := encodeEntry(entry{ID: string(txn.Then[len(txn.Then)-1].Key), Txn: txn.By(c.id, v)})
			if err != nil {
				return v, err
			}
			n.Apply(data, c.timing.propose)
			return next, nil
		}
	}
	return c.Propose(ctx, txn)
}

// changed is an fsm that gets other entries than the log has, or whose snapshots are others. nil: they are not.
type changed struct {
	*fsm
	logs     func([]*raft.Log) []*raft.Log
	snapshot func(frozen) frozen
}

func (c changed) Apply(log *raft.Log) any { return c.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch is of raft.BatchingFSM. The answers are in the order of logs.
func (c changed) ApplyBatch(logs []*raft.Log) []any {
	given := c.logs(logs)
	answers := map[uint64]any{}
	for i, answer := range c.fsm.ApplyBatch(given) {
		answers[given[i].Index] = answer
	}
	all := make([]any, 0, len(logs))
	for _, log := range logs {
		all = append(all, answers[log.Index])
	}
	return all
}

func (c changed) Snapshot() (raft.FSMSnapshot, error) {
	s, err := c.fsm.Snapshot()
	if f, ok := s.(frozen); ok && c.snapshot != nil {
		return c.snapshot(f), err
	}
	return s, err
}

// switched is one fsm or the other.
type switched struct {
	*fsm
	other raft.FSM
	on    *atomic.Bool
}

func (s switched) Apply(log *raft.Log) any { return s.ApplyBatch([]*raft.Log{log})[0] }

// ApplyBatch is of raft.BatchingFSM.
func (s switched) ApplyBatch(logs []*raft.Log) []any {
	if other, ok := s.other.(raft.BatchingFSM); ok && s.on.Load() {
		return other.ApplyBatch(logs)
	}
	return s.fsm.ApplyBatch(logs)
}

func (s switched) Snapshot() (raft.FSMSnapshot, error) {
	if s.on.Load() {
		return s.other.Snapshot()
	}
	return s.fsm.Snapshot()
}

// without makes machines that do not see some of the conditions.
func without(some func(Cond) bool) func(*fsm) raft.FSM {
	return func(f *fsm) raft.FSM {
		return changed{f, func(logs []*raft.Log) []*raft.Log {
			logs = slices.Clone(logs)
			for i, log := range logs {
				var e entry
				if log.Type != raft.LogCommand || json.Unmarshal(log.Data, &e) != nil {
					continue
				}
				e.Txn.If = slices.DeleteFunc(e.Txn.If, some)
				other := *log
				other.Data, _ = encodeEntry(e) // it has come out of JSON
				logs[i] = &other
			}
			return logs
		}, nil}
	}
}

// TestNemesisFindsPlantedBugs: rounds that find nothing are worth something only if they find what is there.
func TestNemesisFindsPlantedBugs(t *testing.T) {
	for _, b := range plantedBugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			for i := range foundWithin {
				r := newRound(t, uint64(i), &b)
				for _, w := range r.play(roundLength) {
					if !strings.HasPrefix(w, restless) {
						t.Logf("found in round %d: %s", i+1, w)
						return
					}
				}
			}
			t.Errorf("not found in %d rounds", foundWithin)
		})
	}
}
