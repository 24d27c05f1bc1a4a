package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// contacts is where the other nodes are, as far as this one knows. memberlist writes into it under its own locks, so
// nothing here waits or calls out.
type contacts struct {
	self string

	mu      sync.Mutex
	cluster string // this node's; "" while it belongs to none
	all     map[string]*contact
	twins   map[string]*twin
	foreign map[string]netip.Addr // cluster id, one who belongs to it
	strange map[netip.Addr]string // nodes that cannot be understood, and why
}

// contact is one other node.
type contact struct {
	id, name string
	heard    netip.AddrPort // where its gossip was last heard
	fresh    bool           // and that was in this run
	port     uint16         // of its cluster port
	cluster  string
	epoch    uint64 // that it is ready to be asked about; 0: none
	unasked  bool   // it has joined, or begun an epoch, and must be asked for all its rows

	alive     bool          // says memberlist
	gone      chan struct{} // closed when it stops being alive
	suspended bool
	since     time.Time  // when it was suspended
	answers   netip.Addr // while it is not alive: where its host answers
	probing   bool
	probed    time.Time // when the last probe began

	fact    registered
	hasFact bool
	tried   time.Time // the last attempt to join it
}

// twin is an id that was seen at two addresses.
type twin struct {
	addr        netip.AddrPort // the one that memberlist refused
	first, last time.Time
}

func newContacts(self string) *contacts {
	return &contacts{self: self, all: map[string]*contact{}, twins: map[string]*twin{}, foreign: map[string]netip.Addr{}, strange: map[netip.Addr]string{}}
}

func (c *contacts) get(id string) *contact {
	if c.all[id] == nil {
		c.all[id] = &contact{id: id, gone: closedChan()}
	}
	return c.all[id]
}

func closedChan() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}

// known takes over what a node says about itself. It tells whether the node has moved; an address without a port
// does not say where it is.
func (n *contact) known(m meta, gossip netip.AddrPort) bool {
	if gossip.Port() == 0 {
		gossip = n.heard
	}
	moved := n.heard != gossip || n.port != m.port || n.name != m.name
	n.name, n.heard, n.fresh, n.port, n.cluster = m.name, gossip, gossip.IsValid(), m.port, m.cluster
	if m.epoch != n.epoch {
		n.epoch, n.unasked = m.epoch, true
	}
	return moved
}

// joined: memberlist has found a node alive.
func (c *contacts) joined(id string, m meta, gossip netip.AddrPort) {
	if id == c.self {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.get(id)
	n.known(m, gossip)
	n.unasked = true
	if !n.alive {
		n.alive, n.gone = true, make(chan struct{})
	}
	n.suspended = false
}

// updated: a node has changed what it says of itself.
func (c *contacts) updated(id string, m meta, gossip netip.AddrPort) bool {
	if id == c.self {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(id).known(m, gossip)
}

// left: memberlist takes a node for dead.
func (c *contacts) left(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.all[id]; n != nil && n.alive {
		n.alive, n.answers, n.probed = false, netip.Addr{}, time.Time{}
		close(n.gone)
	}
}

// conflict: an id that lives at one address was heard from another.
func (c *contacts) conflict(id string, other netip.AddrPort, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.twins[id]
	if t == nil || now.Sub(t.last) > twinForgotten {
		t = &twin{first: now}
		c.twins[id] = t
	}
	t.addr, t.last = other, now
}

const (
	// twinForgotten is how long a conflict is remembered: memberlist repeats it with each push/pull, every 30 s.
	twinForgotten = 90 * time.Second
	// twinProven is how long a conflict must last until it is two hosts with one identity rather than one that has moved,
	// for the old address is given up when the node is found dead there, within 12 s (reliability of memberlist at N=50).
	twinProven = 2 * time.Minute
)

// twinned returns the ids that two hosts use at the same time, with the second address.
func (c *contacts) twinned(now time.Time) map[string]netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]netip.AddrPort{}
	for id, t := range c.twins {
		switch {
		case now.Sub(t.last) > twinForgotten:
			delete(c.twins, id)
		case t.last.Sub(t.first) > twinProven:
			found[id] = t.addr
		}
	}
	return found
}

// refuse says why a node may not take part; "" if it may.
func (c *contacts) refuse(id, cluster string, addr netip.Addr) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isForeign(cluster) {
		if len(c.foreign) < maxForeign {
			c.foreign[cluster] = addr
		}
		return "belongs to cluster " + cluster
	}
	if n := c.all[id]; n != nil && n.fact.Forgotten {
		return "was forgotten"
	}
	return ""
}

// misunderstood: a node says of itself what this one cannot read.
func (c *contacts) misunderstood(addr netip.Addr, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.strange) < maxForeign {
		c.strange[addr] = why.Error()
	}
}

