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
	lives   map[uint64]int // those of all, with how many have each
	twins   map[string]*twin
	foreign map[string]netip.Addr // cluster id, one who belongs to it
	strange map[netip.Addr]string // nodes that cannot be understood, and why

	credulous bool // a seam for tests: a node is where memberlist was told
}

// contact is one other node.
type contact struct {
	id, name string
	heard    netip.AddrPort // where its gossip is, as somebody with the key has said
	met      netip.AddrPort // its cluster port, where it has proved that it is there
	fresh    bool           // and that was in this run
	port     uint16         // of its cluster port, as was said
	life     uint64         // in which it seals its datagrams; 0: not known
	cluster  string
	epoch    uint64 // that it is ready to be asked about; 0: none
	unasked  bool   // it has joined, or begun an epoch, and must be asked for all its rows

	alive     bool          // says memberlist
	gone      chan struct{} // closed when it stops being alive
	suspended bool
	since     time.Time  // when it was suspended
	silent    time.Time  // when memberlist took it for dead; zero: it was not heard in this run
	answers   netip.Addr // while it is not alive: where its host answers
	probing   bool
	probed    time.Time // when the last probe began

	fact    registered
	hasFact bool
	tried   time.Time // the last attempt to join it
}

func newContacts(self string) *contacts {
	return &contacts{self: self, all: map[string]*contact{}, lives: map[uint64]int{}, twins: map[string]*twin{}, foreign: map[string]netip.Addr{}, strange: map[netip.Addr]string{}}
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
// does not say where it is. The caller holds mu.
func (c *contacts) known(n *contact, m meta, gossip netip.AddrPort) bool {
	if gossip.Port() == 0 {
		gossip = n.heard
	}
	moved := n.heard != gossip || n.port != m.port || n.name != m.name
	n.name, n.heard, n.port, n.cluster = m.name, gossip, m.port, m.cluster
	if m.life != 0 {
		c.setLife(n, m.life)
	}
	if m.epoch != n.epoch {
		n.epoch, n.unasked = m.epoch, true
	}
	return moved
}

// joined: memberlist has found a node alive. One that was suspended stays so until its host answers: what memberlist was
// told may be old, or a lie.
func (c *contacts) joined(id string, m meta, gossip netip.AddrPort) {
	if id == c.self {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.get(id)
	c.known(n, m, gossip)
	n.unasked = true
	if !n.alive {
		n.alive, n.gone, n.probed = true, make(chan struct{}), time.Time{}
	}
}

// updated: a node has changed what it says of itself.
func (c *contacts) updated(id string, m meta, gossip netip.AddrPort) bool {
	if id == c.self {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known(c.get(id), m, gossip)
}

// left: memberlist takes a node for dead.
func (c *contacts) left(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.all[id]; n != nil && n.alive {
		n.alive, n.answers, n.probed, n.silent = false, netip.Addr{}, time.Time{}, time.Now()
		close(n.gone)
	}
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
	n := c.all[id]
	switch {
	case n != nil && n.fact.Forgotten:
		return "was taken out of the cluster, or left behind"
	case n == nil && c.strays() >= maxStrays:
		return "is not registered, like too many others"
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

// trusted returns the ids of those in the facts that have something to say; if there are none, of all that have.
func (c *contacts) trusted() []string {
	all := c.allLive(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	strays := func(id string) bool { return c.all[id] == nil || !c.all[id].hasFact }
	if known := slices.DeleteFunc(slices.Clone(all), strays); len(known) > 0 {
		return known
	}
	return all
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
			c.setLife(n, 0)
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

// where a node is: where its host answers while the node does not, else as in places.
func (n *contact) where() (addr netip.Addr, port uint16) {
	port = n.port
	if port == 0 {
		port = n.fact.RaftPort
	}
	if n.fresh {
		port = n.met.Port()
	}
	if !n.alive && n.answers.IsValid() {
		return n.answers, port
	}
	if places := n.places(); len(places) > 0 {
		return places[0], port
	}
	return netip.Addr{}, port
}

// places where a node may be, the likeliest first: where it was met in this run, where the facts say, where it was met
// before. What memberlist was told counts only when there is nothing else: it would lead traffic to whoever has the key.
func (n *contact) places() []netip.Addr {
	places := []netip.Addr{n.fact.Addr, n.met.Addr()}
	if n.fresh {
		slices.Reverse(places)
	}
	places = slices.DeleteFunc(places, func(a netip.Addr) bool { return !a.IsValid() })
	if len(places) == 0 && n.heard.IsValid() {
		places = append(places, n.heard.Addr())
	}
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
		m := member{ID: id, Name: cmp.Or(n.fact.Name, n.name), Alive: n.alive, Suspended: n.suspended, Silent: n.silent}
		if m.Addr, m.RaftPort = n.where(); c.credulous && n.alive {
			m.Addr = n.heard.Addr()
		}
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
		targets = append(targets, netip.AddrPortFrom(t.there.Addr(), next.fact.GossipPort))
	}
	targets = slices.DeleteFunc(targets, func(a netip.AddrPort) bool { return !a.Addr().IsValid() || a.Port() == 0 })
	slices.SortFunc(targets, netip.AddrPort.Compare)
	return slices.Compact(targets)
}
