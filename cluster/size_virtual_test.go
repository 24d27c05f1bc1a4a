//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// manyNodes is how many nodes the figures are for.
const manyNodes = 100

// arrival is how many records have reached how many nodes at one instant.
type arrival struct {
	after   time.Duration
	records int
}

// spreading is how records of one or more runs have spread, and what that took.
type spreading struct {
	runs     int
	arrivals []arrival
	last     time.Duration
	used     usage // by all nodes, from the first record on, for a second at least
}

// usage is what has been sent.
type usage struct {
	over     time.Duration
	packets  int // datagrams
	bytes    int // in them
	pulls    int // connections
	pulled   int // bytes
	busiest  int // bytes that the node has answered which was asked most
	answered map[*memNode]int
}

func (c *memCluster) usage() usage {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	u := usage{packets: c.net.packets, bytes: c.net.bytes, answered: map[*memNode]int{}}
	for _, n := range c.nodes {
		u.pulls += n.pulls
		u.pulled += n.pulled
		u.answered[n] = n.pulled
	}
	return u
}

// since is what was sent since an earlier look.
func (u usage) since(before usage, over time.Duration) usage {
	d := usage{over: over, packets: u.packets - before.packets, bytes: u.bytes - before.bytes, pulls: u.pulls - before.pulls, pulled: u.pulled - before.pulled}
	for n, bytes := range u.answered {
		d.busiest = max(d.busiest, bytes-before.answered[n])
	}
	return d
}

func (u usage) plus(v usage) usage {
	return usage{over: u.over + v.over, packets: u.packets + v.packets, bytes: u.bytes + v.bytes, pulls: u.pulls + v.pulls, pulled: u.pulled + v.pulled, busiest: max(u.busiest, v.busiest)}
}

func (s *spreading) add(o spreading) {
	s.runs += o.runs
	s.arrivals = append(s.arrivals, o.arrivals...)
	s.last = max(s.last, o.last)
	s.used = s.used.plus(o.used)
}

// after is when a share of all records had reached all nodes, each pair of record and node counted by itself.
func (s *spreading) after(share float64) time.Duration {
	slices.SortFunc(s.arrivals, func(a, b arrival) int { return cmp.Compare(a.after, b.after) })
	total := 0
	for _, a := range s.arrivals {
		total += a.records
	}
	sum := 0
	for _, a := range s.arrivals {
		if sum += a.records; float64(sum) >= share*float64(total) {
			return a.after
		}
	}
	return s.last
}

// version of a row as a node knows it.
func (n *memNode) version(network string, origin *memNode) version {
	n.gossip.mu.Lock()
	defer n.gossip.mu.Unlock()
	return n.gossip.table.version(rowKey{network, origin.id})
}

// putMany writes records like those of the driver: an endpoint's id, and 14 bytes.
func (c *memCluster) putMany(network string, records int, origins []*memNode) {
	for i := range records {
		id := fmt.Sprintf("%016x%016x%016x%016x", rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64())
		origins[i%len(origins)].put(network, id, "\x01\x02\x42\xac\x11\x00\x02\x01\x18\x04\x0a\x01\x02\x03")
	}
}

// spread makes records at one instant, evenly on the origins, and waits until all nodes have them.
func (c *memCluster) spread(network string, records int, origins []*memNode) spreading {
	c.t.Helper()
	before, start := c.usage(), time.Now()
	c.putMany(network, records, origins)
	s := spreading{runs: 1}
	type pair struct {
		node, origin int
	}
	var missing []pair
	made := make([]int, len(origins))
	want := make([]version, len(origins))
	for i, origin := range origins {
		made[i], want[i] = (records+len(origins)-1-i)/len(origins), origin.version(network, origin)
		for j, n := range c.nodes {
			if n != origin {
				missing = append(missing, pair{j, i})
			}
		}
	}
	for len(missing) > 0 {
		if time.Since(start) > time.Minute {
			c.t.Fatalf("%d records on %d nodes: after a minute %d rows are missing", records, len(origins), len(missing))
		}
		pause(context.Background(), max(time.Millisecond, time.Since(start)/100))
		s.last = time.Since(start)
		missing = slices.DeleteFunc(missing, func(p pair) bool {
			there := !want[p.origin].newer(c.nodes[p.node].version(network, origins[p.origin]))
			if there {
				s.arrivals = append(s.arrivals, arrival{s.last, made[p.origin]})
			}
			return there
		})
	}
	over := max(s.last, time.Second)
	pause(context.Background(), over-s.last)
	s.used = c.usage().since(before, over)
	return s
}

