package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
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
	conn, err := g.dialNode(limited, origin, addr)
	// Where it is said to be may be a lie, or not true yet.
	if met := g.contacts.metAt(origin); err != nil && met.IsValid() && met != addr {
		conn, err = g.dialNode(limited, origin, met)
	}
	if err != nil {
		return nil, err
	}
	f := newFrames(conn)
	f.from = remoteAddr(conn)
	return &pullConn{f, addr, closeWith(ctx, conn)}, nil
}

const (
	// dialAgain is after how long another try begins beside one that has not got through: TCP sends a lost SYN again after a
	// second (RFC 6298 section 2.1), and what is lost of the handshake after 200 ms at best. On a LAN it takes 5 ms.
	dialAgain = 200 * time.Millisecond
	// dialTries at once: at 10 % loss three of five tries get through without a timeout, and each has 200 ms.
	dialTries = 4
)

type dialled struct {
	conn net.Conn
	err  error
}

// dialNode connects to a node, as RFC 8305 does to one of several addresses: the first try that gets through counts.
func (g *gossip) dialNode(ctx context.Context, node string, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialled, dialTries)
	next := time.NewTimer(dialAgain)
	defer next.Stop()
	begin := func() {
		if !g.life.spawn(func(context.Context) { results <- g.dialOnce(ctx, node, addr) }) {
			results <- dialled{err: errClosed}
		}
	}
	begin()
	for begun, ended := 1, 0; ; {
		select {
		case <-next.C:
			if begun < dialTries {
				begun++
				begin()
				next.Reset(dialAgain)
			}
		case r := <-results:
			if ended++; r.err != nil && ended < begun {
				continue
			}
			g.life.spawn(func(context.Context) { // those that are late
				for ; ended < begun; ended++ {
					if late := <-results; late.conn != nil {
						late.conn.Close()
					}
				}
			})
			return r.conn, r.err
		}
	}
}

func (g *gossip) dialOnce(ctx context.Context, node string, addr netip.AddrPort) dialled {
	conn, id, err := g.cfg.dial(ctx, addr, alpnPull)
	if err != nil {
		return dialled{err: err}
	}
	if id != node {
		conn.Close()
		return dialled{err: fmt.Errorf("%s: is node %s, not %s", addr, id, node)}
	}
	return dialled{conn: conn}
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
	h := hello{meta: g.says(), gossip: netip.AddrPortFrom(g.cfg.advertise, g.cfg.gossipPort), recalled: g.recall.of(to)}
	if g.cfg.mark != nil && g.recall.mayHear(to) {
		h.mark = g.cfg.mark()
	}
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
	size, rowSize := 0, 0
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
				err = g.greeted(origin, a.hello, f.from)
			}
		case kind == frameNotReady:
			a.notReady = true
		case kind == frameRow:
			var d delta
			rowSize = 0
			d, missing, err = decodeRow(payload)
			a.rows = append(a.rows, d)
		case kind == frameChanges:
			if rowSize += len(payload); rowSize > 2*maxRowBytes { // keys and values
				return pulled{}, fmt.Errorf("answer: %w", errHuge)
			}
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
	left := newBatch()
	var different []string
	g.mu.Lock()
	for _, d := range a.rows {
		waiting, asked := b.wants[d.network]
		if !asked || !g.table.attends(d.network) {
			continue
		}
		delete(b.wants, d.network)
		changed, err := g.table.merge(origin, d)
		switch {
		case errors.Is(err, errHuge):
			g.cfg.alarms.raise("huge "+origin, fmt.Sprintf("node %s is not listened to: %v", origin, err))
		case err != nil: // it does not remember the version that we have; or we do not
			left.wants[d.network], left.whole[d.network] = waiting, true
			continue
		}
		if changed {
			different = append(different, d.network)
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
	if len(different) > 0 {
		poke(g.unsaved)
		g.onChange(different...)
	}
	if len(b.wants) > 0 {
		b.compare, b.tell = false, nil
		left.add(b)
		return left, errUnanswered
	}
	return left, nil
}

// greeted takes over what a node proves and says about itself, from either side of a connection. A VTEP is believed from
// where it is.
func (g *gossip) greeted(id string, h hello, from netip.Addr) error {
	if !from.IsValid() {
		from = h.gossip.Addr()
	} else if from != h.gossip.Addr() {
		h.gossip = netip.AddrPortFrom(from, 0)
	}
	if why := g.contacts.refuse(id, h.cluster, h.gossip.Addr()); why != "" {
		poke(g.said)
		return fmt.Errorf("node %s %s", id, why)
	}
	moved, err := g.contacts.proved(id, h.meta, h.gossip, from)
	if err != nil {
		poke(g.twins)
		return err
	}
	poke(g.work)
	g.recall.take(id, h.mark)
	if g.cfg.recalled != nil {
		g.cfg.recalled(id, h.recalled)
	}
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
