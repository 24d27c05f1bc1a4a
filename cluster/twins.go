package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	// twinEvery is how often an identity that was seen at two places is looked at.
	twinEvery = time.Second
	// twinTimeout bounds one look: two round trips, or one lost packet (RFC 6298 section 2.1).
	twinTimeout = 2 * time.Second
	// twinForgotten is how long a place is looked at from which nobody answers and nothing was heard: memberlist repeats a
	// conflict with each push/pull, every 30 s.
	twinForgotten = 90 * time.Second
	// lookLimit is how long a start waits for word of another host with this identity: as long as memberlist tries to reach
	// who may be dead (dialTimeout), and some more.
	lookLimit = 4 * time.Second
)

// twin is an identity that was seen at a second place. Two hosts have it when it answers at both; a host that has moved
// answers at the new one only.
type twin struct {
	there  netip.AddrPort // cluster port of the second
	last   time.Time      // when it was heard of
	proven bool
}

// conflict: an id that lives at one address was heard from another.
func (c *contacts) conflict(id string, there netip.AddrPort, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspect(id, there, now)
}

// suspect is conflict for who holds mu.
func (c *contacts) suspect(id string, there netip.AddrPort, now time.Time) {
	t := c.twins[id]
	if t == nil && len(c.twins) >= maxForeign {
		return
	}
	if t == nil {
		t = &twin{}
		c.twins[id] = t
	}
	if !t.proven {
		t.there = there
	}
	t.last = now
}

// look is one identity to be looked at, and where. This node's own needs no look here.
type look struct {
	id          string
	here, there netip.AddrPort
}

func (c *contacts) looks() []look {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []look
	for id, t := range c.twins {
		l := look{id: id, there: t.there}
		if n := c.all[id]; n != nil {
			addr, port := n.where()
			l.here = netip.AddrPortFrom(addr, port)
		}
		all = append(all, l)
	}
	return all
}

// seen is what a look has shown at one place.
type seen int

const (
	nothing   seen = iota // no answer, which proves nothing
	itself                // the identity in question
	elsewhere             // another identity, or a host on which no node runs: that one is not there
)

// lookedAt takes over what a look has shown, and tells whether two hosts have the identity, and whether that is news.
func (c *contacts) lookedAt(l look, here, there seen, now time.Time) (proven, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.twins[l.id]
	if t == nil || t.there != l.there {
		return false, false
	}
	n := c.all[l.id]
	switch was := t.proven; {
	case l.here.Addr() == l.there.Addr(): // it has moved, and that is known by now
		delete(c.twins, l.id)
		return false, was
	case here == itself && there == itself:
		t.proven, t.last = true, now
		return true, !was
	case there == itself && (here == elsewhere || !was): // it has moved
		delete(c.twins, l.id)
		if n != nil {
			n.met, n.fresh, n.heard = l.there, true, netip.AddrPortFrom(l.there.Addr(), n.heard.Port())
		}
		return false, was
	case there == elsewhere, !was && now.Sub(t.last) > twinForgotten:
		delete(c.twins, l.id)
		return false, was
	}
	return t.proven, false // silence proves nothing: what was two hosts is two hosts
}

// isClear tells whether it is known who has this node's identity.
func (c *contacts) isClear() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.twins[c.self]
	return t == nil || t.proven
}

// rival is where another host has this node's identity.
func (c *contacts) rival() (netip.Addr, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.twins[c.self]
	if t == nil || !t.proven {
		return netip.Addr{}, false
	}
	return t.there.Addr(), true
}

// watchTwins looks at identities that were seen at two places until they are at one.
func (g *gossip) watchTwins(ctx context.Context) {
	limit := time.Now().Add(lookLimit)
	for _, r := range g.cfg.nodes() {
		if r.ID == g.cfg.id && r.Addr != g.cfg.advertise { // it has moved, or is a copy
			g.contacts.conflict(r.ID, r.at(), time.Now())
		}
	}
	select {
	case <-g.met: // whoever knows of a conflict has told us by now
	case <-time.After(lookLimit):
	case <-ctx.Done():
		return
	}
	for {
		looks := g.contacts.looks()
		var wg sync.WaitGroup
		for _, l := range looks {
			wg.Go(func() { g.lookAt(ctx, l) })
		}
		wg.Wait()
		if !closed(g.looked) && (g.contacts.isClear() || time.Now().After(limit)) {
			close(g.looked)
		}
		var again <-chan time.Time
		if len(looks) > 0 {
			again = time.After(twinEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-g.twins:
		case <-again:
		}
	}
}

func (g *gossip) lookAt(ctx context.Context, l look) {
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	here, there := itself, nothing
	var wg sync.WaitGroup
	if l.id != g.cfg.id {
		wg.Go(func() { here = g.who(ctx, l.here, l.id) })
	}
	wg.Go(func() { there = g.who(ctx, l.there, l.id) })
	wg.Wait()
	proven, news := g.contacts.lookedAt(l, here, there, time.Now())
	key := "twin " + l.id
	switch {
	case proven && l.id == g.cfg.id:
		g.cfg.alarms.hold(key, fmt.Sprintf("%s has the identity of this node too: one of the two hosts is a copy of the other. "+
			"Neither gives out addresses until `carrick leave` is run on the copy, which then joins as a new node", l.there.Addr()))
	case proven:
		g.cfg.alarms.hold(key, fmt.Sprintf("%s and %s have the same identity, node %s: one of the two hosts is a copy of the other. "+
			"Neither gives out addresses until `carrick leave` is run on the copy, which then joins as a new node; "+
			"until then only %s is listened to", l.here.Addr(), l.there.Addr(), l.id, l.here.Addr()))
	default:
		g.cfg.alarms.clear(key)
	}
	if news {
		if l.id == g.cfg.id && g.cfg.disputed != nil {
			g.cfg.disputed()
		}
		g.onChange()
	}
}

// who says whether an identity is at an address.
func (g *gossip) who(ctx context.Context, at netip.AddrPort, id string) seen {
	conn, is, err := g.cfg.dial(ctx, at, alpnPull)
	switch {
	case err == nil:
		conn.Close()
	case errors.Is(err, errTwin):
		is = g.cfg.id
	case errors.Is(err, errSelf), errors.Is(err, syscall.ECONNREFUSED):
		return elsewhere
	default:
		return nothing
	}
	if is == id {
		return itself
	}
	return elsewhere
}

// twinAt: another host with this node's identity has connected from there.
func (g *gossip) twinAt(from netip.Addr) {
	g.contacts.conflict(g.cfg.id, netip.AddrPortFrom(from, g.cfg.port), time.Now())
	poke(g.twins)
}
