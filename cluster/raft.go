package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// keptSnapshots: the newest, and the one before it should the newest not be readable.
	keptSnapshots = 2
	// snapshotEvery so many entries a snapshot is made, if there is none within snapshotInterval: the log stays under two
	// megabytes, and a start reads it in milliseconds.
	snapshotEvery    = 1024
	snapshotInterval = 2 * time.Minute
	// trailingLogs stay behind a snapshot, so that a node that was away for an hour gets entries and not all of the facts.
	trailingLogs = 2048
	// raftIO bounds one message of raft: longer than any fsync that a working disk needs.
	raftIO = 10 * time.Second
	// raftPool is how many idle connections to each node are kept: one for heartbeats, one for entries.
	raftPool = 2
	// raftInFlight is how many messages with entries a follower may have unanswered. With one raft does not pipeline them
	// (minInFlightForPipelining in its net_transport.go): when a follower refuses an entry, since its disk fails for a moment,
	// the pipeline can stand still for ever, while heartbeats go on so that nobody notices (hashicorp/raft issue 612). A few
	// writes a minute lose nothing by it.
	raftInFlight = 1
)

// hooks are where tests put faults, and mistakes that they have to find, between the parts.
type hooks struct {
	config  func(*raft.Config)
	machine func(*fsm) raft.FSM
	sends   func(*raft.NetworkTransport) sender
	// call makes a request by send: not at all, late, or more than once.
	call func(ctx context.Context, to netip.AddrPort, op string, send func(context.Context) (received, error)) (received, error)
}

// timing are the durations that tests shorten together.
type timing struct {
	// found is for how long all others must deny knowing a cluster before one is founded.
	found time.Duration
	// poll is how often a node without a cluster asks the others.
	poll time.Duration
	// heartbeat is how long followers wait for the leader before they elect another, between once and twice that long. A
	// voter that is starved of processor or disk for less does not lose its leadership; an election is over within 3 s mostly,
	// well within the time of propose.
	heartbeat time.Duration
	// lease is how long a leader goes on without hearing from a majority. Raft wants it no longer than heartbeat.
	lease time.Duration
	// propose is how long a write is tried: dockerd waits longer for an answer, and users do not.
	propose time.Duration
	// tend is how often the leader looks after the voters, and every node after its own entry, without being woken.
	tend time.Duration
	// gone is how long a node and its host must have been silent until its vote is given to another: longer than the reboot of
	// a virtual machine or of a switch mostly takes, and much shorter than the time to the next fault.
	gone time.Duration
	// contact is how often a node without a leader asks the others why, and the listed ones are asked for their cluster.
	contact time.Duration
	// alarm is for how long an alarm is shown after its cause was last seen.
	alarm time.Duration
}

func defaultTiming() timing {
	return timing{
		found:     10 * time.Second,
		poll:      time.Second,
		heartbeat: 1500 * time.Millisecond,
		lease:     time.Second,
		propose:   8 * time.Second,
		tend:      time.Second,
		gone:      30 * time.Second,
		contact:   10 * time.Second,
		alarm:     alarmLasts,
	}
}

// raftNode is a raft that runs.
type raftNode struct {
	*raft.Raft
	stream *stream
	trans  *raft.NetworkTransport
	gate   *gate
}

// raftConfig is raft's for this node.
func (c *Cluster) raftConfig() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.id)
	conf.HeartbeatTimeout = c.timing.heartbeat
	conf.ElectionTimeout = c.timing.heartbeat
	conf.LeaderLeaseTimeout = c.timing.lease
	conf.SnapshotInterval = snapshotInterval
	conf.SnapshotThreshold = snapshotEvery
	conf.TrailingLogs = trailingLogs
	conf.ShutdownOnRemove = false // the membership is ours to judge: see tend
	conf.NoLegacyTelemetry = true
	conf.Logger = c.raftLog
	if c.cfg.hooks != nil {
		c.cfg.hooks.config(conf)
	}
	return conf
}

// startRaft starts raft on what is stored.
func (c *Cluster) startRaft() (*raftNode, error) {
	s := newStream(c.transport, raftAddr(c.id, c.transport.local))
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: addressBook{c},
		Logger:                c.raftLog,
		Stream:                s,
		MaxPool:               raftPool,
		MaxRPCsInFlight:       raftInFlight,
		Timeout:               raftIO,
	})
	var machine raft.FSM = c.fsm
	var sends sender = trans
	if c.cfg.hooks != nil {
		machine, sends = c.cfg.hooks.machine(c.fsm), c.cfg.hooks.sends(trans)
	}
	gate := newGate(sends)
	r, err := raft.NewRaft(c.raftConfig(), machine, c.store, c.store, c.snapshots, gate)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raft: %w", err), trans.Close())
	}
	gate.serve(r)
	return &raftNode{Raft: r, stream: s, trans: trans, gate: gate}, nil
}

// stop returns when nothing of raft runs any more. The connections go first: raft waits for answers on them.
func (n *raftNode) stop() error {
	n.silence()
	if err := n.Shutdown().Error(); err != nil {
		return fmt.Errorf("raft: shutdown: %w", err)
	}
	return nil
}

// silence ends all connections: nobody hears raft afterwards.
func (n *raftNode) silence() {
	n.gate.end()
	n.trans.Close() // always nil; it closes the stream
	n.trans.CloseStreams()
}

// servers are the members as raft knows them, in the order in which they came.
func (n *raftNode) servers() []raft.Server { return n.GetConfiguration().Configuration().Servers }

// leads tells whether this node is the leader, as far as it knows.
func (n *raftNode) leads() bool { return n.State() == raft.Leader }

// await waits for a future no longer than ctx. The goroutine ends with raft at the latest.
func await(ctx context.Context, f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

// raftAddr is the address of a node as raft knows it: with its id. A node that lost its disk may answer at the address
// of the old one with an empty log, and must not be taken for it; two nodes may have had one address.
func raftAddr(id string, addr netip.AddrPort) raft.ServerAddress {
	return raft.ServerAddress(id + "@" + addr.String())
}

func parseRaftAddr(s raft.ServerAddress) (string, netip.AddrPort, error) {
	id, at, ok := strings.Cut(string(s), "@")
	if !ok {
		return "", netip.AddrPort{}, fmt.Errorf("raft address %q: no id", s)
	}
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return "", netip.AddrPort{}, fmt.Errorf("raft address %q: %w", s, err)
	}
	return id, addr, nil
}

// addressBook follows nodes whose address changes.
type addressBook struct{ c *Cluster }

// ServerAddr is of raft.ServerAddressProvider. On an error raft takes the address that its own configuration has.
func (b addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	addr, ok := b.c.address(string(id))
	if !ok {
		return "", fmt.Errorf("node %s has no entry", id)
	}
	return raftAddr(string(id), addr), nil
}
