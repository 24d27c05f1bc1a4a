package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// recoveryVersion is the version of the facts below "recovered/".
const recoveryVersion = 1

const (
	belowRecovered = "recovered/"

	// Keys in Config.Log.
	keyGeneration = "generation" // of the log; not there: it is the first one
	keyRecover    = "recover"    // a recovery that the next start carries out
	keyFollow     = "follow"     // the generation that the next start takes over from others
)

// generationStride is where the log of each generation begins: at the next multiple. An index then says by itself that it is
// newer than whatever the nodes that are left behind have decided, unless they have decided a billion things.
const generationStride = 1_000_000_000

// recovery is the beginning of a new generation of the log: the operator has said that the nodes which did not answer are
// lost, and the copy of one node goes on without them. It is a fact of that generation from its first entry on.
type recovery struct {
	Version int               `json:"v"`
	ID      string            `json:"id"`     // of the generation: a number and eight random digits, "2-9f31c0aa"
	Parent  string            `json:"parent"` // the generation that was gone on from; "": the first
	By      string            `json:"by"`     // the name of the node whose copy it is
	At      time.Time         `json:"at"`
	Term    uint64            `json:"term"`           // of the newest entry of that copy
	Last    uint64            `json:"last"`           // and its index
	Index   uint64            `json:"index"`          // of this entry
	Lost    map[string]string `json:"lost,omitempty"` // id -> name of the nodes that are left behind
}

// lost are the names of the nodes that are left behind, for a sentence.
func (r recovery) lost() string { return strings.Join(slices.Sorted(maps.Values(r.Lost)), ", ") }

// generationNumber orders generations; the first has no name.
func generationNumber(id string) uint64 {
	number, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0
	}
	return n
}

// recoveries are those that the view goes back to, oldest first.
func (v View) recoveries() []recovery {
	var all []recovery
	for f := range v.Prefix(belowRecovered) {
		var r recovery
		if err := json.Unmarshal(f.Value, &r); err == nil && r.Version == recoveryVersion {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b recovery) int { return int(generationNumber(a.ID)) - int(generationNumber(b.ID)) })
	return all
}

// leftBehind returns the recovery that went on without a node, until the node is forgotten.
func (v View) leftBehind(id string) (recovery, bool) {
	if _, ok := v.registration(id); !ok {
		return recovery{}, false
	}
	for _, r := range v.recoveries() {
		if _, lost := r.Lost[id]; lost {
			return r, true
		}
	}
	return recovery{}, false
}

// leftBehindAll are the ids of all such nodes, sorted.
func (v View) leftBehindAll() []string {
	var all []string
	for _, r := range v.recoveries() {
		for id := range r.Lost {
			if _, ok := v.registration(id); ok {
				all = append(all, id)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// outcast says why a node is not listened to: it was taken out of the cluster, or the cluster was recovered without it.
func (v View) outcast(id string) (string, bool) {
	if how, fenced := v.Fenced(id); fenced {
		return how, true
	}
	if r, lost := v.leftBehind(id); lost {
		return fmt.Sprintf("left behind when the cluster was recovered on %s", r.By), true
	}
	return "", false
}

// takeUp does at the start what was decided before it: it recovers from what is stored, or makes room for the log of another
// generation. Cut short, it is done once more.
func (c *Cluster) takeUp(d *loaded) error {
	if raw, ok := c.cfg.Log.Get(keyRecover); ok {
		var r recovery
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("%s: %w", keyRecover, err)
		}
		return c.recoverStored(d, r)
	}
	return nil
}

// makeRoom drops the copy of a generation that is over. The identity stays, and so do the terms in which it voted. It comes
// before the log is looked at.
func (c *Cluster) makeRoom() error {
	generation, ok := c.cfg.Log.Get(keyFollow)
	if !ok {
		return nil
	}
	if err := removeAll(filepath.Join(c.cfg.Dir, snapshotDir)); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return c.beginGeneration(string(generation), keyFollow, nil)
}

// beginGeneration removes the log and the note that asked for it, in one write.
func (c *Cluster) beginGeneration(id, note string, applied []byte) error {
	writes := []Write{{Key: keyGeneration, Value: []byte(id)}, {Key: note}, {Key: keyApplied, Value: applied}}
	for key := range c.cfg.Log.Prefix(prefixLog) {
		writes = append(writes, Write{Key: key})
	}
	if err := c.cfg.Log.Apply(writes...); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	return nil
}

// recoverStored makes a snapshot of everything that this node has, decided or not, in which it alone is a server and votes,
// and which is the beginning of the log. It is what raft.RecoverCluster does, with an index that begins a generation and the
// fact that says so.
func (c *Cluster) recoverStored(d *loaded, r recovery) error {
	if why := d.fsm.halted(); why != "" {
		return errors.New(why)
	}
	if r.Index == 0 {
		var err error
		if r.Term, r.Last, _, err = lastEntry(d.store, d.snapshots); err != nil {
			return err
		}
		r.Index = (r.Last/generationStride + 1) * generationStride
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if err := c.cfg.Log.Apply(Write{Key: keyRecover, Value: raw}); err != nil {
			return err
		}
	}
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	facts, _, _ := d.fsm.tree.Load().apply(r.Index, Txn{Then: []Op{{Key: belowRecovered + r.ID, Value: value}}})
	d.fsm.tree.Store(facts)
	d.fsm.uncover()
	id := nodeID(publicKey(d.key))
	self := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raftAddr(id, netip.AddrPortFrom(c.cfg.Advertise, c.cfg.RaftPort)),
	}}}
	_, trans := raft.NewInmemTransport("") // encodes addresses
	sink, err := d.snapshots.Create(raft.SnapshotVersionMax, r.Index, r.Term, self, 1, trans)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	frozen, err := d.fsm.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := frozen.Persist(sink); err != nil {
		return err
	}
	if err := c.beginGeneration(r.ID, keyRecover, fmt.Appendf(nil, "%d", r.Index)); err != nil {
		return err
	}
	c.log.WithField("generation", r.ID).WithField("without", r.lost()).Warn("cluster: recovered; this node alone votes")
	return c.reopen(d)
}

// lastEntry is the newest entry that is stored, and when a leader made it, if that is known.
func lastEntry(store *raftStore, snapshots raft.SnapshotStore) (term, index uint64, at time.Time, err error) {
	last, err := store.LastIndex()
	if err != nil {
		return 0, 0, at, err
	}
	var log raft.Log
	if last != 0 {
		err := store.GetLog(last, &log)
		return log.Term, last, log.AppendedAt, err
	}
	all, err := snapshots.List()
	if err != nil || len(all) == 0 {
		return 0, 0, at, errors.Join(errors.New("this node has no copy of the facts"), err)
	}
	return all[0].Term, all[0].Index, at, nil
}

// lastServers are those of raft by the newest entry or snapshot that says so.
func lastServers(store *raftStore, snapshots raft.SnapshotStore) ([]raft.Server, error) {
	first, err := store.FirstIndex()
	if err != nil {
		return nil, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, err
	}
	for index := last; index >= first && index > 0; index-- {
		var log raft.Log
		if err := store.GetLog(index, &log); err != nil {
			return nil, err
		}
		if log.Type == raft.LogConfiguration {
			return raft.DecodeConfiguration(log.Data).Servers, nil // of our own store: raft takes it the same way
		}
	}
	all, err := snapshots.List()
	if err != nil || len(all) == 0 {
		return nil, errors.Join(errors.New("this node has no copy of the facts"), err)
	}
	return all[0].Configuration.Servers, nil
}