// withdraw takes all records back.
func (c *memCluster) withdraw(network string) {
	for _, n := range c.nodes {
		n.gossip.mu.Lock()
		keys := slices.Collect(maps.Keys(n.gossip.table.own[network].records))
		n.gossip.mu.Unlock()
		for _, key := range keys {
			if err := n.gossip.publish(network, key, nil); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	c.until(time.Minute, "withdrawn", func() bool { return c.converged(network) })
	pause(c.t.Context(), pullIdle+time.Second)
}

// byHintsAlone: nothing is left to anti-entropy, and no time is spent on disks.
func byHintsAlone(cfg *gossipConfig) { cfg.antiEntropy, cfg.forgetful = -1, true }

// bigCluster is formed, and has a network.
func bigCluster(t *testing.T, tune func(*gossipConfig)) *memCluster {
	c := newMemCluster(t, manyNodes, tune)
	c.net.set(func() { c.net.wire = lan() })
	// Whom memberlist's rumours miss hears with the next exchange of all it knows: every 90 s among 100 nodes.
	c.until(5*time.Minute, "formed", c.formed)
	for _, n := range c.nodes {
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
	}
	c.until(time.Minute, "known who attends", func() bool { return c.converged("blue") })
	pause(t.Context(), pullIdle+time.Second) // connections are made anew
	return c
}

// TestVirtualSize is what the control plane does at the size that it is made for, and how long that may take.
func TestVirtualSize(t *testing.T) {
	f := newFigures()
	for _, part := range []struct {
		name string
		do   func(t *testing.T, f *figures)
	}{
		{"bursts", sizeBursts}, {"start", sizeStart}, {"partitions", sizePartitions},
	} {
		t.Run(part.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { part.do(t, f) })
		})
	}
	f.write(t)
}

// sizeBursts: one record is everywhere within 0.5 s and 10,000 within 3 s, and twice that while a tenth of the datagrams is
// lost.
func sizeBursts(t *testing.T, f *figures) {
	c := bigCluster(t, byHintsAlone)
	defer c.close()
	for _, records := range append([]int{1}, f.records...) {
		for _, loss := range f.losses {
			if records > 10_000 && loss > 0 { // ten million records each
				continue
			}
			c.net.set(func() { c.net.loss = loss })
			var one, all spreading
			for range f.runs(records) {
				one.add(c.spread("blue", records, c.nodes[rand.N(manyNodes):][:1]))
				pause(t.Context(), time.Second)
				if records > 1 {
					pause(t.Context(), pullIdle) // connections are made anew
					all.add(c.spread("blue", records, c.nodes))
					pause(t.Context(), pullIdle+time.Second)
				}
				if f.all {
					c.withdraw("blue")
				}
			}
			f.burst(t, percent(loss), records, "one node", one)
			if records > 1 {
				f.burst(t, percent(loss), records, "all nodes", all)
			}
			limit := map[int]time.Duration{1: 500 * time.Millisecond, 1000: 3 * time.Second, 10_000: 3 * time.Second}[records]
			if loss > 0 {
				limit *= 2
			}
			if last := max(one.last, all.last); limit > 0 && loss <= 0.1 && last > limit {
				t.Errorf("%.0f %% loss, %d records: everywhere after %v, which may take %v", 100*loss, records, last, limit)
			}
		}
	}
	c.lossyStreams(f)
	c.net.set(func() { c.net.loss, c.net.wire.loss = 0, 0 })
	c.joins(f)
}

// lossyStreams: a pull takes several flights of segments, of which TCP sends the first again after a second.
func (c *memCluster) lossyStreams(f *figures) {
	for _, loss := range []float64{0.01, 0.1} {
		c.net.set(func() { c.net.loss, c.net.wire.loss = loss, loss })
		var one spreading
		for range f.ones {
			one.add(c.spread("blue", 1, c.nodes[rand.N(manyNodes):][:1]))
			pause(c.t.Context(), time.Second)
		}
		f.burst(c.t, percent(loss)+", streams too", 1, "one node", one)
		if p99 := one.after(.99); p99 > 2*time.Second {
			c.t.Errorf("%s loss, of streams too: one record is on 99 %% after %v", percent(loss), p99)
		}
	}
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