// strangers returns nodes that could not be understood, and forgets them.
func (c *contacts) strangers() map[netip.Addr]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	met := c.strange
	c.strange = map[netip.Addr]string{}
	return met
}

// maxForeign bounds the alarms that somebody with the key can make.
const maxForeign = 8

func (c *contacts) isForeign(cluster string) bool {
	return cluster != "" && c.cluster != "" && cluster != c.cluster
}

// foreigners returns other clusters that were met, and forgets them.
func (c *contacts) foreigners() map[string]netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	met := c.foreign
	c.foreign = map[string]netip.Addr{}
	return met
}

// usable: alive, of our cluster, and not forgotten.
func (c *contacts) usable(n *contact) bool {
	return n.alive && !n.fact.Forgotten && !c.isForeign(n.cluster)
}

// live returns the cluster port of a node that can be asked, and a channel that is closed when it no longer can.
func (c *contacts) live(id string) (addr netip.AddrPort, gone <-chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[id]
	if n == nil || !c.usable(n) {
		return netip.AddrPort{}, nil, false
	}
	return netip.AddrPortFrom(n.heard.Addr(), n.port), n.gone, true
}

// allLive returns the ids of those that can be asked; with ready, only of those that have something to say.
func (c *contacts) allLive(ready bool) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, n := range c.all {
		if c.usable(n) && (n.epoch != 0 || !ready) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// count is how many nodes can be asked.
func (c *contacts) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, n := range c.all {
		if c.usable(n) {
			count++
		}
	}
	return count
}

// takeUnasked returns the nodes that must be asked for all their rows.
func (c *contacts) takeUnasked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id, n := range c.all {
		if n.unasked && n.epoch != 0 && c.usable(n) {
			n.unasked = false
			ids = append(ids, id)
		}
	}
	return ids
}

// setFacts takes over what the facts say. It returns the ids that were forgotten, and whether anything is different.
func (c *contacts) setFacts(cluster string, nodes []registered) (forgotten []string, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cluster = cluster
	listed := map[string]bool{}
	for _, r := range nodes {
		if r.ID == c.self || r.ID == "" {
			continue
		}
		listed[r.ID] = true
		n := c.get(r.ID)
		changed = changed || n.fact != r
		n.fact, n.hasFact = r, true
		if r.Forgotten {
			forgotten = append(forgotten, r.ID)
		}
	}
	for id, n := range c.all {
		if n.hasFact && !listed[id] {
			n.fact, n.hasFact, changed = registered{}, false, true
		}
	}
	return forgotten, changed
}

// where a node is: where it is heard while it is alive, else where its host answers, else as in places.
func (n *contact) where() (addr netip.Addr, port uint16) {
	port = n.port
	if port == 0 {
		port = n.fact.RaftPort
	}
	switch {
	case n.alive:
		return n.heard.Addr(), port
	case n.answers.IsValid():
		return n.answers, port
	}
	if places := n.places(); len(places) > 0 {
		return places[0], port
	}
	return netip.Addr{}, port
}

// places where a node that is not alive may be, the likeliest first: where it was heard in this run, where the facts say,
// where it was heard before.
func (n *contact) places() []netip.Addr {
	places := []netip.Addr{n.fact.Addr, n.heard.Addr()}
	if n.fresh {
		slices.Reverse(places)
	}
	places = slices.DeleteFunc(places, func(a netip.Addr) bool { return !a.IsValid() })
	return slices.Compact(places)
}

// members are all nodes but this one, and those that were forgotten, sorted by id.
func (c *contacts) members() []member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []member
	for id, n := range c.all {
		if n.fact.Forgotten || c.isForeign(n.cluster) {
			continue
		}
		m := member{ID: id, Name: cmp.Or(n.fact.Name, n.name), Alive: n.alive, Suspended: n.suspended}
		if n.alive {
			m.Name = n.name
		}
		m.Addr, m.RaftPort = n.where()
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// unreachable returns the node that waits longest for an attempt to join it, and where it may be. Each has its turn.
func (c *contacts) unreachable(now time.Time) (targets []netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next *contact
	for _, n := range c.all {
		if !n.alive && !n.fact.Forgotten && !c.isForeign(n.cluster) && (next == nil || n.tried.Before(next.tried)) {
			next = n
		}
	}
	if next == nil || next.tried.Equal(now) {
		return nil
	}
	next.tried = now
	targets = append(targets, netip.AddrPortFrom(next.fact.Addr, next.fact.GossipPort), next.heard)
	if t := c.twins[next.id]; t != nil {
		targets = append(targets, t.addr)
	}
	targets = slices.DeleteFunc(targets, func(a netip.AddrPort) bool { return !a.Addr().IsValid() || a.Port() == 0 })
	slices.SortFunc(targets, netip.AddrPort.Compare)
	return slices.Compact(targets)
}
