package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carricknet/carrick/cluster"
)

// rounds of a hundred histories each, per subnet.
const rounds = 2

// simulation is some hosts with one network of the cluster, its containers, and everything that goes wrong between them.
// It is one thread: while a request waits for another host, that host is given its turn.
type simulation struct {
	t       *rapid.T
	w       *world
	hosts   []*simHost
	request PoolRequest
	shared  string
	live    map[netip.Addr]string // address -> who has it
	macs    int
	given   int
	carved  int
}

type simHost struct {
	*host
	sim     *simulation
	name    string
	network string // Docker's id; "": the network is not on this host
	nets    int
	pool    string
	leases  map[netip.Addr]string // what was answered and not released
	down    bool                  // its process does not run
	cut     bool                  // it reaches nobody
	busy    bool
	looks   int
	give    context.CancelFunc
}

func (s *simulation) host(name string) *simHost {
	h := &simHost{sim: s, name: name, leases: map[netip.Addr]string{}}
	n := s.w.node(name)
	n.onView = h.looked
	n.before = func(cluster.Txn) proposal {
		if h.cut {
			return rapid.SampledFrom([]proposal{lost, lost, lostLate}).Draw(s.t, "cut off")
		}
		return rapid.SampledFrom([]proposal{works, works, works, works, works, works, works, works, works, works, works, works, works, conflicts, lost, lostWritten, lostLate}).Draw(s.t, "proposal")
	}
	h.host = newHost(s.t, n)
	return h
}

// looked gives the other hosts a turn while this one waits for them, and ends the wait some time.
func (h *simHost) looked() {
	if !h.busy {
		return
	}
	if h.looks++; h.looks > 60 {
		h.give()
		return
	}
	for _, other := range h.sim.hosts {
		if other != h && !other.down && !other.busy && !other.cut && h.looks%5 == 0 {
			other.turn()
		}
	}
}

// turn is one round of a host's Run.
func (h *simHost) turn() {
	if h.busy || h.down {
		return
	}
	h.busy, h.looks = true, 0
	ctx, cancel := context.WithCancel(context.Background())
	h.give = cancel
	_ = h.keep(ctx) // what fails is tried again in the next turn
	cancel()
	h.busy = false
}

// call is a call of Docker's, in which other hosts may have their turns.
func (h *simHost) call(do func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.busy, h.looks, h.give = true, 0, cancel
	do(ctx)
	h.busy = false
}

func (h *simHost) join() {
	h.nets++
	network := fmt.Sprintf("%s-%056d", h.name, h.nets)
	h.call(func(context.Context) {
		pool, _, err := h.create(network, h.sim.request, true)
		if err == nil {
			h.network, h.pool = network, pool
		}
	})
}

func (h *simHost) leave() {
	h.call(func(context.Context) {
		if err := h.remove(h.network, h.pool, ""); err != nil {
			h.sim.t.Fatal(err)
		}
		for a := range h.leases {
			delete(h.sim.live, a)
		}
		clear(h.leases)
		h.network = ""
	})
	// The driver tries until it succeeds, and does not join in between.
	for {
		if view := h.node.View(); h.cut || len(view.Attendants(h.sim.shared)) == 0 {
			return
		}
		if cluster.LeaveNetwork(context.Background(), leaver{h.node}, h.sim.shared, h.name) == nil {
			return
		}
	}
}

// leaver holds a departure to the facts that it was decided on: no block may be given back that was another's or a later
// claim's meanwhile.
type leaver struct{ *node }

func (l leaver) Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error) {
	view := l.View()
	for _, op := range txn.Then {
		txn.If = append(txn.If, cluster.Cond{Key: op.Key, Index: view.Index()})
	}
	return l.node.Propose(ctx, txn)
}

func (h *simHost) start(addr netip.Addr) {
	h.sim.macs++
	id := mac(h.sim.macs)
	text := ""
	if addr.IsValid() {
		text = addr.String()
	}
	h.call(func(ctx context.Context) {
		got, err := h.RequestAddress(ctx, h.pool, text, macOptions(id))
		if err != nil {
			return
		}
		owner := h.name + " " + id
		h.sim.t.Logf("GIVE %s %s %q view %d", owner, got, text, h.node.at)
		if has, taken := h.sim.live[got.Addr()]; taken {
			h.sim.t.Fatalf("%s was given to %s, and %s has it", got.Addr(), owner, has)
		}
		if addr.IsValid() && got.Addr() != addr {
			h.sim.t.Fatalf("%s was asked for, %s given", addr, got)
		}
		again, err := h.RequestAddress(ctx, h.pool, text, macOptions(id))
		if err != nil || again != got {
			h.sim.t.Fatalf("the same request: %s, then %s, %v", got, again, err)
		}
		h.sim.given++
		if b, _ := h.sim.w.head().Owner(h.sim.shared, got.Addr()); b.Node == h.name && b.Prefix.IsSingleIP() && h.sim.request.Pool == "10.1.0.0/24" {
			h.sim.carved++
		}
		h.sim.live[got.Addr()], h.leases[got.Addr()] = owner, owner
		if err := h.Use(ctx, h.network, owner, []netip.Addr{got.Addr()}); err != nil {
			h.sim.t.Fatal(err)
		}
	})
}

