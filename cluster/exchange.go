package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// pullConn is a connection to an origin, closed when the run ends.
type pullConn struct {
	*frames
	addr   netip.AddrPort
	cancel func()
}

func (c *pullConn) close() {
	if c != nil {
		c.cancel()
		c.conn.Close()
	}
}

func (g *gossip) connect(ctx context.Context, origin string, addr netip.AddrPort) (*pullConn, error) {
	limited, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	conn, id, err := g.cfg.dial(limited, addr, alpnPull)
	if err != nil {
		return nil, err
	}
	if id != origin {
		conn.Close()
		return nil, fmt.Errorf("%s: is node %s, not %s", addr, id, origin)
	}
	return &pullConn{newFrames(conn), addr, closeWith(ctx, conn)}, nil
}

// exchange asks one question and takes over the answer. It returns what is still to be asked.
func (g *gossip) exchange(ctx context.Context, c **pullConn, origin string, addr netip.AddrPort, b batch) (batch, error) {
	if *c != nil && (*c).addr != addr {
		(*c).close()
		*c = nil
	}
	if *c == nil {
		conn, err := g.connect(ctx, origin, addr)
		if err != nil {
			return b, err
		}
		*c = conn
	}
	f := (*c).frames
	if err := g.writeQuestion(f, origin, b); err != nil {
		return b, err
	}
	a, err := g.readAnswer(f, origin, len(b.wants))
	if err != nil {
		return b, err
	}
	return g.takeOver(origin, b, a)
}

func (g *gossip) hello(to string) hello {
	h := hello{meta: g.says(), gossip: netip.AddrPortFrom(g.cfg.advertise, g.cfg.gossipPort)}
	g.mu.Lock()
	defer g.mu.Unlock()
	h.remembered = g.table.epochs[to]
	return h
}

func (g *gossip) writeQuestion(f *frames, origin string, b batch) error {
	if err := f.write(frameHello, g.hello(origin).encode()); err != nil {
		return err
	}
	var wants []want
	var digests []digest
	var hints []hint
	g.mu.Lock()
	for network := range b.wants {
		w := want{network: network}
		if !b.whole[network] {
			w.have = g.table.version(rowKey{network, origin})
		}
		wants = append(wants, w)
	}
	if b.compare {
		for _, network := range g.table.networks() {
			digests = append(digests, digest{network, g.table.digest(network)})
		}
	}
	for network := range b.tell {
		hints = append(hints, g.table.hints(network)...)
	}
	g.mu.Unlock()
	err := errors.Join(
		f.writeList(frameWants, len(wants), func(e *encoder, i int) { e.want(wants[i]) }),
		f.writeList(frameDigests, len(digests), func(e *encoder, i int) { e.digest(digests[i]) }),
		f.writeList(frameHints, len(hints), func(e *encoder, i int) { e.hint(hints[i]) }),
	)
	if err != nil {
		return err
	}
	return f.end()
}

// pulled is an answer.
type pulled struct {
	hello    hello
	notReady bool
	rows     []delta
	hints    []hint
}

func (g *gossip) readAnswer(f *frames, origin string, asked int) (pulled, error) {
	var a pulled
	size := 0
	missing := 0 // changes of the last row
	for first := true; ; first = false {
		kind, payload, err := f.read(frameTimeout)
		if err != nil {
			return pulled{}, err
		}
		size += len(payload)
		switch {
		case size > maxAnswer || len(a.rows) > asked:
			err = fmt.Errorf("more than was asked: %d bytes, %d rows", size, len(a.rows))
		case first != (kind == frameHello):
			err = errors.New("hello comes first, and once")
		case missing > 0 && kind != frameChanges:
			err = errTruncated
		case kind == frameHello:
			if a.hello, err = decodeHello(payload); err == nil {
				err = g.greeted(origin, a.hello)
			}
		case kind == frameNotReady:
			a.notReady = true
		case kind == frameRow:
			var d delta
			d, missing, err = decodeRow(payload)
			a.rows = append(a.rows, d)
		case kind == frameChanges:
			missing, err = a.readChanges(payload, missing)
		case kind == frameHints:
			d := decoder{rest: payload}
			var hints []hint
			hints, err = d.hints()
			a.hints = append(a.hints, hints...)
		case kind == frameEnd:
			return a, nil
		default:
			err = fmt.Errorf("frame of kind %d", kind)
		}
		if err != nil {
			return pulled{}, fmt.Errorf("answer: %w", err)
		}
	}
}

func (a *pulled) readChanges(payload []byte, missing int) (int, error) {
	d := decoder{rest: payload}
	for d.more() {
		if missing--; missing < 0 { // also where no row came before
			return 0, errors.New("more changes than announced")
		}
		c := d.change()
		row := &a.rows[len(a.rows)-1]
		row.changes = append(row.changes, c)
	}
	return missing, d.err
}

// takeOver merges an answer, and returns what must be asked again.
func (g *gossip) takeOver(origin string, b batch, a pulled) (batch, error) {
	left, different := newBatch(), false
	g.mu.Lock()
	for _, d := range a.rows {
		waiting, asked := b.wants[d.network]
		if !asked || !g.table.attends(d.network) {
			continue
		}
		delete(b.wants, d.network)
		changed, err := g.table.merge(origin, d)
		if err != nil { // it does not remember the version that we have; or we do not
			left.wants[d.network], left.whole[d.network] = waiting, true
			continue
		}
		different = different || changed
		key := rowKey{d.network, origin}
		now := g.table.version(key)
		g.see(key, now)
		if changed { // which may be newer than the hint that we followed
			g.pass(hint{key, now})
		}
		for _, ch := range waiting {
			close(ch)
		}
	}
	for network, waiting := range b.wants {
		if a.notReady || !g.table.attends(network) { // it says so itself when it has begun its epoch
			delete(b.wants, network)
			for _, ch := range waiting {
				close(ch)
			}
		}
	}
	g.mu.Unlock()
	if b.compare {
		for _, h := range a.hints {
			left.tell[h.network] = true
		}
	}
	g.receive(a.hints)
	if different {
		poke(g.unsaved)
		g.onChange()
	}
	if len(b.wants) > 0 {
		b.compare, b.tell = false, nil
		left.add(b)
		return left, errUnanswered
	}
	return left, nil
}

// greeted takes over what a node proves and says about itself, from either side of a connection.
func (g *gossip) greeted(id string, h hello) error {
	if why := g.contacts.refuse(id, h.cluster, h.gossip.Addr()); why != "" {
		poke(g.said)
		return fmt.Errorf("node %s %s", id, why)
	}
	moved := g.contacts.updated(id, h.meta, h.gossip)
	poke(g.work)
	g.mu.Lock()
	g.table.epochs[id] = max(g.table.epochs[id], h.epoch)
	own := g.table.epoch
	g.mu.Unlock()
	if own != 0 && h.remembered > own {
		g.life.spawn(func(ctx context.Context) { g.raise(ctx, h.remembered) })
	}
	if moved {
		g.onChange()
	}
	return nil
}
