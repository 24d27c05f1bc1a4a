package cluster

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// scriptedSender fails or not as it is told, and counts what it was given.
type scriptedSender struct {
	sender
	fails                     atomic.Bool
	beats, entries, snapshots atomic.Int64
}

func (s *scriptedSender) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		s.beats.Add(1)
	} else {
		s.entries.Add(1)
	}
	if s.fails.Load() {
		return errors.New("nobody there")
	}
	return nil
}

func (s *scriptedSender) InstallSnapshot(raft.ServerID, raft.ServerAddress, *raft.InstallSnapshotRequest, *raft.InstallSnapshotResponse, io.Reader) error {
	s.snapshots.Add(1)
	return nil
}

var (
	aHeartbeat = &raft.AppendEntriesRequest{Term: 3}
	anEntry    = &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 4, PrevLogTerm: 2, Entries: []*raft.Log{{Index: 5}}}
)

// send begins to send entries, and says later how it went.
func send(g *gate) <-chan error {
	sent := make(chan error, 1)
	go func() { sent <- g.AppendEntries("b", "", anEntry, &raft.AppendEntriesResponse{}) }()
	return sent
}

func TestEntriesWaitForAnAnsweredHeartbeat(t *testing.T) {
	t.Parallel()
	s := &scriptedSender{}
	g := newGate(s)
	if err := <-send(g); err != nil || s.entries.Load() != 1 {
		t.Fatalf("entries before the first heartbeat: %v, sent %d", err, s.entries.Load())
	}
	s.fails.Store(true)
	for range 100 {
		if err := g.AppendEntries("b", "", aHeartbeat, &raft.AppendEntriesResponse{}); err == nil {
			t.Fatal("the heartbeat did not fail")
		}
	}
	sent, installed := send(g), make(chan error, 1)
	go func() {
		installed <- g.InstallSnapshot("b", "", &raft.InstallSnapshotRequest{Term: 3}, &raft.InstallSnapshotResponse{}, strings.NewReader(""))
	}()
	select {
	case err := <-sent:
		t.Fatalf("entries were sent to a follower that answers no heartbeats: %v", err)
	case err := <-installed:
		t.Fatalf("a snapshot was sent to a follower that answers no heartbeats: %v", err)
	case <-time.After(2 * lookAgain):
	}
	if err := g.AppendEntries("c", "", anEntry, &raft.AppendEntriesResponse{}); err == nil || s.entries.Load() != 2 {
		t.Errorf("entries for another follower: %v, sent %d times, want 2", err, s.entries.Load())
	}
	s.fails.Store(false)
	if err := g.AppendEntries("b", "", aHeartbeat, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil || s.entries.Load() != 3 {
		t.Errorf("after an answered heartbeat: %v, sent %d times, want 3", err, s.entries.Load())
	}
	if err := <-installed; err != nil || s.snapshots.Load() != 1 {
		t.Errorf("after an answered heartbeat: %v, %d snapshots sent, want 1", err, s.snapshots.Load())
	}
}

func TestNobodyWaitsInVain(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*gate){
		"raft ends": func(g *gate) { g.end(); g.end() },
		"the follower is removed, or the node leads no more": func(g *gate) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.wanted = func(id raft.ServerID, term uint64) bool { return id != "b" || term != 3 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scriptedSender{}
			s.fails.Store(true)
			g := newGate(s)
			_ = g.AppendEntries("b", "", aHeartbeat, &raft.AppendEntriesResponse{})
			sent := send(g)
			end(g)
			select {
			case err := <-sent:
				if err == nil || s.entries.Load() != 0 {
					t.Errorf("%v, sent %d times; want an error, and 0", err, s.entries.Load())
				}
			case <-time.After(patience):
				t.Errorf("still waiting after %v", patience)
			}
		})
	}
}

// severed is raft's transport of a node that does not reach whoever is away.
type severed struct {
	*raft.NetworkTransport
	away           *atomic.Pointer[raft.ServerID]
	beats, entries *atomic.Int64
}

// AppendEntries is of raft.Transport.
func (s severed) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if away := s.away.Load(); away == nil || *away != id {
		return s.NetworkTransport.AppendEntries(id, to, args, resp)
	}
	if isHeartbeat(args) {
		s.beats.Add(1)
	} else {
		s.entries.Add(1)
	}
	return errors.New("severed")
}

// While a follower is away its leader does not try to send it entries, so that raft waits for nothing when it is back.
func TestEntriesForWhoIsAwayAreNotTried(t *testing.T) {
	t.Parallel()
	var away atomic.Pointer[raft.ServerID]
	var beats, entries atomic.Int64
	nodes := newLab(t).hosts(3)
	for _, n := range nodes {
		n.cfg.hooks = &hooks{
			config:  func(*raft.Config) {},
			machine: func(f *fsm) raft.FSM { return f },
			sends:   func(trans *raft.NetworkTransport) sender { return severed{trans, &away, &beats, &entries} },
			call: func(ctx context.Context, _ netip.AddrPort, _ string, send func(context.Context) (received, error)) (received, error) {
				return send(ctx)
			},
		}
	}
	allUp(nodes)
	oneCluster(t, nodes...)
	lead := leader(t, nodes...)
	follower := nodes[0]
	if follower == lead {
		follower = nodes[1]
	}
	id := raft.ServerID(follower.c.ID())
	away.Store(&id)
	lead.write(t, "a/b", "while it was away")
	eventually(t, "40 failed heartbeats", func() bool { return beats.Load() >= 40 })
	// A heartbeat has to fail first, and each term begins anew.
	terms := lead.c.running().CurrentTerm()
	t.Logf("entries were tried %d times, in up to %d terms", entries.Load(), terms)
	if tried := entries.Load(); tried > 2*int64(terms) {
		t.Errorf("entries were tried %d times while nobody answered heartbeats, want twice a term at most", tried)
	}
	away.Store(nil)
	eventually(t, "the follower has it", func() bool { return follower.has("a/b", "while it was away") })
}
