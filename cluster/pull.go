package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
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

// release lets those go who wait for answers; the questions stay.
func (b *batch) release() {
	for network, waiting := range b.wants {
		for _, ch := range waiting {
			close(ch)
		}
		b.wants[network] = nil
	}
}

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
		if errors.Is(err, syscall.ECONNREFUSED) {
			left.release() // nothing runs there, and memberlist has not noticed yet; it says itself when it is back
		}
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

// compareAll compares with one random live node every few seconds: one of the facts if there is any, since somebody with the
// key can invent others by the hundred.
func (g *gossip) compareAll(ctx context.Context) {
	every := g.cfg.antiEntropy
	if every == 0 {
		every = antiEntropyEvery
	}
	for every > 0 && pause(ctx, every*3/4+rand.N(every/2)) {
		if ids := g.contacts.trusted(); len(ids) > 0 {
			g.pulls.compare(ids[rand.IntN(len(ids))])
		}
	}
}
