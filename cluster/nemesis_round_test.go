//go:build nemesis

package cluster

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/sirupsen/logrus"
)

// round is five hosts, their clients, what goes wrong, and what the clients have seen.
type round struct {
	t       *testing.T
	bug     *bug // nil: none
	random  *rand.Rand
	wire    *courier
	nodes   []*testNode
	disks   map[*testNode]*disk
	history *chronicle
	lock    sync.RWMutex // of the nodes' c
	down    map[*testNode]bool
	faults  int
	armed   atomic.Bool // the bug is there: not while the hosts become a cluster, nor when all is over
}

const (
	nemesisNodes = 5
	nemesisTwice = 2 // clients at each node
)

// newRound makes the hosts of a round. Nothing is up.
func newRound(t *testing.T, seed uint64, b *bug) *round {
	r := &round{
		t: t, bug: b, random: rand.New(rand.NewPCG(seed, 0)), wire: newCourier(seed), disks: map[*testNode]*disk{},
		history: &chronicle{begin: time.Now()}, down: map[*testNode]bool{},
	}
	r.nodes = newLab(t).hosts(nemesisNodes)
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	for _, n := range r.nodes {
		d := &disk{memKV: n.kv, lies: b != nil && b.lies}
		r.disks[n] = d
		n.cfg.Log, n.cfg.Logger = d, quiet
		n.cfg.timing.propose = 2 * time.Second
		n.cfg.hooks = r.hooks(n.cfg.Advertise)
	}
	return r
}

// hooks put the wire between the nodes, and make snapshots often.
func (r *round) hooks(addr netip.Addr) *hooks {
	return &hooks{
		config: func(conf *raft.Config) {
			// More entries stay behind a snapshot than a leader writes that nobody hears any more. Raft with a store that has no
			// holes drops all of its log for a snapshot, goes on to count what was behind it, and panics when that is decided
			// ("log not found"): removeOldLogs in its snapshot.go. The product keeps trailingLogs, and its leaders are never that busy.
			conf.SnapshotThreshold, conf.SnapshotInterval, conf.TrailingLogs = 24, 200*time.Millisecond, 80
		},
		machine: func(f *fsm) raft.FSM {
			if r.bug != nil && r.bug.machine != nil {
				return switched{f, r.bug.machine(f), &r.armed}
			}
			return f
		},
		sends: func(t *raft.NetworkTransport) sender { return wired{t, r.wire, addr} },
		call: func(ctx context.Context, to netip.AddrPort, _ string, send func(context.Context) (received, error)) (received, error) {
			return r.wire.call(ctx, addr, to, send)
		},
	}
}

// play lets clients work for as long as faults happen, and returns what is wrong with what they saw.
func (r *round) play(length time.Duration) []string {
	allUp(r.nodes)
	defer func() {
		for _, n := range r.nodes {
			n.stop()
		}
	}()
	oneCluster(r.t, r.nodes...)
	r.armed.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clients sync.WaitGroup
	for i := range nemesisNodes * nemesisTwice {
		c := &client{
			round: r, number: i, host: r.nodes[i%nemesisNodes], random: rand.New(rand.NewPCG(r.random.Uint64(), 0)),
		}
		clients.Go(func() { c.run(ctx) })
	}
	for begin := time.Now(); time.Since(begin) < length; {
		r.fault()
		r.giveUp()
		pause(ctx, time.Duration(50+r.random.IntN(400))*time.Millisecond)
	}
	cancel()
	clients.Wait()
	return r.end()
}

// restless is what is wrong when the nodes do not find together again.
const restless = "it does not come to rest: "