func (h *simHost) stop(addr netip.Addr) {
	ctx := context.Background()
	if err := errors.Join(h.Unuse(ctx, h.leases[addr]), h.ReleaseAddress(ctx, h.pool, addr.String())); err != nil {
		h.sim.t.Fatal(err)
	}
	delete(h.leases, addr)
	delete(h.sim.live, addr)
}

// check looks at what each host has on disk.
func (s *simulation) check() {
	holders := map[netip.Addr]string{}
	for _, h := range s.hosts {
		for _, p := range h.Status() {
			for _, l := range p.Leases {
				if other, twice := holders[l.Addr]; twice && p.Shared != "" {
					s.t.Fatalf("%s is leased by %s and by %s", l.Addr, other, h.name)
				}
				holders[l.Addr] = h.name
			}
		}
		for a := range h.leases {
			if holders[a] != h.name {
				s.t.Fatalf("%s has forgotten that it gave %s", h.name, a)
			}
		}
	}
}

func (s *simulation) step(t *rapid.T, pick func() *simHost, addr func() netip.Addr) {
	h := pick()
	t.Logf("HOST %s cut %v", h.name, h.cut)
	switch rapid.IntRange(0, 14).Draw(t, "step") {
	case 0:
		if h.network == "" {
			h.join()
		} else if rapid.IntRange(0, 3).Draw(t, "leave") == 0 {
			h.leave()
		}
	case 1, 2, 3, 4:
		if h.network != "" {
			h.start(netip.Addr{})
		}
	case 5, 6, 7:
		if h.network != "" {
			h.start(addr())
		}
	case 8, 9:
		if len(h.leases) > 0 {
			h.stop(rapid.SampledFrom(slices.SortedFunc(maps.Keys(h.leases), netip.Addr.Compare)).Draw(t, "stop"))
		}
	case 10:
		h.turn()
	case 11:
		before := fmt.Sprint(h.Status())
		h.restart(false)
		if after := fmt.Sprint(h.Status()); after != before {
			t.Fatalf("before the restart %s, after it %s", before, after)
		}
		if rapid.IntRange(0, 3).Draw(t, "with an old view") == 0 { // of the last snapshot, until it hears from the leader
			h.node.mu.Lock()
			h.node.lags, h.node.at = true, rapid.IntRange(0, h.node.at).Draw(t, "version")
			h.node.mu.Unlock()
		}
	case 12:
		h.cut = rapid.IntRange(0, 3).Draw(t, "cut") == 0
		h.node.lag(h.cut)
	case 13:
		h.clock.pass(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
		if err := h.sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	case 14:
		s.w.mu.Lock()
		if len(s.w.late) > 0 {
			n := rapid.IntRange(0, len(s.w.late)-1).Draw(t, "late")
			_ = s.w.apply(s.w.late[n]) // its conditions may not hold any more
			s.w.late = slices.Delete(s.w.late, n, n+1)
		}
		s.w.mu.Unlock()
	}
}

// TestNoAddressTwice is the promise of this package, in the face of conflicts, lost and late answers, partitions, restarts
// with old views, carve-outs, and networks that are removed and made again.
func TestNoAddressTwice(t *testing.T) {
	given, carved := 0, 0
	for _, subnet := range []string{"10.1.0.0/24", "10.1.0.0/28", "fd00::/122", "fd00:1::/64"} {
		for range rounds {
			rapid.Check(t, func(t *rapid.T) {
				prefix := netip.MustParsePrefix(subnet)
				s := &simulation{
					t: t, w: newWorld(), live: map[netip.Addr]string{},
					request: PoolRequest{Pool: subnet, V6: prefix.Addr().Is6()},
					shared:  cluster.NetworkID("", []cluster.Subnet{{Prefix: prefix}}),
				}
				s.w.trace = t.Logf
				for n := range 3 {
					s.hosts = append(s.hosts, s.host(fmt.Sprint("host", n+1)))
				}
				pick := func() *simHost { return rapid.SampledFrom(s.hosts).Draw(t, "host") }
				addr := func() netip.Addr {
					b := prefix.Addr().AsSlice()
					b[len(b)-1] |= byte(rapid.IntRange(0, 40).Draw(t, "address")) & byte(1<<min(8, len(b)*8-prefix.Bits())-1)
					a, _ := netip.AddrFromSlice(b)
					return a
				}
				for _, h := range s.hosts {
					if rapid.IntRange(0, 4).Draw(t, "joins") > 0 {
						h.join()
					}
				}
				for range rapid.IntRange(10, 150).Draw(t, "steps") {
					s.step(t, pick, addr)
					s.check()
				}
				given += s.given
				carved += s.carved
			})
		}
	}
	if given < 500 || carved < 10 {
		t.Errorf("%d addresses were given, %d of them carved out: the test tests nothing", given, carved)
	}
	t.Logf("%d addresses, %d carved out", given, carved)
}
