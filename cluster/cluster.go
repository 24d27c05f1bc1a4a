package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// KV is where the node keeps raft's log and what it promised: a checksummed map on disk.
type KV interface {
	Get(key string) ([]byte, bool)
	Prefix(prefix string) iter.Seq2[string, []byte] // in the order of the keys
	Apply(writes ...Write) error                    // all or none; on disk when it returns nil
}

// Write sets Key to Value, or deletes Key when Value is nil.
type Write struct {
	Key   string
	Value []byte
}

// Config says who this node is and where the others may be found.
type Config struct {
	Secret     []byte           // as CheckSecret wants it
	Join       []string         // addresses or host names, optionally with a port (RaftPort if not)
	Advertise  netip.Addr       // the address of this host that others reach, also its VTEP
	Name       string           // unique in the cluster
	GossipPort uint16           // TCP and UDP
	RaftPort   uint16           // TCP: raft, requests and pulls
	Dir        string           // the node's key, raft's snapshots, the cache of the remote records
	Log        KV               // raft's log and stable store
	Disk       func() []Reached // how far the stores of this host have come, always the same ones in one order; nil: nobody is told
	Version    string           // of the program, for Status
	Logger     *logrus.Logger   // nil: discard

	timing timing // zero: defaultTiming
	probe  probe  // of tests; nil: hostLives
	hooks  *hooks // of tests; nil: none
}

// registered is a node that the gossip should know: it has a fact, or has answered while this node was not yet a member.
type registered struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Addr       netip.Addr `json:"addr"`
	GossipPort uint16     `json:"gossip"`
	RaftPort   uint16     `json:"raft"`
	Version    string     `json:"version,omitempty"`
	Forgotten  bool       `json:"-"` // its messages and records are refused; only ID and Name are set
}

// at is where the node's one TCP port is.
func (r registered) at() netip.AddrPort { return netip.AddrPortFrom(r.Addr, r.RaftPort) }

// member is what the gossip knows about another node.
type member struct {
	ID        string
	Name      string
	Addr      netip.Addr
	RaftPort  uint16
	Alive     bool
	Suspended bool
	Silent    time.Time // since when, if it is not alive; zero: it was not heard in this run
}

// Row is what one other node has published in a network.
type Row struct {
	Node    Node
	Records map[string][]byte
}

// Cluster is this node's part in the cluster.
type Cluster struct {
	cfg       Config
	timing    timing
	targets   []target // of JOIN
	log       *logrus.Logger
	raftLog   hclog.Logger
	id        string
	transport *transport
	alarms    *alarms
	store     *raftStore
	snapshots *snapshotStore
	fsm       *fsm
	gossip    *gossip
	all       wakers          // of Watch
	own       wakers          // of what this file's loops wait for: facts, leadership, state
	life      context.Context // of Run
	asks      chan struct{}   // wakes who asks the others about the cluster
	broken    chan struct{}   // closed when raft may go on although its store is broken: it is being shut down

	mu         sync.Mutex
	state      State
	reason     string
	clusterID  string
	generation string              // of the log that this node has a copy of
	outdated   verdict             // what became of that generation, if it is over
	node       *raftNode           // nil: raft does not run
	met        map[string]greeting // by id: nodes that have answered and are not where the facts say, or not in them
	leaving    bool
	gone       chan struct{} // closed when this node has left
	anew       chan struct{} // closed when Run shall return ErrAgain
	compared   chan struct{} // closed when the others were asked how far this node's disk had come

	self self

	founder atomic.Bool // its own address stands first in JOIN, and it is in no cluster
}

// New reads what the node is from its disk, and makes it a new node where there is nothing, or where part of it is
// missing. It starts nothing.
func New(cfg Config) (*Cluster, error) {
	if cfg.Logger == nil {
		cfg.Logger = logrus.New()
		cfg.Logger.SetOutput(io.Discard)
	}
	if cfg.timing == (timing{}) {
		cfg.timing = defaultTiming()
	}
	targets, err := checkConfig(cfg)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, timing: cfg.timing, targets: targets, log: cfg.Logger, raftLog: newRaftLog(cfg.Logger),
		gone: make(chan struct{}), anew: make(chan struct{}), compared: make(chan struct{}), asks: make(chan struct{}, 1), met: map[string]greeting{}, state: Joining,
	}
	c.alarms = &alarms{lasts: cfg.timing.alarm, onChange: c.all.wake}
	d, err := c.load()
	if err != nil {
		return nil, err
	}
	c.id, c.store, c.snapshots, c.fsm = nodeID(publicKey(d.key)), d.store, d.snapshots, d.fsm
	c.store.failed = c.storeFailed
	c.fsm.save, c.fsm.changed = c.saveApplied, c.factsChanged
	c.factsChanged() // it may have stopped while it was read
	if id, ok := cfg.Log.Get(keyCluster); ok {
		c.clusterID = string(id)
	}
	generation, _ := cfg.Log.Get(keyGeneration)
	c.generation = string(generation)
	if err := c.beginPast(d.key); err != nil {
		return nil, err
	}
	creds, err := newCredentials(cfg.Secret, d.key)
	if err != nil {
		return nil, err
	}
	c.transport = newTransport(netip.AddrPortFrom(cfg.Advertise, cfg.RaftPort), creds, c.alarms, c.log)
	c.transport.refuse = c.refusePeer
	c.transport.twin = func(from netip.Addr) { c.gossip.twinAt(from) }
	c.transport.setGeneration(c.generation)
	if err := c.makeGossip(creds); err != nil {
		return nil, err
	}
	c.transport.friend = c.gossip.contacts.isPlace
	c.transport.handle(alpnRaft, c.serveRaft)
	c.transport.handle(alpnRPC, c.serveRPC)
	c.transport.handle(alpnPull, c.gossip.servePull)
	return c, nil
}

