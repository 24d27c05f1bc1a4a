package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	// maxConns is how many connections are served at once: a hundred nodes with two of raft, one request and one pull
	// each, twice over.
	maxConns = 800
	// maxHandshakes is how many of them may not yet have proved themselves: enough for a hundred nodes that start together,
	// few enough that strangers cost little.
	maxHandshakes = 128
	// maxFromOne is how many of these may come from one address: a node opens a few at a time.
	maxFromOne = 16
)

// keepAlive finds out within 25 s that the other host is gone without a word.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// errSelf: we have dialled ourselves.
var errSelf = errors.New("is this node itself")

// handler serves one connection; it is closed when the handler returns.
type handler func(conn *tls.Conn, peerID string)

// transport is the node's one TCP port, and the way to those of the others.
type transport struct {
	local    netip.AddrPort
	creds    *credentials
	alarms   *alarms
	log      *logrus.Logger
	refuse   func(peerID string) error // nil: nobody is refused
	handlers map[string]handler        // by ALPN

	mu    sync.Mutex
	conns map[net.Conn]*accepted
}

// accepted is what is known about a connection.
type accepted struct {
	from   netip.Addr
	proven bool // it has shown its certificate
}

func newTransport(local netip.AddrPort, creds *credentials, al *alarms, log *logrus.Logger) *transport {
	return &transport{
		local: local, creds: creds, alarms: al, log: log,
		handlers: map[string]handler{}, conns: map[net.Conn]*accepted{},
	}
}

// handle must be called before run.
func (t *transport) handle(alpn string, h handler) { t.handlers[alpn] = h }

// run accepts connections until ctx ends, and returns when the last one is closed.
func (t *transport) run(ctx context.Context) error {
	ln := t.listen(ctx)
	if ln == nil {
		return nil
	}
	config := t.creds.config(alpnRaft, alpnRPC, alpnPull)
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
				t.log.WithError(err).Warn("cluster port: accept")
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
			t.alarms.clear("port")
			return ln
		}
		t.alarms.hold("port", "cluster port: "+err.Error())
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// admit notes a new connection unless there are too many.
func (t *transport) admit(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := remoteAddr(conn)
	strangers, same := 0, 0
	for _, other := range t.conns {
		if !other.proven {
			strangers++
			if other.from == from {
				same++
			}
		}
	}
	if len(t.conns) >= maxConns || strangers >= maxHandshakes || same >= maxFromOne {
		return false
	}
	t.conns[conn] = &accepted{from: from}
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
	limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
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
	if from := remoteAddr(raw); from != t.local.Addr() && bytes.Equal(state.PeerCertificates[0].Raw, t.creds.cert.Certificate[0]) {
		t.twin(from)
		return
	}
	t.mu.Lock()
	t.conns[raw].proven = true
	t.mu.Unlock()
	h := t.handlers[state.NegotiatedProtocol]
	if h == nil {
		return
	}
	if t.refuse != nil && state.NegotiatedProtocol != alpnRPC { // requests get an answer that says why
		if err := t.refuse(peer); err != nil {
			t.log.WithError(err).WithField("from", raw.RemoteAddr()).Debug("cluster port: refused")
			return
		}
	}
	h(conn, peer)
}

// twin raises the alarm about a host that has this node's key.
func (t *transport) twin(addr netip.Addr) {
	t.alarms.raise("twin "+addr.String(), addr.String()+
		" has the key of this node: one of the two runs on a copy of the other's disk; stop it, and remove its state")
}

// handshakeFailed raises the alarm when it was for the SECRET; anything else may be a port scanner.
func (t *transport) handshakeFailed(from netip.Addr, err error) {
	if errors.Is(err, errOtherSecret) || refusedUs(err) {
		t.alarms.raise("secret "+from.String(), from.String()+" has another SECRET")
	}
	t.log.WithError(err).WithField("from", from).Debug("cluster port: handshake")
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
