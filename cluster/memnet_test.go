package cluster

import (
	"context"
	"errors"
	"fmt"

	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// memNet is a network in memory: datagrams may be lost, hosts may be cut off from each other, processes and hosts may die.
// Streams lose nothing, but what is sent through a cut is tried again after ever longer times, as by TCP (RFC 6298).
// Otherwise nothing takes time.
type memNet struct {
	mu      sync.Mutex
	hosts   map[netip.Addr]*memHost
	loss    float64
	side    map[netip.Addr]int // hosts with different numbers cannot reach each other
	packets int
	bytes   int
}

// memHost is one host. Without a gossip, its plugin is dead.
type memHost struct {
	net    *memNet
	addr   netip.Addr
	dead   bool
	id     string
	gossip *gossip
	tr     *memTransport
	pulls  int
	pulled int
}

func newMemNet() *memNet {
	return &memNet{hosts: map[netip.Addr]*memHost{}, side: map[netip.Addr]int{}}
}

func (n *memNet) reaches(a, b netip.Addr) bool {
	h := n.hosts[b]
	return h != nil && !h.dead && n.side[a] == n.side[b]
}

func (n *memNet) whole(a, b netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reaches(a, b) && n.reaches(b, a)
}

func (n *memNet) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// memTransport is what memberlist sees of a host.
type memTransport struct {
	host    *memHost
	packets chan *memberlist.Packet
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (h *memHost) open() (memberlist.NodeAwareTransport, error) {
	t := &memTransport{host: h, packets: make(chan *memberlist.Packet, 4096), conns: make(chan net.Conn), closed: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.tr = t
	return t, nil
}

func (t *memTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return netip.MustParseAddr(ip).AsSlice(), port, nil
}

func (t *memTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to := netip.MustParseAddrPort(addr).Addr()
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets++
	n.bytes += len(b)
	if !n.reaches(t.host.addr, to) || n.hosts[to].tr == nil || rand.Float64() < n.loss {
		return time.Now(), nil
	}
	select {
	case n.hosts[to].tr.packets <- &memberlist.Packet{
		Buf: append([]byte{}, b...), From: net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.host.addr, 7946)), Timestamp: time.Now(),
	}:
	default: // the socket's buffer is full
	}
	return time.Now(), nil
}

func (t *memTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t *memTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *memTransport) StreamCh() <-chan net.Conn           { return t.conns }

func (t *memTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

func (t *memTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	to := netip.MustParseAddrPort(addr).Addr()
	return t.host.connect(ctx, to, func(h *memHost, conn net.Conn) bool {
		if h.tr == nil {
			return false
		}
		go func(tr *memTransport) {
			select {
			case tr.conns <- conn:
			case <-tr.closed:
				conn.Close()
			}
		}(h.tr)
		return true
	})
}

func (t *memTransport) Shutdown() error {
	t.once.Do(func() {
		t.host.net.mu.Lock()
		defer t.host.net.mu.Unlock()
		if t.host.tr == t {
			t.host.tr = nil
		}
		close(t.closed)
	})
	return nil
}

// connect waits for a way to the host, and gives it one end if somebody listens there.
func (h *memHost) connect(ctx context.Context, to netip.Addr, give func(*memHost, net.Conn) bool) (net.Conn, error) {
	n := h.net
	for again := time.Second; ; again *= 2 {
		n.mu.Lock()
		if n.reaches(h.addr, to) {
			near, far := n.pipe(h.addr, to)
			ok := give(n.hosts[to], far)
			n.mu.Unlock()
			if !ok {
				near.Close()
				far.Close()
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
			}
			return near, nil
		}
		n.mu.Unlock()
		if !pause(ctx, again) {
			return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
		}
	}
}

// pipe is a stream between two hosts. The caller holds mu.
func (n *memNet) pipe(a, b netip.Addr) (net.Conn, net.Conn) {
	near, nearInner := net.Pipe()
	far, farInner := net.Pipe()
	relay := func(from net.Conn, to net.Conn) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			size, err := from.Read(buf)
			if err != nil {
				return
			}
			for again := 200 * time.Millisecond; !n.whole(a, b); again = min(2*again, 2*time.Minute) {
				pause(context.Background(), again) // whoever gives up meanwhile is noticed afterwards, as with TCP
			}
			if _, err := to.Write(buf[:size]); err != nil {
				return
			}
		}
	}
	go relay(nearInner, farInner)
	go relay(farInner, nearInner)
	return near, far
}

// dial is the cluster port of the other node.
func (h *memHost) dial(ctx context.Context, addr netip.AddrPort, alpn string) (net.Conn, string, error) {
	if alpn != alpnPull {
		return nil, "", errors.New("wrong protocol")
	}
	var id string
	conn, err := h.connect(ctx, addr.Addr(), func(to *memHost, conn net.Conn) bool {
		if to.gossip == nil {
			return false
		}
		id = to.id
		to.pulls++
		go to.gossip.serve(countedConn{conn, to}, h.id)
		return true
	})
	return conn, id, err
}

type countedConn struct {
	net.Conn
	to *memHost
}