// ErrAgain: what this node has on its disk is not what it was when New read it, since the cluster was recovered or this node
// begins anew. Run returns it, and wants a new Cluster in place of this one.
var ErrAgain = errors.New("this node's part in the cluster begins again")

// Run takes part in the cluster until ctx ends, or returns ErrAgain. It withdraws nothing: the others keep what this node
// told them. After it returns nothing runs.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	c.life = ctx
	g.Go(func() error { return c.transport.run(ctx) })
	g.Go(func() error { return c.runGossip(ctx) })
	g.Go(func() error { return c.live(ctx) })
	return g.Wait()
}

// live is the life of a node: find or found a cluster unless it is in one, and take part.
func (c *Cluster) live(ctx context.Context) error {
	if !closed(c.compared) {
		c.Compare(ctx)
	}
	if c.cluster() == "" {
		c.enter(ctx)
	}
	if c.cluster() != "" {
		select {
		case <-c.gossip.looked: // who boots beside a copy of itself must neither vote nor take that one's vote
		case <-ctx.Done():
		}
	}
	if c.wentBack() {
		c.readmit(ctx)
	} else if c.cluster() != "" && !c.hasLeft() && ctx.Err() == nil {
		if err := c.belong(ctx); err != nil {
			return err
		}
	}
	select { // one that was refused may still leave
	case <-c.gone:
	case <-c.anew:
	case <-ctx.Done():
	}
	if c.hasLeft() {
		if err := c.discard(); err != nil {
			// The next start hears from the others that this node has left, and tries again.
			c.alarms.hold("discard", "the state of the node that has left could not be removed: "+err.Error())
		}
		c.setState(Left, "`carrick join` here, or the next start of the plugin, makes this host a new node")
	}
	select {
	case <-c.anew:
		return ErrAgain
	case <-ctx.Done():
	}
	return nil
}

// beginAgain ends Run with ErrAgain.
func (c *Cluster) beginAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !closed(c.anew) {
		close(c.anew)
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// runGossip ends with ctx, or when this node leaves.
func (c *Cluster) runGossip(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	g := errgroup.Group{}
	g.Go(func() error {
		defer cancel()
		return c.gossip.run(inner)
	})
	g.Go(func() error {
		select {
		case <-c.gone:
			cancel()
		case <-inner.Done():
		}
		return nil
	})
	return g.Wait()
}

// ID is the fingerprint of this node's key.
func (c *Cluster) ID() string { return c.id }

// View is the newest version of the facts that this node has. It is there offline too, and never goes back.
func (c *Cluster) View() View { return c.fsm.view() }

// Watch returns a channel that wakes at every change of facts, nodes, remote records and alarms, and what ends it. Every
// caller has its own; several changes may be one wake.
func (c *Cluster) Watch() (<-chan struct{}, func()) { return c.all.watch() }

// cluster is the id of the cluster that this node is in, or empty.
func (c *Cluster) cluster() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clusterID
}

// running is raft, or nil.
func (c *Cluster) running() *raftNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

func (c *Cluster) factsChanged() {
	if why := c.fsm.halted(); why != "" {
		c.alarms.hold("log", why)
	} else {
		c.alarms.clear("log")
	}
	c.own.wake()
	c.all.wake()
}

// saveApplied is called by the state machine before anybody sees the entry.
func (c *Cluster) saveApplied(index uint64) {
	if err := c.cfg.Log.Apply(Write{Key: keyApplied, Value: fmt.Appendf(nil, "%d", index)}); err != nil {
		c.alarms.hold("disk", "the cluster's log cannot be written: "+err.Error())
	} else {
		c.alarms.clear("disk")
	}
}

// storeFailed holds raft until it is shut down: it could not save its term.
func (c *Cluster) storeFailed(err error) {
	c.alarms.hold("term", "the cluster's log cannot be written, this node no longer takes part in decisions: "+err.Error())
	<-c.broken
}

// serveRaft hands a connection to raft, if it runs.
func (c *Cluster) serveRaft(conn *tls.Conn, _ string) {
	if n := c.running(); n != nil {
		n.stream.serve(conn)
	}
}

// refusePeer says why a node's connection is not served. Nodes that are not registered are: a node that was away may meet a
// leader that it has never heard of.
func (c *Cluster) refusePeer(id string) error {
	if how, ok := c.View().outcast(id); ok {
		return fmt.Errorf("node %s was %s", id, how)
	}
	return nil
}

// errRenew: what is stored does not belong together; the node becomes a new one.
var errRenew = errors.New("the stored state of the node is incomplete")
