package cluster

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// tracked is memberlist's transport with an end: memberlist does not wait for its streams when it shuts down.
type tracked struct {
	memberlist.NodeAwareTransport
	run     context.Context // ends what is being dialled
	ctx     context.Context // ends accept, after memberlist has taken what was accepted
	dialer  net.Dialer
	streams chan net.Conn
	stop    context.CancelFunc
	wg      sync.WaitGroup // streams, and accept

	mu    sync.Mutex
	conns map[*trackedConn]bool // nil: closed
}

type trackedConn struct {
	net.Conn
	t    *tracked
	once sync.Once
}

// newTracked dials from the address that listens, for firewalls and for those who know us by it.
func newTracked(ctx context.Context, inner memberlist.NodeAwareTransport, from netip.Addr) *tracked {
	t := &tracked{NodeAwareTransport: inner, run: ctx, streams: make(chan net.Conn), conns: map[*trackedConn]bool{}}
	t.ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.dialer = net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	t.wg.Add(1)
	go t.accept()
	return t
}

func (t *tracked) StreamCh() <-chan net.Conn { return t.streams }

func (t *tracked) accept() {
	defer t.wg.Done()
	for {
		select {
		case conn := <-t.NodeAwareTransport.StreamCh():
			if conn = t.track(conn); conn == nil {
				continue
			}
			select {
			case t.streams <- conn:
			case <-t.ctx.Done():
				conn.Close()
				return
			}
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *tracked) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *tracked) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.dial(a, min(timeout, dialTimeout))
	if err != nil {
		return nil, err
	}
	if conn = t.track(conn); conn == nil {
		return nil, errClosed
	}
	return conn, nil
}

func (t *tracked) dial(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if _, ok := t.NodeAwareTransport.(*memberlist.NetTransport); !ok {
		return t.NodeAwareTransport.DialAddressTimeout(a, timeout)
	}
	ctx, cancel := context.WithTimeout(t.run, timeout)
	defer cancel()
	return t.dialer.DialContext(ctx, "tcp", a.Addr)
}

// track returns nil when it is too late.
func (t *tracked) track(conn net.Conn) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		conn.Close()
		return nil
	}
	c := &trackedConn{Conn: conn, t: t}
	t.conns[c] = true
	t.wg.Add(1)
	return c
}

func (c *trackedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.t.mu.Lock()
		delete(c.t.conns, c)
		c.t.mu.Unlock()
		c.t.wg.Done()
	})
	return err
}

// Shutdown closes the sockets and cuts the streams; those who use them notice and close them.
func (t *tracked) Shutdown() error {
	err := t.NodeAwareTransport.Shutdown()
	t.mu.Lock()
	conns := t.conns
	t.conns = nil
	for c := range conns {
		c.Conn.Close()
	}
	t.mu.Unlock()
	return err
}

// wait returns when all streams are closed. It comes after Shutdown of memberlist.
func (t *tracked) wait() {
	t.stop()
	t.wg.Wait()
}