func (c countedConn) Write(b []byte) (int, error) {
	c.to.net.mu.Lock()
	c.to.pulled += len(b)
	c.to.net.mu.Unlock()
	return c.Conn.Write(b)
}

// memCluster is a few nodes in a memNet.
type memCluster struct {
	t     *testing.T
	net   *memNet
	nodes []*memNode
	wg    sync.WaitGroup
	tune  func(*gossipConfig) // nil: as it is
}

type memNode struct {
	*memHost
	cluster *memCluster
	dir     string
	stop    context.CancelFunc
	stopped chan struct{}
	alarms  *alarms
	fact    registered

	mu      sync.Mutex
	changes int
}

func newMemCluster(t *testing.T, size int, tune func(*gossipConfig)) *memCluster {
	c := &memCluster{t: t, net: newMemNet(), tune: tune}
	for i := range size {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		h := &memHost{net: c.net, addr: addr, id: fmt.Sprintf("%032x", i+1)}
		c.net.hosts[addr] = h
		c.nodes = append(c.nodes, &memNode{
			memHost: h, cluster: c, dir: t.TempDir(), alarms: &alarms{},
			fact: registered{ID: h.id, Name: fmt.Sprintf("n%d", i+1), Addr: addr, GossipPort: 7946, RaftPort: 7947},
		})
	}
	for _, n := range c.nodes {
		n.start()
		pause(context.Background(), rand.N(gossipInterval)) // or all would gossip at the same instants
	}
	return c
}

// registered is the same on all nodes.
func (c *memCluster) registered() []registered {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	var all []registered
	for _, n := range c.nodes {
		all = append(all, n.fact)
	}
	return all
}

func (n *memNode) start() {
	n.t().Helper()
	g, err := newGossip(n.config())
	if err != nil {
		n.t().Fatal(err)
	}
	n.net.mu.Lock()
	n.gossip = g
	n.net.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.stopped = cancel, make(chan struct{})
	n.cluster.wg.Go(func() {
		defer close(n.stopped)
		if err := g.run(ctx); err != nil {
			n.t().Error(err)
		}
	})
}

func (n *memNode) t() *testing.T { return n.cluster.t }

func (n *memNode) config() gossipConfig {
	cfg := gossipConfig{
		id: n.id, name: n.fact.Name, advertise: n.addr, gossipPort: 7946, port: 7947,
		key: make([]byte, 32), label: "test", dir: n.dir, alarms: n.alarms,
		dial: n.dial, nodes: n.cluster.registered, clusterID: func() string { return "c1" },
		onChange: func() {
			n.mu.Lock()
			n.changes++
			n.mu.Unlock()
		},
		transport: n.open,
		probe: func(ctx context.Context, addr netip.AddrPort) bool {
			answers := n.net.whole(n.addr, addr.Addr())
			if !answers {
				pause(ctx, probeTimeout)
			}
			return answers
		},
	}
	if n.cluster.tune != nil {
		n.cluster.tune(&cfg)
	}
	return cfg
}

// kill ends the plugin; the host lives on.
func (n *memNode) kill() {
	n.net.mu.Lock()
	n.gossip = nil
	n.net.mu.Unlock()
	n.stop()
	<-n.stopped
}

func (c *memCluster) close() {
	c.net.set(func() {
		clear(c.net.side)
		for _, h := range c.net.hosts {
			h.dead = false
		}
	})
	for _, n := range c.nodes {
		n.stop()
	}
	c.wg.Wait()
	// memberlist's goroutines see that it is shut down when their timers run out, and streams that they are closed.
	pause(context.Background(), 3*time.Minute)
}

// until waits for a condition in virtual time, and returns how long it took.
func (c *memCluster) until(limit time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			c.t.Fatalf("after %v: not %s", limit, what)
		}
		pause(context.Background(), max(time.Millisecond, time.Since(start)/100))
	}
	return time.Since(start)
}

// formed: everybody sees everybody.
func (c *memCluster) formed() bool {
	for _, n := range c.nodes {
		if len(n.gossip.contacts.allLive(true)) != len(c.nodes)-1 {
			return false
		}
	}
	return true
}

// have tells whether all nodes but the origin have that many of its records.
func (c *memCluster) have(network string, origin *memNode, records int) bool {
	for _, n := range c.nodes {
		if n != origin && n.gossip != nil && n.records(network, origin) != records {
			return false
		}
	}
	return true
}

// records of origin as n sees them; -1 if it has no row.
func (n *memNode) records(network string, origin *memNode) int {
	for _, row := range n.gossip.remote(network) {
		if row.Node.ID == origin.id {
			return len(row.Records)
		}
	}
	return -1
}

// attend makes all nodes attend a network, and waits until all know it.
func (c *memCluster) attend(network string) {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.gossip.attend(network, true); err != nil {
			c.t.Fatal(err)
		}
	}
	c.until(20*time.Second, "known who attends", func() bool {
		for _, n := range c.nodes {
			if !c.have(network, n, 0) {
				return false
			}
		}
		return true
	})
}

func (n *memNode) put(network, key, value string) {
	n.t().Helper()
	if err := n.gossip.publish(network, key, []byte(value)); err != nil {
		n.t().Fatal(err)
	}
}
