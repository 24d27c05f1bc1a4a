//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// converged: every node that runs has the newest rows of all that do.
func (c *memCluster) converged(network string) bool {
	for _, origin := range c.nodes {
		if origin.gossip == nil {
			continue
		}
		want := origin.version(network, origin)
		for _, n := range c.nodes {
			if n != origin && n.gossip != nil && n.version(network, origin) != want {
				return false
			}
		}
	}
	return true
}

// inTime says how long an event may take: what was measured, three times over.
func (e *event) inTime(t *testing.T, what string, limit time.Duration) {
	t.Helper()
	if e.last() > limit {
		t.Errorf("%s: %v, which may take %v", what, e.last(), limit)
	}
}

// A node that is new, or comes back without its memory, is told everything.
func (c *memCluster) joins(f *figures) {
	t := c.t
	records := 0
	for _, n := range c.nodes {
		records += n.gossip.table.own["blue"].live
	}
	var joined, known event
	for range f.bursts {
		n := c.add()
		before, start := c.usage(), time.Now()
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		n.put("blue", "its first", "x")
		took := c.until(time.Minute, "told everything", func() bool {
			for _, origin := range c.nodes {
				if n.version("blue", origin) != origin.version("blue", origin) {
					return false
				}
			}
			return true
		})
		joined.add(took, c.usage().since(before, took))
		c.until(time.Minute, "known to all", func() bool { return c.converged("blue") })
		known.add(time.Since(start), c.usage().since(before, time.Since(start)))
		pause(t.Context(), time.Second)
	}
	f.event(t, fmt.Sprintf("a node joins a network of %d records: it has them all", records), joined)
	f.event(t, "the same: all have its first record", known)
	known.inTime(t, "a node joins", 2*time.Second)
}

// All hosts get their power back at the same time.
func sizeStart(t *testing.T, f *figures) {
	c := makeMemCluster(t, manyNodes, byHintsAlone)
	c.net.wire = lan()
	defer c.close()
	start := time.Now()
	for _, n := range c.nodes {
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
	}
	c.putMany("blue", 10000, c.nodes)
	took := c.until(time.Minute, "told everything", func() bool { return c.converged("blue") })
	var all event
	all.add(took, c.usage().since(usage{}, time.Since(start)))
	f.event(t, "100 nodes start at once with 100 records each: all have all", all)
	all.inTime(t, "100 nodes start at once", 3*time.Second)
}

// sizePartitions have anti-entropy: hints do not cross a cut, and one that heals before memberlist has noticed it leaves nothing
// else to find out by.
func sizePartitions(t *testing.T, f *figures) {
	if !f.all { // TestVirtualPartition has fewer nodes
		return
	}
	c := bigCluster(t, func(cfg *gossipConfig) { cfg.forgetful = true })
	defer c.close()
	c.spread("blue", 1000, c.nodes)
	pause(t.Context(), time.Minute)
	c.idles(f)
	for _, p := range []struct {
		name  string
		away  int // nodes on the other side
		long  time.Duration
		limit time.Duration // to be equal again
	}{
		{"halves apart for 20 s", manyNodes / 2, 20 * time.Second, 15 * time.Second},
		{"halves apart for 60 s", manyNodes / 2, time.Minute, 5 * time.Second},
		{"one node apart for 60 s", 1, time.Minute, 15 * time.Second},
	} {
		var healed event
		for range f.bursts {
			first := rand.N(manyNodes)
			c.net.set(func() {
				for i := range p.away {
					c.net.side[c.nodes[(first+i)%manyNodes].addr] = 1
				}
			})
			pause(t.Context(), p.long/2)
			c.putMany("blue", manyNodes, c.nodes) // one each
			pause(t.Context(), p.long/2)
			before := c.usage()
			c.net.set(func() { clear(c.net.side) })
			took := c.until(time.Minute, "equal", func() bool { return c.converged("blue") })
			healed.add(took, c.usage().since(before, took))
			c.until(time.Minute, "whole", c.formed)
			pause(t.Context(), pullIdle+time.Second)
		}
		f.event(t, p.name+", a new record on each, with anti-entropy: all have all", healed)
		healed.inTime(t, p.name, p.limit)
	}
}

// idles is what it costs when nothing happens.
func (c *memCluster) idles(f *figures) {
	const idle = time.Minute
	before := c.usage()
	pause(c.t.Context(), idle)
	u := c.usage().since(before, idle)
	f.idle(c.t, "nothing happens, with anti-entropy", u)
	if rate := float64(u.bytes) / idle.Seconds() / manyNodes; rate > 1000 {
		c.t.Errorf("%.0f bytes a second of nothing", rate)
	}
}
