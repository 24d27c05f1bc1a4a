package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// stream is the way of raft over the transport: a raft.StreamLayer.
type stream struct {
	transport *transport
	self      raft.ServerAddress
	accept    chan net.Conn
	ctx       context.Context // of the stream's life: the methods that raft calls have none
	cancel    context.CancelFunc

	mu      sync.Mutex
	dialled map[net.Conn]bool
}

func newStream(t *transport, self raft.ServerAddress) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	return &stream{transport: t, self: self, accept: make(chan net.Conn), ctx: ctx, cancel: cancel, dialled: map[net.Conn]bool{}}
}

// streamAddr is the stream's own address, which raft uses as its own.
type streamAddr raft.ServerAddress

func (a streamAddr) Network() string { return "tcp" }
func (a streamAddr) String() string  { return string(a) }

// Addr is of net.Listener.
func (s *stream) Addr() net.Addr { return streamAddr(s.self) }

// Accept is of net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case conn := <-s.accept:
		return conn, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close is of net.Listener. It ends the connections that raft has made as well.
func (s *stream) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.dialled {
		conn.Close()
	}
	return nil
}

// serve hands a connection to raft, and returns when raft has closed it.
func (s *stream) serve(conn *tls.Conn) {
	hand(s.ctx, conn, s.accept)
}

// hand gives a connection to who takes it from a channel, and returns when that one has closed it. It is closed when ctx ends.
func hand(ctx context.Context, conn *tls.Conn, to chan<- net.Conn) {
	given := &givenConn{Conn: conn, closed: make(chan struct{})}
	select {
	case to <- given:
	case <-ctx.Done():
		return
	}
	select {
	case <-given.closed:
	case <-ctx.Done():
		conn.Close()
		<-given.closed
	}
}

// givenConn tells when it is closed.
type givenConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (g *givenConn) Close() error {
	defer g.once.Do(func() { close(g.closed) })
	return g.Conn.Close()
}

// Dial is of raft.StreamLayer. Whoever answers must be the node that raft means.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	want, addr, err := parseRaftAddr(to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, id, err := s.transport.dial(ctx, addr, s.transport.raftProtocol())
	if err != nil {
		return nil, err
	}
	if id != want {
		conn.Close()
		return nil, fmt.Errorf("%s: is node %s now, not %s", addr, id, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	s.dialled[conn] = true
	return &dialledConn{Conn: conn, stream: s}, nil
}

// dialledConn is forgotten when it is closed.
type dialledConn struct {
	net.Conn
	stream *stream
}

func (d *dialledConn) Close() error {
	d.stream.mu.Lock()
	delete(d.stream.dialled, d.Conn)
	d.stream.mu.Unlock()
	return d.Conn.Close()
}
