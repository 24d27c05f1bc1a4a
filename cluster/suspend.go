package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// probeEvery is how often a node that is not alive is probed; a host that dies a while after its plugin keeps its entries
	// for so long, and one that comes back without its plugin waits so long for them.
	probeEvery = 2 * time.Second
	// probeTries, the second probeStagger after the first, and probeTimeout for each: a lost SYN is sent again after 1 s
	// (RFC 6298 section 2.1), so four of them are sent before a host counts as gone, 1.5 s after its node was found dead.
	probeTries   = 2
	probeStagger = 300 * time.Millisecond
	probeTimeout = 1200 * time.Millisecond
	// maxProbes at a time, so that fifty dead hosts are found in 6 s and cost no more than 64 sockets.
	maxProbes = 16
	// strayKept is how long a node that has no fact, and whose host is gone, is remembered: it never became a member, or
	// the facts have been lost.
	strayKept = time.Hour
)

// probe asks whether the host at an address lives, whatever became of its plugin.
type probe func(ctx context.Context, addr netip.AddrPort) bool

// hostLives tries to connect: the kernel of a living host accepts, or refuses, without the plugin. Only silence and the
// network's word that there is no such host speak against it; an error of our own (no sockets left, a local firewall) says
// nothing about the host, which then counts as alive.
func hostLives(from netip.Addr) probe {
	return func(ctx context.Context, addr netip.AddrPort) bool {
		dialer := net.Dialer{Timeout: probeTimeout, KeepAlive: -1}
		if from.IsValid() {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		conn, err := dialer.DialContext(ctx, "tcp", addr.String())
		if err == nil {
			conn.Close()
			return true
		}
		var timeout net.Error
		silent := errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
		return !silent && !slices.ContainsFunc(noSuchHost, func(no syscall.Errno) bool { return errors.Is(err, no) })
	}
}

var noSuchHost = []syscall.Errno{syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ETIMEDOUT, syscall.ENETDOWN}

// suspects returns nodes that are not alive and were not probed for a while, and where their hosts may be. They count as
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
		if n.alive || n.fact.Forgotten || n.probing || now.Sub(n.probed) < probeEvery || running >= maxProbes {
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
		return false, false
	}
	was, suspended := n.answers, n.suspended
	n.answers, n.suspended = answers, !answers.IsValid()
	if n.suspended && !suspended {
		n.since = now
	}
	if n.suspended && !n.hasFact && now.Sub(n.since) >= strayKept {
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

// hostAnswers tries more than once, for a packet may be lost.
func (g *gossip) hostAnswers(ctx context.Context, addr netip.AddrPort) bool {
	ctx, cancel := context.WithCancel(ctx)
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
