package cluster

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// tracked is memberlist's transport with an end: memberlist does not wait for its streams when it shuts down.
type tracked struct {
	*sealed
	ctx     context.Context // ends accept and receive, after memberlist has taken what was accepted
	streams chan net.Conn
	stop    context.CancelFunc
	wg      sync.WaitGroup // streams, accept and receive

	mu    sync.Mutex
	conns map[*trackedConn]bool // nil: closed
}

type trackedConn struct {
	net.Conn
	t    *tracked
	once sync.Once
}

func newTracked(ctx context.Context, inner *sealed) *tracked {
	t := &tracked{sealed: inner, streams: make(chan net.Conn), conns: map[*trackedConn]bool{}}
	t.ctx, t.stop = context.WithCancel(context.WithoutCancel(ctx))
	t.wg.Go(t.accept)
	t.wg.Go(func() { t.receive(t.ctx) })
	return t
}

func (t *tracked) StreamCh() <-chan net.Conn { return t.streams }

func (t *tracked) accept() {
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
	conn, err := t.NodeAwareTransport.DialAddressTimeout(a, min(timeout, dialTimeout))
	if err != nil {
		return nil, err
	}
	if conn = t.track(conn); conn == nil {
		return nil, errClosed
	}
	return conn, nil
}

// track returns nil when it is too late.
func (t *tracked) track(conn net.Conn) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		conn.Close()
		return nil
	}
	c := &trackedConn{Conn: &checkedConn{Conn: conn}, t: t}
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
