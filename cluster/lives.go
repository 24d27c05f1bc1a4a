package cluster

import (
	"fmt"
	"net/netip"
	"time"
)

// maxStrays bounds the nodes that are not in the facts and take part all the same: somebody with the key can invent them. A
// node that has just joined knows all others only as such, for a moment.
const maxStrays = 500

// strays counts them. The caller holds mu.
func (c *contacts) strays() int {
	count := 0
	for _, n := range c.all {
		if !n.hasFact {
			count++
		}
	}
	return count
}

// proved: a node has proved over TLS that it is there, and says this of itself. It tells whether the node has moved. While it
// lives elsewhere, as far as is known, it may be another host with its identity: that is found out first.
func (c *contacts) proved(id string, m meta, gossip netip.AddrPort, at netip.Addr) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.get(id)
	place := n.fact.Addr
	if n.fresh {
		place = n.met.Addr()
	}
	if place.IsValid() && place != at && (n.alive || !n.fresh) {
		c.suspect(id, netip.AddrPortFrom(at, m.port), time.Now())
		return false, fmt.Errorf("node %s is at %s", id, place)
	}
	moved := c.known(n, m, gossip)
	met := netip.AddrPortFrom(at, m.port)
	moved = moved || n.met != met || n.suspended && n.alive
	n.met, n.fresh = met, true
	if n.alive {
		n.suspended = false
	}
	return moved, nil
}

// isPlace tells whether a node that is not forgotten may be at an address.
func (c *contacts) isPlace(addr netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		if !n.fact.Forgotten && (n.fact.Addr == addr || n.met.Addr() == addr) {
			return true
		}
	}
	return false
}

// metAt is where a node has proved that it is.
func (c *contacts) metAt(id string) netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.all[id]; n != nil && !c.credulous {
		return n.met
	}
	return netip.AddrPort{}
}

// setLife notes in which life a node is; 0 for none. The caller holds mu.
func (c *contacts) setLife(n *contact, life uint64) {
	if n.life == life || life != 0 && n.fact.Forgotten {
		return
	}
	if c.lives[n.life]--; c.lives[n.life] <= 0 {
		delete(c.lives, n.life)
	}
	if n.life = life; life != 0 {
		c.lives[life]++
	}
}

// lifeOf is the life for which datagrams to a node are sealed.
func (c *contacts) lifeOf(id string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[id]
	if n == nil || n.life == 0 {
		return 0, false
	}
	return n.life, true
}

// knowsLife tells whether it is that of another node.
func (c *contacts) knowsLife(life uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return life != 0 && c.lives[life] > 0
}
