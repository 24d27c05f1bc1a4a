package cluster

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/hashicorp/raft"
)

// loaded is what a node has on its disk.
type loaded struct {
	key       ed25519.PrivateKey
	store     *raftStore
	snapshots *snapshotStore
	fsm       *fsm
}

// snapshotDir is where the snapshots are, below Config.Dir.
const snapshotDir = "snapshots"

func publicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// load reads the node's key and log, which are worth something only together: a node that kept its key but lost its log
// would vote again in a term in which it has voted, and could elect a leader that lacks what was committed with its
// first vote. Raft's store therefore says whose it is; when either is missing, belongs to another or has a hole, what there
// is is put aside, and the node gets a new key and an empty log, and joins as a new server.
func (c *Cluster) load() (*loaded, error) {
	if err := c.clearAway(); err != nil {
		return nil, err
	}
	d, err := c.loadStored()
	renewed := errors.Is(err, errRenew)
	if renewed {
		if err := c.renew(err); err != nil {
			return nil, err
		}
		d, err = c.loadStored()
	}
	if err != nil {
		return nil, err
	}
	c.tellAside(renewed)
	return d, nil
}

// loadStored returns errRenew when a new key helps.
func (c *Cluster) loadStored() (*loaded, error) {
	key, err := loadKey(c.cfg.Dir)
	switch {
	case errors.Is(err, errNoKey):
		return nil, fmt.Errorf("%w: %w", errRenew, err)
	case err != nil:
		return nil, err
	}
	owner, ok := c.cfg.Log.Get(keyNode)
	if id := nodeID(publicKey(key)); !ok || string(owner) != id {
		return nil, fmt.Errorf("%w: the log is of node %q, the key of %s", errRenew, owner, id)
	}
	if err := errors.Join(c.makeRoom(), c.makeEmpty()); err != nil {
		return nil, err
	}
	snapshots := &snapshotStore{dir: filepath.Join(c.cfg.Dir, snapshotDir)}
	store, err := openRaftStore(c.cfg.Log)
	switch {
	case errors.Is(err, errNewer):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errRenew, err)
	}
	d := &loaded{key: key, store: store, snapshots: snapshots, fsm: newFSM()}
	if d.fsm.whole, err = c.wholeFrom(nodeID(publicKey(key))); err != nil {
		return nil, err
	}
	if _, ok := c.cfg.Log.Get(keyCluster); !ok {
		// Founding was cut short before anybody heard of it.
		return d, errors.Join(c.wipe(prefixLog), c.wipe(prefixRaft), c.reopen(d))
	}
	if err := c.replay(d); err != nil {
		return nil, err
	}
	return d, c.takeUp(d)
}

// keyFloor in Config.Log is the entry from which on a node goes by the facts that it copies: it had newer ones before.
const keyFloor = "floor"

// wholeFrom says from when on a node goes by the facts that it copies: when they show itself, or that it was taken out of the cluster,
// for it was registered before it began to copy; and not before an entry that it was told.
func (c *Cluster) wholeFrom(id string) (func(View) bool, error) {
	var floor uint64
	if raw, ok := c.cfg.Log.Get(keyFloor); ok {
		var err error
		if floor, err = strconv.ParseUint(string(raw), 10, 64); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errRenew, keyFloor, err)
		}
	}
	return func(v View) bool {
		_, registered := v.registration(id)
		_, fenced := v.Fenced(id)
		return (registered || fenced) && v.Index() >= floor
	}, nil
}

func (c *Cluster) reopen(d *loaded) (err error) {
	d.store, err = openRaftStore(c.cfg.Log)
	return err
}

// replay brings the state machine to where this node was: raft by itself would only do so when it hears from a leader. It
// returns errRenew where a part of what was decided is missing.
func (c *Cluster) replay(d *loaded) error {
	all, damage, err := d.snapshots.survey()
	if err != nil {
		return err
	}
	var covered uint64 // by the snapshot
	for _, meta := range all {
		_, content, err := d.snapshots.Open(meta.ID)
		if err == nil {
			err = d.fsm.Restore(content)
		}
		if err == nil {
			covered = meta.Index
			break
		}
		damage = append(damage, fmt.Errorf("snapshot %s: %w", meta.ID, err))
	}
	what := errors.Join(append(damage, errRenew)...)
	if first := d.store.first; first > covered+1 {
		return fmt.Errorf("the log begins at entry %d, the snapshot ends at %d: %w", first, covered, what)
	}
	if known := d.applied(c.cfg.Log); known > max(covered, d.store.last) {
		return fmt.Errorf("entry %d was decided, the log ends at %d and the snapshot at %d: %w", known, d.store.last, covered, what)
	}
	if len(damage) > 0 && covered == 0 && d.store.last == 0 {
		return what
	}
	for _, err := range damage {
		c.log.WithError(err).Error("cluster: a snapshot is damaged; nothing is lost, another copy or the log has it")
	}
	applied := d.applied(c.cfg.Log)
	if _, recovers := c.cfg.Log.Get(keyRecover); recovers {
		applied = d.store.last // nobody is left who could say what was decided
	}
	for index := max(covered+1, d.store.first); index <= min(applied, d.store.last); index++ {
		var log raft.Log
		if err := d.store.GetLog(index, &log); err != nil {
			return fmt.Errorf("%w: %w", errRenew, err)
		}
		d.fsm.ApplyBatch([]*raft.Log{&log})
	}
	return nil
}

// applied is the newest entry that is known to be decided, 0 if there is none. It is a hint: raft finds it out again.
func (d *loaded) applied(kv KV) uint64 {
	value, _ := kv.Get(keyApplied)
	index, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return 0
	}
	return index
}

// renew makes this node another one, which is in no cluster.
func (c *Cluster) renew(why error) error {
	aside, err := c.setAside(why)
	if err != nil {
		return err
	}
	if err := c.wipe(""); err != nil {
		return err
	}
	for _, old := range []string{snapshotDir, cacheFile} { // of a node that has left; the cache may be of another cluster
		if err := removeAll(filepath.Join(c.cfg.Dir, old)); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	key, err := makeKey(c.cfg.Dir)
	if err != nil {
		return err
	}
	writes := []Write{{Key: keyNode, Value: []byte(nodeID(publicKey(key)))}}
	if aside != "" {
		c.log.Error("cluster: " + aside)
		writes = append(writes, Write{Key: keyAside, Value: []byte(aside)})
	}
	if err := c.cfg.Log.Apply(writes...); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	return nil
}

// wipe removes what has the prefix from raft's store.
func (c *Cluster) wipe(prefix string) error {
	var writes []Write
	for key := range c.cfg.Log.Prefix(prefix) {
		writes = append(writes, Write{Key: key})
	}
	if len(writes) == 0 {
		return nil
	}
	if err := c.cfg.Log.Apply(writes...); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	return nil
}

// discard makes the next start a new node. The key goes first: without it the rest is nobody's.
func (c *Cluster) discard() error {
	err := removeFile(filepath.Join(c.cfg.Dir, keyFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("node key: %w", err)
	}
	if err := syncDir(c.cfg.Dir); err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	return c.wipe("")
}
