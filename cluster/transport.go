package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// limits of what others may cost a transport.
type limits struct {
	conns      int           // served at once
	handshakes int           // of them, those that have not yet proved themselves
	fromOne    int           // of these, those from one address
	time       time.Duration // that they have for it
}

// defaultLimits: a hundred nodes with two connections of raft, one request and one pull each, twice over. A hundred that
// start together must get through at once, and strangers shall cost little. A node opens a few connections at a time.
var defaultLimits = limits{conns: 800, handshakes: 128, fromOne: 16, time: handshakeTimeout}

// keepAlive finds out within 25 s that the other host is gone without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// errSelf: we have dialled ourselves. errTwin: another host has our key.
var (
	errSelf = errors.New("is this node itself")
	errTwin = errors.New("is another host with the identity of this node")
)

// handler serves one connection; it is closed when the handler returns.
type handler func(conn *tls.Conn, peerID string)

// transport is one TCP port of the node, and the way to those of the others.
type transport struct {
	name     string // for sentences
	local    netip.AddrPort
	creds    *credentials
	alarms   *alarms
	log      *logrus.Logger
	limits   limits
	refuse   func(peerID string) error  // nil: nobody is refused
	twin     func(from netip.Addr)      // is told of another host that has this node's key; nil: nobody wants to know
	friend   func(from netip.Addr) bool // strangers do not take its place; nil: there are none
	handlers map[string]handler         // by ALPN
	raft     atomic.Pointer[string]     // ALPN of raft, in this node's generation of the log; nil: alpnRaft

	mu       sync.Mutex
	conns    map[net.Conn]*accepted
	accepted int // so far
}

// accepted is what is known about a connection.
type accepted struct {
	from   netip.Addr
	number int  // they are counted
	proven bool // it has shown its certificate
}

func newTransport(local netip.AddrPort, creds *credentials, al *alarms, log *logrus.Logger) *transport {
	return &transport{
		name: "cluster port", local: local, creds: creds, alarms: al, log: log, limits: defaultLimits,
		handlers: map[string]handler{}, conns: map[net.Conn]*accepted{},
	}
}

// raftProtocol is alpnRaft with the generation of the log: what belongs to another one never meets raft.
func (t *transport) raftProtocol() string {
	if p := t.raft.Load(); p != nil {
		return *p
	}
	return alpnRaft
}

func (t *transport) setGeneration(id string) {
	p := alpnRaft
	if id != "" {
		p += "/" + id
	}
	t.raft.Store(&p)
}

// handle must be called before run.
func (t *transport) handle(alpn string, h handler) { t.handlers[alpn] = h }

// run accepts connections until ctx ends, and returns when the last one is closed.
func (t *transport) run(ctx context.Context) error {
	ln := t.listen(ctx)
	if ln == nil {
		return nil
	}
	config := t.creds.config()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		var protocols []string
		for p := range t.handlers {
			if p == alpnRaft {
				p = t.raftProtocol()
			}
			protocols = append(protocols, p)
		}
		return t.creds.config(protocols...), nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		ln.Close()
		t.closeAll()
		return nil
	})
	g.Go(func() error {
		for {
			conn, err := ln.Accept()
			switch {
			case ctx.Err() != nil:
				if err == nil {
					conn.Close()
				}
				return nil
			case err != nil: // out of descriptors, mostly: wait for some to be closed
				t.log.WithError(err).Warn(t.name + ": accept")
				if !pause(ctx, time.Second) {
					return nil
				}
			case !t.admit(conn):
				conn.Close()
			default:
				g.Go(func() error {
					defer t.drop(conn)
					t.serve(ctx, conn, config)
					return nil
				})
			}
		}
	})
	return g.Wait()
}

// listen tries until it works or ctx ends: at boot the address may not be there yet.
func (t *transport) listen(ctx context.Context) net.Listener {
	listen := net.ListenConfig{KeepAliveConfig: keepAlive}
	for {
		ln, err := listen.Listen(ctx, "tcp", t.local.String())
		if err == nil {
			t.alarms.clear(t.name)
			return ln
		}
		t.alarms.hold(t.name, t.name+": "+err.Error())
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// admit notes a new connection unless there are too many. Of one address the oldest that has not proved itself makes room:
// it may be a container's behind that host, which must not keep the host's own node out.
func (t *transport) admit(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := remoteAddr(conn)
	strangers, same := 0, 0
	var oldest net.Conn
	for c, other := range t.conns {
		if other.proven {
			continue
		}
		strangers++
		if other.from == from {
			same++
			if oldest == nil || other.number < t.conns[oldest].number {
				oldest = c
			}
		}
	}
	switch {
	case len(t.conns) >= t.limits.conns:
		return false
	case same >= t.limits.fromOne:
		oldest.Close()
		delete(t.conns, oldest)
	case strangers >= t.limits.handshakes && (t.friend == nil || !t.friend(from)):
		return false
	}
	t.accepted++
	t.conns[conn] = &accepted{from: from, number: t.accepted}
	return true
}

func (t *transport) drop(conn net.Conn) {
	conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
}

func (t *transport) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.conns {
		conn.Close()
	}
}

// serve does the handshake and hands the connection over.
func (t *transport) serve(ctx context.Context, raw net.Conn, config *tls.Config) {
	conn := tls.Server(raw, config)
	limited, cancel := context.WithTimeout(ctx, t.limits.time)
	err := conn.HandshakeContext(limited)
	cancel()
	if err != nil {
		t.handshakeFailed(remoteAddr(raw), err)
		return
	}
	state := conn.ConnectionState()
	peer, err := t.creds.verify(state)
	if err != nil {
		return // VerifyConnection has seen to it
	}
	if err := t.isOther(state, peer); err != nil {
		if errors.Is(err, errTwin) && t.twin != nil {
			t.twin(remoteAddr(raw))
		}
		return
	}
	t.mu.Lock()
	known := t.conns[raw]
	if known != nil { // else it has just made room
		known.proven = true
	}
	t.mu.Unlock()
	if known == nil {
		return
	}
	h := t.handlers[state.NegotiatedProtocol]
	if state.NegotiatedProtocol == t.raftProtocol() {
		h = t.handlers[alpnRaft]
	}
	if h == nil {
		return
	}
	if t.refuse != nil && state.NegotiatedProtocol != alpnRPC { // requests get an answer that says why
		if err := t.refuse(peer); err != nil {
			t.log.WithError(err).WithField("from", raw.RemoteAddr()).Debug(t.name + ": refused")
			return
		}
	}
	h(conn, peer)
}

// isOther is an error if the other end has this node's key.
func (t *transport) isOther(s tls.ConnectionState, id string) error {
	if id != t.creds.id {
		return nil
	}
	if bytes.Equal(s.PeerCertificates[0].Raw, t.creds.cert.Certificate[0]) {
		return errSelf
	}
	return errTwin
}

// handshakeFailed raises the alarm when it was for the SECRET; anything else may be a port scanner.
func (t *transport) handshakeFailed(from netip.Addr, err error) {
	if errors.Is(err, errOtherSecret) || refusedUs(err) {
		t.alarms.raise("secret "+from.String(), from.String()+" has another SECRET")
	}
	t.log.WithError(err).WithField("from", from).Debug(t.name + ": handshake")
}

// pause waits for d and tells whether ctx is still going on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
