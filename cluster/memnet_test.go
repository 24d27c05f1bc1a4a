package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// memNet is a network in memory: datagrams may be lost, hosts may be cut off from each other, processes and hosts may die.
type memNet struct {
	mu      sync.Mutex
	hosts   map[netip.Addr]*memHost
	wire    wire
	loss    float64                            // of datagrams, 0 to 1
	side    map[netip.Addr]int                 // hosts with different numbers cannot reach each other
	packets int                                // datagrams sent
	bytes   int                                // in them, as UDP payload
	tap     func(to netip.Addr, packet []byte) // nil: nobody listens
}

// wire is what things take. With the zero wire nothing takes time, and streams lose nothing.
type wire struct {
	rtt       time.Duration
	jitter    time.Duration // of a datagram, at most
	rate      float64       // bytes/s that a host can send, and receive; 0: without limit
	handshake time.Duration // of CPU for each TLS handshake, on either side; a host does one after the other
	loss      float64       // of the segments of streams, 0 to 1
}

// lan is a network of today's: 1 Gbit/s, and 1 ms for a host and its neighbour on a busy switch. A handshake, 1 ms for both
// sides, was measured by BenchmarkPullHandshake.
func lan() wire {
	return wire{rtt: time.Millisecond, jitter: time.Millisecond, rate: 125e6, handshake: 500 * time.Microsecond}
}

// memHost is one host. Without a gossip, its plugin is dead.
type memHost struct {
	net    *memNet
	addr   netip.Addr
	dead   bool
	id     string
	gossip *gossip
	tr     *memTransport
	pulls  int // connections that it was asked by
	pulled int // bytes that it has answered

	out, in, cpu time.Time // until when they are busy
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

// book keeps something busy for a while after what it is busy with already, and tells when that is over.
func book(busy *time.Time, from time.Time, d time.Duration) time.Time {
	if busy.Before(from) {
		*busy = from
	}
	*busy = busy.Add(d)
	return *busy
}

// carry sends bytes of a stream and tells when they have arrived. The caller holds mu.
func (n *memNet) carry(a, b netip.Addr, size int) time.Time {
	now := time.Now()
	from, to := n.hosts[a], n.hosts[b]
	if n.wire.rate == 0 || from == nil || to == nil {
		return now.Add(n.wire.rtt / 2)
	}
	takes := time.Duration(float64(size) / n.wire.rate * float64(time.Second))
	sent := book(&from.out, now, takes)
	got := book(&to.in, sent.Add(-takes), takes) // it goes on being received while it is being sent
	return got.Add(n.wire.rtt / 2)
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

// WriteTo: datagrams do not wait behind streams, as with a fair queue, but take bandwidth from them.
func (t *memTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to := netip.MustParseAddrPort(addr).Addr()
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets++
	n.bytes += len(b)
	if n.tap != nil {
		n.tap(to, append([]byte{}, b...))
	}
	if !n.reaches(t.host.addr, to) || rand.Float64() < n.loss {
		return time.Now(), nil
	}
	p := &memberlist.Packet{Buf: append([]byte{}, b...), From: net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.host.addr, 7946))}
	if n.wire.rtt == 0 {
		n.receive(to, p)
		return time.Now(), nil
	}
	n.carry(t.host.addr, to, len(b))
	time.AfterFunc(n.wire.rtt/2+rand.N(n.wire.jitter+1), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.receive(to, p)
	})
	return time.Now(), nil
}

// receive gives a datagram to a host. The caller holds mu.
func (n *memNet) receive(to netip.Addr, p *memberlist.Packet) {
	h := n.hosts[to]
	if h == nil || h.dead || h.tr == nil {
		return
	}
	p.Timestamp = time.Now()
	select {
	case h.tr.packets <- p:
	default: // the socket's buffer is full
	}
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
		if h.tr == nil || !bytes.Equal(h.key(), t.host.key()) { // as TLS finds out
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

// key is that of the cluster; nil without a node of ours.
func (h *memHost) key() []byte {
	if h.gossip == nil {
		return nil
	}
	return h.gossip.cfg.key
}

// arrives puts a datagram into the socket, whoever sent it. The caller holds the net's mu.
func (t *memTransport) arrives(b []byte, from netip.Addr) {
	t.host.net.receive(t.host.addr, &memberlist.Packet{
		Buf: append([]byte{}, b...), From: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 7946)),
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

// lost is how long a stream stands still because a flight of segments was lost, however often: first is the first timeout,
// and each after it is twice as long (RFC 6298 section 5.5).
func (w wire) lost(segments int, first time.Duration) time.Duration {
	var stands time.Duration
	for rand.Float64() > math.Pow(1-w.loss, float64(segments)) {
		stands += first
		first *= 2
	}
	return stands
}

// setUp takes as long as the handshakes of TCP and TLS 1.3, after which the first byte can be sent.
func (n *memNet) setUp(ctx context.Context, a, b netip.Addr) bool {
	n.mu.Lock()
	w, from, to := n.wire, n.hosts[a], n.hosts[b]
	n.mu.Unlock()
	compute := func(h *memHost) time.Duration {
		if h == nil {
			return 0
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		return time.Until(book(&h.cpu, time.Now(), w.handshake))
	}
	if w.rtt == 0 {
		return true
	}
	return pause(ctx, w.rtt+w.lost(2, synTimeout)) && // SYN and its answer
		pause(ctx, w.rtt/2+w.lost(1, minTimeout)) && // ClientHello
		pause(ctx, compute(to)) &&
		pause(ctx, w.rtt/2+w.lost(2, minTimeout)) && // ServerHello, with certificates
		pause(ctx, compute(from))
}

// connect waits for a way to the host, and gives it one end if somebody listens there.
func (h *memHost) connect(ctx context.Context, to netip.Addr, give func(*memHost, net.Conn) bool) (net.Conn, error) {
	n := h.net
	if !n.setUp(ctx, h.addr, to) {
		return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
	}
	for again := time.Second; ; again *= 2 {
		n.mu.Lock()
		if n.reaches(h.addr, to) {
			near, far := n.stream(h.addr, to)
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
