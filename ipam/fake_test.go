package ipam

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// What Docker says, and what the ledger goes by: written out, so that a change of it is seen.
const (
	localSpace   = "carrick"
	globalSpace  = "carrick-global"
	typeOption   = "RequestAddressType"
	gatewayType  = "com.docker.network.gateway"
	macOption    = "com.docker.network.endpoint.macaddress"
	nameOption   = "com.docker.network.endpoint.name"
	serialOption = "com.docker.network.ipam.serial"
	belowCarve   = "carve/"
	releaseGrace = 20 * time.Second
)

// memory is a Store that lives as long as the test: what Apply was given is there for the next IPAM.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	fail   error // of Apply
	limit  int   // Apply calls that are still done, and -1: no limit; the process is dead after that
}

func (m *memory) Prefix(prefix string) iter.Seq2[string, []byte] {
	m.mu.Lock()
	defer m.mu.Unlock()
	values := maps.Clone(m.values)
	return func(yield func(string, []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if strings.HasPrefix(key, prefix) && !yield(key, values[key]) {
				return
			}
		}
	}
}

func (m *memory) Apply(writes ...store.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.limit == 0 {
		return errDead
	}
	m.limit--
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	for _, w := range writes {
		if w.Value == nil {
			delete(m.values, w.Key)
		} else {
			m.values[w.Key] = slices.Clone(w.Value)
		}
	}
	return nil
}

var errDead = errors.New("the process is dead")

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// clock stands until it is moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is the log of facts that all nodes of a test see, each up to where it has come.
type world struct {
	mu       sync.Mutex
	versions []cluster.View
	trace    func(string, ...any)
	late     []cluster.Txn // proposals whose answer was lost, and that are written later or never
}

func newWorld() *world { return &world{versions: []cluster.View{{}}} }

func (w *world) head() cluster.View { return w.versions[len(w.versions)-1] }

func (w *world) apply(txn cluster.Txn) error {
	next, err := w.head().Apply(txn)
	if w.trace != nil {
		w.trace("TXN #%d %v %s => %v", next.Index(), txn.If, fmt.Sprintf("%s", txn.Then), err)
	}
	if err == nil {
		w.versions = append(w.versions, next)
	}
	return err
}

// node is one host's place in a world.
type node struct {
	w      *world
	id     string
	wake   chan struct{}
	onView func()                     // called by View, without the world's mutex
	before func(cluster.Txn) proposal // decides what becomes of a proposal
	after  func()                     // is told that one has been written
	mu     sync.Mutex
	at     int // version it has come to
	lags   bool

	disputed error
}

type proposal int

const (
	works proposal = iota
	conflicts
	lost        // no quorum, never written
	lostWritten // no quorum, written
	lostLate    // no quorum, written later
)

func (w *world) node(id string) *node {
	return &node{w: w, id: id, wake: make(chan struct{}, 1)}
}

func (n *node) ID() string { return n.id }