// end heals everything, and looks at what there is.
func (r *round) end() []string {
	r.armed.Store(false)
	r.wire.heal()
	for _, n := range r.nodes {
		r.disks[n].setSlow(0)
		r.start(n)
	}
	r.wire.flying.Wait()
	first := r.nodes[0]
	if !within(patience, func() bool { return r.rests(first) }) {
		var all []string
		for _, n := range r.nodes {
			all = append(all, fmt.Sprintf("%+v", n.c.Status()))
		}
		return []string{restless + strings.Join(all, "\n")}
	}
	var wrong []string
	newest := first.c.View()
	for i, n := range r.nodes {
		for name := range contended {
			if a, b := fmt.Sprint(contentOf(newest, name)), fmt.Sprint(contentOf(n.c.View(), name)); a != b && n.c.View().Index() == newest.Index() {
				wrong = append(wrong, fmt.Sprintf("%s: the copies of %s and %s differ: %s and %s", name, first.cfg.Name, n.cfg.Name, a, b))
			}
			c := &client{round: r, number: nemesisNodes*nemesisTwice + i, host: n, random: r.random}
			c.read(context.Background(), n.c, name)
		}
	}
	newest = first.c.View()
	r.history.settle(newest)
	return append(wrong, r.history.check(newest)...)
}

// rests tells whether all are members and have one copy, into which the first can write.
func (r *round) rests(first *testNode) bool {
	r.giveUp()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	v, err := first.c.Propose(ctx, Txn{Then: []Op{{"last", []byte("1")}}})
	return err == nil && within(time.Second, func() bool {
		return !slices.ContainsFunc(r.nodes, func(n *testNode) bool { return n.state() != Member || n.c.View().Index() != v.Index() })
	})
}

// within waits for a condition.
func within(limit time.Duration, holds func() bool) bool {
	for begin := time.Now(); !holds(); pause(context.Background(), 5*time.Millisecond) {
		if time.Since(begin) > limit {
			return false
		}
	}
	return true
}

// start brings a host up again that is down.
func (r *round) start(n *testNode) {
	if !r.down[n] {
		return
	}
	delete(r.down, n)
	r.disks[n].restorePower()
	r.lock.Lock()
	defer r.lock.Unlock()
	n.up()
	r.wire.set(func() { delete(r.wire.dead, n.cfg.Advertise) })
}

// crash is the end of a host in the middle of everything.
func (r *round) crash(n *testNode) {
	if r.down[n] {
		return
	}
	r.down[n] = true
	r.wire.set(func() { r.wire.dead[n.cfg.Advertise] = true })
	r.disks[n].cutPower()
	n.powerOff()
}

// giveUp lets nodes begin anew that the others have forgotten, or that have left after all when nobody waited any more.
func (r *round) giveUp() {
	for _, n := range r.nodes {
		refused := n.state() == Refused && n.c.cluster() != "" // else it is joining, and asks again by itself
		if r.down[n] || !refused && n.state() != Left {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := n.c.Leave(ctx)
		cancel()
		if err != nil {
			r.t.Fatalf("%s: leave: %v", n.cfg.Name, err)
		}
		_ = n.c.Rejoin(ctx) // one that was refused begins again by itself
		r.again(n)
	}
}

func (r *round) again(n *testNode) {
	r.lock.Lock()
	defer r.lock.Unlock()
	n.again()
}

// leave takes a node out of the cluster, which joins as a new one.
func (r *round) leave(n *testNode) {
	if r.down[n] || n.state() != Member {
		return
	}
	id := n.c.ID()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	h := happened{client: 1000, call: r.history.now(), mark: belowFenced + id, act: act{kind: "forget", node: id, by: id}}
	err := n.c.Leave(ctx)
	h.returned = r.history.now()
	if err != nil {
		h.returned = math.MaxInt64
	}
	r.history.add(h)
	if err == nil && n.c.Rejoin(ctx) == nil {
		r.again(n)
	}
}

// forget is what an operator does to a host that he takes for gone; it may live.
func (r *round) forget(by, n *testNode) {
	if r.down[by] || by == n {
		return
	}
	id := n.c.ID()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	plan := PlanForget
	if r.bug != nil && r.bug.forget != nil {
		plan = r.bug.forget
	}
	h := happened{client: 1000, call: r.history.now(), mark: belowFenced + id, act: act{kind: "forget", node: id, by: by.c.ID()}}
	wrote := false
	_, _, err := Decide(ctx, by.c, "nemesis", func(v View) (struct{}, Txn, error) {
		txn, err := plan(v, id)
		wrote = len(txn.Then) > 0
		return struct{}{}, txn, err
	})
	h.returned = r.history.now()
	if err != nil {
		h.returned = math.MaxInt64
	}
	if wrote {
		r.history.add(h)
	}
}
