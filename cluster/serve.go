package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// serveIdle is how long a connection may be silent between questions.
	serveIdle = 60 * time.Second
	// maxServed connections of one node: one, and those that it has given up and we have not noticed.
	maxServed = 4
)

// served counts the connections of each node.
type served struct {
	mu    sync.Mutex
	conns map[string]int
}

func (s *served) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[string]int{}
	}
	if s.conns[id] >= maxServed {
		return false
	}
	s.conns[id]++
	return true
}

func (s *served) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns[id]--; s.conns[id] == 0 {
		delete(s.conns, id)
	}
}

// serve answers the questions of one node until the connection or the run ends.
func (g *gossip) serve(conn net.Conn, id string) {
	defer conn.Close()
	ctx, ok := g.life.enter()
	if !ok {
		return
	}
	defer g.life.leave()
	if !g.served.enter(id) {
		return
	}
	defer g.served.leave(id)
	defer closeWith(ctx, conn)()
	f := newFrames(conn)
	f.from = remoteAddr(conn)
	for {
		q, err := g.readQuestion(f, id)
		if err == nil {
			err = g.writeAnswer(f, id, q)
		}
		if err != nil {
			if ctx.Err() == nil {
				g.log.WithError(err).WithField("node", id).Debug("pull: connection ended")
			}
			return
		}
	}
}

// remoteAddr is not valid where the other end has none.
func remoteAddr(conn net.Conn) netip.Addr {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// question is what a node wants to know.
type question struct {
	wants   []want
	digests []digest
}

func (g *gossip) readQuestion(f *frames, id string) (question, error) {
	var q question
	wait := serveIdle
	for first := true; ; first = false {
		kind, payload, err := f.read(wait)
		if err != nil {
			return question{}, err
		}
		wait = frameTimeout
		switch {
		case first != (kind == frameHello):
			err = errors.New("hello comes first, and once")
		case kind == frameHello:
			var h hello
			if h, err = decodeHello(payload); err == nil {
				err = g.greeted(id, h, f.from)
			}
		case kind == frameWants:
			var wants []want
			wants, err = decodeWants(payload)
			q.wants = append(q.wants, wants...)
		case kind == frameDigests:
			var digests []digest
			digests, err = decodeDigests(payload)
			q.digests = append(q.digests, digests...)
		case kind == frameHints:
			d := decoder{rest: payload}
			var hints []hint
			hints, err = d.hints()
			g.receive(hints)
		case kind == frameEnd:
			return q, nil
		default:
			err = fmt.Errorf("frame of kind %d", kind)
		}
		if len(q.wants) > maxNetworks || len(q.digests) > maxNetworks {
			err = fmt.Errorf("%d networks are asked about, %d are allowed", max(len(q.wants), len(q.digests)), maxNetworks)
		}
		if err != nil {
			return question{}, fmt.Errorf("question: %w", err)
		}
	}
}

func (g *gossip) writeAnswer(f *frames, id string, q question) error {
	if err := f.write(frameHello, g.hello(id).encode()); err != nil {
		return err
	}
	g.mu.Lock()
	ready := g.ready()
	g.mu.Unlock()
	if !ready {
		if err := f.write(frameNotReady, nil); err != nil {
			return err
		}
		q.wants = nil
	}
	for _, w := range q.wants {
		if err := f.writeRaw(g.answer(w, time.Now())); err != nil {
			return err
		}
	}
	hints := g.differing(q.digests)
	if err := f.writeList(frameHints, len(hints), func(e *encoder, i int) { e.hint(hints[i]) }); err != nil {
		return err
	}
	return f.end()
}

// differing returns all hints of the networks that both nodes attend and do not know the same of.
func (g *gossip) differing(digests []digest) []hint {
	var hints []hint
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range digests {
		if g.table.attends(d.network) && g.table.digest(d.network) != d.sum {
			hints = append(hints, g.table.hints(d.network)...)
		}
	}
	return hints
}
