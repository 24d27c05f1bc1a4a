package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// probeEvery is how often a node that is not alive is probed; a host that dies a while after its plugin keeps its entries
	// for so long, and one that comes back without its plugin waits so long for them.
	probeEvery = 2 * time.Second
	// probeTries begin probeStagger after each other, and all end after probeTimeout: a host counts as gone within 0.9 s of its
	// node being found dead, after six SYNs from six sockets, none of which TCP would repeat before a second has passed (RFC
	// 6298 section 2.1). Of a hundred packets ten are lost on a bad day: then the six fail together once in 20,000 times.
	probeTries   = 6
	probeStagger = 120 * time.Millisecond
	probeTimeout = 900 * time.Millisecond
	// maxProbes at a time, so that fifty dead hosts are found in 2 s and cost no more than 400 sockets for that time.
	maxProbes = 32
	// strayKept is how long a node that has no fact, and whose host is gone, is remembered: it never became a member, or
	// the facts have been lost.
	strayKept = time.Hour
)

// probe asks whether the host at an address lives, whatever became of its plugin, until ctx ends.
type probe func(ctx context.Context, addr netip.AddrPort) bool

// hostLives tries to connect: the kernel of a living host accepts, or refuses, without the plugin. Only silence and the
// network's word that there is no such host speak against it; an error of our own (no sockets left, a local firewall) says
// nothing about the host, which then counts as alive.
func hostLives(from netip.Addr) probe {
	return func(ctx context.Context, addr netip.AddrPort) bool {
		dialer := net.Dialer{KeepAlive: -1}
		if from.IsValid() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		conn, err := dialer.DialContext(ctx, "tcp", addr.String())
		if err == nil {
			conn.Close()
			return true
		}
		var timeout net.Error
		silent := errors.As(err, &timeout) && timeout.Timeout() || ctx.Err() != nil
		return !silent && !slices.ContainsFunc(noSuchHost, func(no syscall.Errno) bool { return errors.Is(err, no) })
	}
}

var noSuchHost = []syscall.Errno{syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ETIMEDOUT, syscall.ENETDOWN}

// suspects returns nodes that are not alive, or not known to be back, and were not probed for a while, and where their hosts may be. They count as
// being probed until probed is called.
func (c *contacts) suspects(now time.Time) map[string][]netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	running := 0
	for _, n := range c.all {
		if n.probing {
			running++
		}
	}
	all := map[string][]netip.AddrPort{}
	for id, n := range c.all {
		if n.alive && !n.suspended || n.fact.Forgotten || n.probing || now.Sub(n.probed) < probeEvery || running >= maxProbes {
			continue
		}
		n.probing, n.probed = true, now
		running++
		_, port := n.where()
		var addrs []netip.AddrPort
		for _, addr := range n.places() {
			addrs = append(addrs, netip.AddrPortFrom(addr, port))
		}
		all[id] = addrs
	}
	return all
}

// probed notes where the host of a node answers; the zero address if nowhere. It tells whether that is news, and whether
// the node should be forgotten altogether.
func (c *contacts) probed(id string, answers netip.Addr, now time.Time) (changed, stray bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[id]
	if n == nil {
		return false, false
	}
	n.probing = false
	if n.alive {
		changed = n.suspended && answers.IsValid()
		n.suspended = n.suspended && !changed
		return changed, false
	}
	was, suspended := n.answers, n.suspended
	n.answers, n.suspended = answers, !answers.IsValid()
	if n.suspended && !suspended {
		n.since = now
	}
	if n.suspended && !n.hasFact && now.Sub(n.since) >= strayKept {
		c.setLife(n, 0)
		delete(c.all, id)
		return true, true
	}
	return n.answers != was || n.suspended != suspended, false
}

// watchHosts probes the nodes that are not alive, at once when one stops being so, and every few seconds after that.
func (g *gossip) watchHosts(ctx context.Context) {
	select {
	case <-g.met: // before that, nobody is known to be alive
	case <-ctx.Done():
		return
	}
	for {
		for id, addrs := range g.contacts.suspects(time.Now()) {
			if !g.life.spawn(func(ctx context.Context) { g.probeHost(ctx, id, addrs) }) {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-g.died:
		case <-time.After(probeEvery / 4): // for those that had to wait until another probe has ended
		}
	}
}

// probeHost suspends a node or takes that back.
func (g *gossip) probeHost(ctx context.Context, id string, addrs []netip.AddrPort) {
	found := make([]bool, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { found[i] = g.hostAnswers(ctx, addr) })
	}
	wg.Wait()
	// Long after its node a host dies seldom, and six packets are lost by chance: it is asked a second time.
	if !slices.Contains(found, true) && g.contacts.answered(id) {
		for i, addr := range addrs {
			wg.Go(func() { found[i] = g.hostAnswers(ctx, addr) })
		}
		wg.Wait()
	}
	var answers netip.Addr
	if i := slices.Index(found, true); i >= 0 {
		answers = addrs[i].Addr()
	}
	if ctx.Err() != nil {
		return
	}
	changed, stray := g.contacts.probed(id, answers, time.Now())
	if !changed {
		return
	}
	log := g.log.WithField("node", id)
	switch {
	case stray:
		log.Info("a node that was never a member is gone: its records are dropped")
		g.drop(id)
	case answers.IsValid():
		log.WithField("vtep", answers).Info("the node does not answer, but its host does: its endpoints stay")
	default:
		log.Warn("the node and its host do not answer: its endpoints are suspended")
	}
	g.onChange()
}

// answered tells whether the host of a node that is not alive has answered before.
func (c *contacts) answered(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[id]
	return n != nil && !n.alive && n.answers.IsValid()
}

// hostAnswers tries more than once, for a packet may be lost.
func (g *gossip) hostAnswers(ctx context.Context, addr netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make(chan bool, probeTries)
	for i := range probeTries {
		wg.Go(func() { results <- pause(ctx, time.Duration(i)*probeStagger) && g.probe(ctx, addr) })
	}
	for range probeTries {
		if <-results {
			return true
		}
	}
	return false
}
