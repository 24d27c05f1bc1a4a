//go:build nemesis

package cluster

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// errLost is what the sender of a message sees that is lost, or whose answer is.
var errLost = errors.New("no answer")

const (
	// lostAfter is how long a sender waits for an answer that does not come.
	lostAfter = 40 * time.Millisecond
	// lateBy is how much later than the first at most the second copy of a message comes.
	lateBy = 300 * time.Millisecond
)

// courier has the messages between the nodes of a round: raft's, and requests. Nodes are their addresses.
type courier struct {
	mu     sync.Mutex
	random *rand.Rand
	cut    map[[2]netip.Addr]bool // from, to
	dead   map[netip.Addr]bool
	loss   float64       // part of the messages, and of the answers
	twice  float64       // part that comes a second time
	delay  time.Duration // at most
	flying sync.WaitGroup
}

func newCourier(seed uint64) *courier {
	return &courier{random: rand.New(rand.NewPCG(seed, 1)), cut: map[[2]netip.Addr]bool{}, dead: map[netip.Addr]bool{}}
}

func (w *courier) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// heal ends all faults but those of dead nodes.
func (w *courier) heal() {
	w.set(func() {
		clear(w.cut)
		w.loss, w.twice, w.delay = 0, 0, 0
	})
}

// toss says what becomes of a message.
func (w *courier) toss(from, to netip.Addr) (lost, twice bool, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost = w.dead[from] || w.dead[to] || w.cut[[2]netip.Addr{from, to}] || w.random.Float64() < w.loss
	if w.delay > 0 {
		wait = time.Duration(w.random.Int64N(int64(w.delay)))
	}
	return lost, w.random.Float64() < w.twice, wait
}

// carry brings a message and its answer, with do; again brings a copy, whose answer nobody waits for. nil: there is none.
func (w *courier) carry(ctx context.Context, from, to netip.Addr, do func() error, again func()) error {
	lost, twice, wait := w.toss(from, to)
	if wait > 0 {
		pause(ctx, wait)
	}
	if lost {
		pause(ctx, lostAfter)
		return errLost
	}
	err := do()
	if twice && again != nil {
		w.flying.Go(func() {
			pause(context.Background(), rand.N(lateBy))
			if lost, _, _ := w.toss(from, to); !lost {
				again()
			}
		})
	}
	lost, _, wait = w.toss(to, from)
	if wait > 0 {
		pause(ctx, wait)
	}
	if lost {
		return errLost
	}
	return err
}

// call is of hooks.
func (w *courier) call(ctx context.Context, from netip.Addr, to netip.AddrPort, send func(context.Context) (received, error)) (received, error) {
	var r received
	err := w.carry(ctx, from, to.Addr(), func() (err error) {
		r, err = send(ctx)
		return err
	}, func() {
		limited, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = send(limited)
	})
	return r, err
}

// wired is raft's transport of one node on the wire.
type wired struct {
	*raft.NetworkTransport
	wire *courier
	from netip.Addr
}

func (s wired) carry(to raft.ServerAddress, do func() error, again func()) error {
	_, addr, err := parseRaftAddr(to)
	if err != nil {
		return err
	}
	return s.wire.carry(context.Background(), s.from, addr.Addr(), do, again)
}

// AppendEntries is of raft.Transport, as the next four are.
func (s wired) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	copied := *args
	return s.carry(to, func() error { return s.NetworkTransport.AppendEntries(id, to, args, resp) }, func() {
		_ = s.NetworkTransport.AppendEntries(id, to, &copied, &raft.AppendEntriesResponse{})
	})
}

func (s wired) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	copied := *args
	return s.carry(to, func() error { return s.NetworkTransport.RequestVote(id, to, args, resp) }, func() {
		_ = s.NetworkTransport.RequestVote(id, to, &copied, &raft.RequestVoteResponse{})
	})
}

// RequestPreVote is of raft.WithPreVote.
func (s wired) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return s.carry(to, func() error { return s.NetworkTransport.RequestPreVote(id, to, args, resp) }, nil)
}

func (s wired) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return s.carry(to, func() error { return s.NetworkTransport.InstallSnapshot(id, to, args, resp, data) }, nil)
}

func (s wired) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return s.carry(to, func() error { return s.NetworkTransport.TimeoutNow(id, to, args, resp) }, nil)
}
