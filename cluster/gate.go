package cluster

import (
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// gate is a transport of raft that does not send entries or snapshots to a follower who answers no heartbeats, and sends them
// as soon as it answers one. Raft itself would try all the time, and wait longer after each failure, up to 10 s (failureWait and
// maxFailureScale in its replication.go): for so long a host that comes back would not learn the newest facts, nor could it
// change any.
type gate struct {
	sender
	mu     sync.Mutex
	beats  map[raft.ServerID]*beat
	wanted func(raft.ServerID, uint64) bool // whether a leader of that term still has entries for a follower
	ended  chan struct{}
	end    func()
}

// sender is what raft wants of a transport.
type sender interface {
	raft.Transport
	raft.WithPreVote
}

// beat is how the heartbeats to a follower go.
type beat struct {
	failed   bool
	answered chan struct{} // closed when one is answered after others were not
}

// lookAgain is how often it is looked whether somebody who is waited for is still wanted.
const lookAgain = time.Second

func newGate(s sender) *gate {
	g := &gate{sender: s, beats: map[raft.ServerID]*beat{}, ended: make(chan struct{})}
	g.wanted = func(raft.ServerID, uint64) bool { return true }
	g.end = sync.OnceFunc(func() { close(g.ended) })
	return g
}

// serve has it wait for those only whom a node sends entries.
func (g *gate) serve(r *raft.Raft) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = func(id raft.ServerID, term uint64) bool {
		return r.State() == raft.Leader && r.CurrentTerm() == term &&
			slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == id })
	}
}

// AppendEntries is of raft.Transport.
func (g *gate) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		err := g.sender.AppendEntries(id, to, args, resp)
		g.note(id, err)
		return err
	}
	if !g.wait(id, args.Term) {
		return raft.ErrTransportShutdown
	}
	return g.sender.AppendEntries(id, to, args, resp)
}

// InstallSnapshot is of raft.Transport.
func (g *gate) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if !g.wait(id, args.Term) {
		return raft.ErrTransportShutdown
	}
	return g.sender.InstallSnapshot(id, to, args, resp, data)
}

// isHeartbeat tells a heartbeat from the sending of entries, as raft's followers do (processHeartbeat in its net_transport.go).
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// note takes note of how a heartbeat went.
func (g *gate) note(id raft.ServerID, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.beats[id]
	if b == nil {
		b = &beat{answered: make(chan struct{})}
		g.beats[id] = b
	}
	if b.failed && err == nil {
		close(b.answered)
		b.answered = make(chan struct{})
	}
	b.failed = err != nil
}

// wait returns true when the follower answers heartbeats, and false if nobody has anything for it any more.
func (g *gate) wait(id raft.ServerID, term uint64) bool {
	for {
		g.mu.Lock()
		b, wanted := g.beats[id], g.wanted
		if b == nil || !b.failed {
			g.mu.Unlock()
			return true
		}
		answered := b.answered
		g.mu.Unlock()
		select {
		case <-answered:
		case <-time.After(lookAgain):
			if !wanted(id, term) {
				return false
			}
		case <-g.ended:
			return false
		}
	}
}