func (n *node) View() cluster.View {
	if n.onView != nil {
		n.onView()
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.lags {
		n.at = len(n.w.versions) - 1
	}
	return n.w.versions[n.at]
}

func (n *node) lag(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lags = on
}

func (n *node) Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error) {
	what := works
	if n.before != nil {
		what = n.before(txn)
	}
	if n.after != nil {
		defer n.after() // when it can be seen
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	view := n.w.versions[n.at]
	if ctx.Err() != nil {
		return view, fmt.Errorf("%w: %w", cluster.ErrNoQuorum, ctx.Err())
	}
	switch what {
	case lost:
		return view, cluster.ErrNoQuorum
	case lostWritten:
		err := n.w.apply(txn)
		return view, errors.Join(cluster.ErrNoQuorum, err)
	case lostLate:
		n.w.late = append(n.w.late, txn)
		return view, cluster.ErrNoQuorum
	case conflicts:
		n.at = len(n.w.versions) - 1
		return n.w.head(), cluster.ErrConflict
	}
	err := n.w.apply(txn)
	n.at = len(n.w.versions) - 1
	return n.w.head(), err
}

// Watch always has something to see.
func (n *node) Undisputed(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.disputed
}

func (n *node) dispute(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.disputed = err
}

func (n *node) Watch() (<-chan struct{}, func()) {
	if n.onView != nil {
		always := make(chan struct{})
		close(always)
		return always, func() {}
	}
	return n.wake, func() {}
}

// host is an IPAM with what outlives it.
type host struct {
	*IPAM
	t interface {
		Fatal(...any)
		Helper()
	}
	store *memory
	node  *node
	clock *clock
	inUse []netip.Prefix
	nodes []cluster.Node // as the gossip tells of them

	regressed string // what the cluster says of the disk
}

func newHost(t interface {
	Fatal(...any)
	Helper()
}, n *node) *host {
	h := &host{t: t, store: &memory{limit: -1}, node: n, clock: newClock()}
	h.restart(false)
	return h
}

func (h *host) restart(damaged bool) {
	h.t.Helper()
	c := Config{Store: h.store, Damaged: damaged, Regressed: h.regressed, Pools: testPools, InUse: func() ([]netip.Prefix, error) { return h.inUse, nil }}
	if h.node != nil {
		c.Cluster, c.Nodes = h.node, func() []cluster.Node { return h.nodes }
	}
	i, err := build(c, h.clock.now, "/nonexistent")
	if err != nil {
		h.t.Fatal(err)
	}
	h.IPAM = i
}

const dockerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func gatewayOption() map[string]string { return map[string]string{typeOption: gatewayType} }
func macOptions(mac string) map[string]string {
	return map[string]string{macOption: mac}
}

func mac(n int) string { return fmt.Sprintf("02:42:00:00:%02x:%02x", n>>8, n&0xff) }

// create does what Docker and the driver do for `network create`.
func (h *host) create(network string, r PoolRequest, shared bool) (pool string, s cluster.Subnet, err error) {
	ctx := context.Background()
	if r.Space == "" {
		r.Space = localSpace
	}
	pool, prefix, _, err := h.RequestPool(ctx, r)
	if err != nil {
		return "", s, err
	}
	gw, err := h.RequestAddress(ctx, pool, "", gatewayOption())
	if err != nil {
		return "", s, errors.Join(err, h.ReleasePool(ctx, pool))
	}
	name, described, ours := h.Describe(r.Space, []netip.Prefix{prefix})
	if !ours {
		return "", s, errors.New("the pool is not ours")
	}
	id := ""
	if shared {
		id = cluster.NetworkID(name, described)
		var n cluster.Network
		n, err = cluster.JoinNetwork(ctx, h.node, cluster.Network{Name: name, Mode: "overlay", Subnets: described},
			cluster.Defaults{MTU: 1450, Gateways: map[netip.Prefix]netip.Addr{prefix: gw.Addr()}})
		if err == nil {
			described = n.Subnets
		}
	} else {
		described[0].Gateway = gw.Addr()
	}
	if err == nil {
		err = h.Bind(ctx, network, id, described)
	}
	if err != nil {
		return "", s, errors.Join(err, h.Unbind(ctx, network), h.ReleaseAddress(ctx, pool, gw.Addr().String()), h.ReleasePool(ctx, pool))
	}
	return pool, described[0], nil
}

// remove does what Docker and the driver do for `network rm`.
func (h *host) remove(network, pool, shared string) error {
	ctx := context.Background()
	if err := errors.Join(h.ReleasePool(ctx, pool), h.Unbind(ctx, network)); err != nil {
		return err
	}
	if shared == "" {
		return nil
	}
	return cluster.LeaveNetwork(ctx, h.node, shared, h.node.ID())
}

// asks has the host ask for an address in another's block, and withdraws has it take the question back.
func (h *host) asks(t *testing.T, shared string, addr netip.Addr) {
	t.Helper()
	txn, err := cluster.PlanAsk(h.node.View(), shared, addr, h.node.ID())
	if err == nil {
		_, err = h.node.Propose(t.Context(), txn)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) withdraws(t *testing.T, shared string, addr netip.Addr) {
	t.Helper()
	if _, err := h.node.Propose(t.Context(), cluster.PlanWithdraw(h.node.View(), shared, addr, h.node.ID())); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error is %q, it lacks %q", err, part)
		}
	}
}

func addressOf(t *testing.T, h *host, pool, addr string, n int) string {
	t.Helper()
	p, err := h.RequestAddress(t.Context(), pool, addr, macOptions(mac(n)))
	if err != nil {
		t.Fatal(err)
	}
	return p.Addr().String()
}

// testPools is what networks without a subnet are given theirs from.
var testPools = []netip.Prefix{netip.MustParsePrefix("10.192.0.0/10"), netip.MustParsePrefix("fd50:3b64:49f::/48")}
