package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	// pullTimeout is for a connection: twice what the handshake may take.
	pullTimeout = 10 * time.Second
	// pullIdle is how long a connection is kept for the next pull; half of what the other side waits (serveIdle).
	pullIdle = 30 * time.Second
	// pullRetry and pullRetryMax: the first retry comes before anybody has noticed, later ones cost nothing.
	pullRetry    = 100 * time.Millisecond
	pullRetryMax = 5 * time.Second
	// antiEntropyEvery is how often a node compares digests with one other: bytes, and what gossip missed is found within
	// a few of these, since any node that knows of a version knows whom to ask.
	antiEntropyEvery = 5 * time.Second
	// maxAsked networks at once, and maxAnswer bytes: a hundred thousand records of 60 bytes in each of them fit, and a
	// node gone mad cannot fill our memory.
	maxAsked  = 64
	maxAnswer = 512 << 20
)

var errUnanswered = errors.New("not all that was asked was answered")

// pulls asks each origin for what it has to say: one connection and one goroutine per origin, while there is something to
// ask; what comes up meanwhile is asked together.
type pulls struct {
	g    *gossip
	mu   sync.Mutex
	jobs map[string]*job // by origin
}

// job is what is to be asked of one origin.
type job struct {
	batch
	wake chan struct{}
}

// batch is one question.
type batch struct {
	wants   map[string][]chan struct{} // by network; the channels are closed when it was answered
	whole   map[string]bool            // networks that are to be told whole, not as changes
	compare bool                       // digests of all networks
	tell    map[string]bool            // networks that the other knows less of than we do, perhaps
}

func newBatch() batch {
	return batch{wants: map[string][]chan struct{}{}, whole: map[string]bool{}, tell: map[string]bool{}}
}

func (b batch) empty() bool { return len(b.wants) == 0 && len(b.tell) == 0 && !b.compare }

// add puts what was not answered back.
func (b *batch) add(other batch) {
	for network, waiting := range other.wants {
		b.wants[network] = append(b.wants[network], waiting...)
	}
	for network, whole := range other.whole {
		b.whole[network] = b.whole[network] || whole
	}
	for network := range other.tell {
		b.tell[network] = true
	}
	b.compare = b.compare || other.compare
}

func newPulls(g *gossip) *pulls { return &pulls{g: g, jobs: map[string]*job{}} }

// ask has an origin asked about networks. answered, which may be nil, is closed when it has answered about the last of
// them. One that is not alive is not asked: when it is again, it is asked about everything.
func (p *pulls) ask(origin string, answered chan struct{}, networks ...string) {
	if len(networks) == 0 {
		return
	}
	b := newBatch()
	for _, network := range networks {
		b.wants[network] = nil
	}
	if answered != nil {
		last := networks[len(networks)-1]
		b.wants[last] = []chan struct{}{answered}
	}
	p.enqueue(origin, b)
}

// compare has this node and another compare what they know.
func (p *pulls) compare(id string) {
	b := newBatch()
	b.compare = true
	p.enqueue(id, b)
}

func (p *pulls) enqueue(origin string, b batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, _, ok := p.g.contacts.live(origin); !ok {
		return
	}
	j := p.jobs[origin]
	if j == nil {
		j = &job{batch: newBatch(), wake: make(chan struct{}, 1)}
		if !p.g.life.spawn(func(ctx context.Context) { p.work(ctx, origin, j) }) {
			return
		}
		p.jobs[origin] = j
	}
	j.add(b)
	poke(j.wake)
}

// take returns what is to be asked next, at most maxAsked networks. When the origin is not alive, or there is nothing to
// ask and idle is over, the job ends.
func (p *pulls) take(origin string, j *job, idle bool) (b batch, goOn bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, _, live := p.g.contacts.live(origin); !live || j.empty() && idle {
		delete(p.jobs, origin)
		return batch{}, false
	}
	b = newBatch()
	b.compare, b.tell, j.compare, j.tell = j.compare, j.tell, false, b.tell
	for network, waiting := range j.wants {
		if len(b.wants) == maxAsked {
			break
		}
		b.wants[network], b.whole[network] = waiting, j.whole[network]
		delete(j.wants, network)
		delete(j.whole, network)
	}
	return b, true
}

// work asks one origin until it is no longer alive, or there has been nothing to ask for a while.
func (p *pulls) work(ctx context.Context, origin string, j *job) {
	var c *pullConn
	defer func() { c.close() }()
	idle, retry := false, pullRetry
	for ctx.Err() == nil {
		b, goOn := p.take(origin, j, idle)
		if !goOn {
			return
		}
		addr, gone, _ := p.g.contacts.live(origin)
		if b.empty() {
			idle = p.rest(ctx, j.wake, gone, pullIdle)
			continue
		}
		idle = false
		reused := c != nil
		left, err := p.g.exchange(ctx, &c, origin, addr, b)
		if err == nil {
			retry = pullRetry
			p.putBack(j, left)
			continue
		}
		c.close()
		c = nil
		p.putBack(j, left)
		if reused {
			continue // the other side has restarted, or did not wait; a new connection tells
		}
		p.g.log.WithError(err).WithField("node", origin).Debug("pull failed")
		p.rest(ctx, nil, gone, retry/2+rand.N(retry/2))
		retry = min(2*retry, pullRetryMax)
	}
}

// rest tells whether all of d has passed.
func (p *pulls) rest(ctx context.Context, wake, gone <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
	case <-gone:
	case <-ctx.Done():
	}
	return false
}

func (p *pulls) putBack(j *job, b batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j.add(b)
}

// pullConn is a connection to an origin, closed when the run ends.
type pullConn struct {
	*frames
	addr   netip.AddrPort
	cancel func() bool
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
	return &pullConn{newFrames(conn), addr, context.AfterFunc(ctx, func() { conn.Close() })}, nil
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
		c := d.change()
		if missing--; d.err == nil && missing < 0 {
			return 0, errors.New("more changes than announced")
		}
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

// compareAll compares with one random live node every few seconds.
func (g *gossip) compareAll(ctx context.Context) {
	every := g.cfg.antiEntropy
	if every == 0 {
		every = antiEntropyEvery
	}
	for every > 0 && pause(ctx, every*3/4+rand.N(every/2)) {
		if ids := g.contacts.allLive(true); len(ids) > 0 {
			g.pulls.compare(ids[rand.IntN(len(ids))])
		}
	}
}
