//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// noAntiEntropy: what arrives has arrived by hints.
func noAntiEntropy(cfg *gossipConfig) { cfg.antiEntropy = -1 }

func TestVirtualOnePut(t *testing.T) {
	for _, size := range []int{3, 10, 25} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, size, noAntiEntropy)
			defer c.close()
			formed := c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			c.nodes[0].put("blue", "aa", "1")
			took := c.until(10*time.Second, "there", func() bool { return c.have("blue", c.nodes[0], 1) })
			t.Logf("%d nodes: formed after %v, one record everywhere after %v", size, formed, took)
			if took > time.Second {
				t.Errorf("one record took %v to %d nodes", took, size)
			}
		})
	}
}

func TestVirtualBurst(t *testing.T) {
	for _, records := range []int{1000, 10000} {
		for _, size := range []int{3, 10, 25} {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, size, noAntiEntropy)
				defer c.close()
				c.until(time.Minute, "formed", c.formed)
				c.attend("blue")
				for i := range records {
					c.nodes[0].put("blue", fmt.Sprintf("%064x", i), "02:42:ac:11:00:02 10.0.0.2 web")
				}
				took := c.until(10*time.Second, "there", func() bool { return c.have("blue", c.nodes[0], records) })
				t.Logf("%d nodes: %d records everywhere after %v", size, records, took)
				if took > time.Second {
					t.Errorf("%d records took %v to %d nodes", records, took, size)
				}
			})
		}
	}
}

// When run has returned, nothing of it runs any more: whatever a goroutine may wait for, in virtual time it is seen to wait.
func TestVirtualEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		for _, n := range c.nodes {
			n.put("blue", "a", "x")
		}
		c.until(10*time.Second, "there", func() bool { return c.have("blue", c.nodes[0], 1) })
		if len(running()) == 0 {
			t.Fatal("nothing of what runs is recognised")
		}
		for _, n := range c.nodes {
			n.kill()
		}
		synctest.Wait()
		for _, stack := range running() {
			t.Errorf("still running:\n%s", stack)
		}
	})
}

// While an origin keeps talking, hints overtake each other and pulls bring more than the hint said; the last one must get
// through all the same.
func TestVirtualSteadyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 25, noAntiEntropy)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		var slowest time.Duration
		for round := range 40 {
			for i := range 7 {
				pause(t.Context(), 13*time.Millisecond)
				c.nodes[i].put("blue", fmt.Sprint(round), "x")
			}
		}
		for i := range 7 {
			slowest = max(slowest, c.until(10*time.Second, "there", func() bool { return c.have("blue", c.nodes[i], 40) }))
		}
		t.Logf("the last of 280 records on 7 of 25 nodes everywhere after %v", slowest)
		if slowest > time.Second {
			t.Errorf("it took %v", slowest)
		}
	})
}

// Those who do not attend a network pass its hints on all the same.
func TestVirtualFewAttend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 25, noAntiEntropy)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		few := c.nodes[:5]
		for _, n := range few {
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
		}
		var slowest time.Duration
		for i := range 50 {
			n := few[i%len(few)]
			n.put("blue", fmt.Sprint(i), "x")
			slowest = max(slowest, c.until(10*time.Second, "there", func() bool {
				for _, other := range few {
					if other != n && other.records("blue", n) != i/len(few)+1 {
						return false
					}
				}
				return true
			}))
		}
		t.Logf("one record to 5 of 25 nodes: at most %v", slowest)
		if slowest > time.Second {
			t.Errorf("it took %v", slowest)
		}
		for _, n := range c.nodes[5:] {
			if pulled := n.gossip.table.remote["blue"]; pulled != nil {
				t.Errorf("%s has pulled what it does not attend: %v", n.id, pulled)
			}
		}
	})
}

func TestVirtualLoss(t *testing.T) {
	for _, loss := range []float64{0.1, 0.3} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 25, nil)
			defer c.close()
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			c.net.set(func() { c.net.loss = loss })
			var all []time.Duration
			for i := range 100 {
				n := c.nodes[i%len(c.nodes)]
				n.put("blue", fmt.Sprint(i), "x")
				all = append(all, c.until(time.Minute, "there", func() bool { return c.have("blue", n, i/len(c.nodes)+1) }))
			}
			slices.Sort(all)
			t.Logf("%.0f %% loss: one record to 25 nodes: p50 %v, p99 %v, max %v", 100*loss, all[50], all[98], all[99])
			if all[98] > 3*time.Second {
				t.Errorf("p99 is %v", all[98])
			}
			pause(t.Context(), time.Minute)
			for _, n := range c.nodes {
				for _, m := range n.gossip.members() {
					if !m.Alive || m.Suspended {
						t.Errorf("%s takes %s for dead", n.id, m.ID)
					}
				}
			}
		})
	}
}

// Without a single datagram, digests find what is missing.
func TestVirtualAntiEntropy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 10, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		c.net.set(func() { c.net.loss = 1 })
		c.nodes[0].put("blue", "a", "x")
		took := c.until(time.Minute, "there", func() bool { return c.have("blue", c.nodes[0], 1) })
		t.Logf("10 nodes without datagrams: one record everywhere after %v", took)
	})
}

func TestVirtualPartition(t *testing.T) {
	for _, size := range []int{4, 10, 25} {
		for _, cut := range []time.Duration{20 * time.Second, 2 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				c := newMemCluster(t, size, nil)
				defer c.close()
				c.until(time.Minute, "formed", c.formed)
				c.attend("blue")
				c.net.set(func() {
					for _, n := range c.nodes[:size/2] {
						c.net.side[n.addr] = 1
					}
				})
				pause(t.Context(), cut/2)
				for _, n := range c.nodes {
					n.put("blue", "during", "x")
				}
				pause(t.Context(), cut/2)
				if cut > time.Minute {
					for _, n := range c.nodes {
						if rows := n.gossip.remote("blue"); len(rows) >= size-1 {
							t.Errorf("%s still has %d rows", n.id, len(rows))
						}
					}
				}
				c.net.set(func() { clear(c.net.side) })
				healed := c.until(time.Minute, "whole again", c.formed)
				took := healed + c.until(time.Minute, "equal", func() bool {
					for _, n := range c.nodes {
						if !c.have("blue", n, 1) {
							return false
						}
					}
					return true
				})
				t.Logf("%d nodes cut in halves for %v: whole after %v, equal after %v", size, cut, healed, took)
				if took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// The plugin of a node is killed, and its host lives: nobody loses a record of it, neither then nor while the new one
// comes up. What the new one says replaces the old as a whole.
func TestVirtualRestart(t *testing.T) {
	for _, away := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 5, func(cfg *gossipConfig) { cfg.hold = true })
			defer c.close()
			for _, n := range c.nodes {
				n.gossip.settle()
			}
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			n := c.nodes[0]
			n.put("blue", "stays", "x")
			n.put("blue", "goes", "x")
			c.until(10*time.Second, "there", func() bool { return c.have("blue", n, 2) })
			old := n.gossip.table.epoch

			n.kill()
			kept := func(d time.Duration) {
				t.Helper()
				for start := time.Now(); time.Since(start) < d; pause(t.Context(), 10*time.Millisecond) {
					if !c.have("blue", n, 2) {
						t.Fatal("records were lost")
					}
				}
			}
			kept(away)
			n.start()
			kept(5 * time.Second)
			for _, other := range n.gossip.remote("blue") {
				if len(other.Records) != 0 {
					t.Errorf("%v", other)
				}
			}
			if got := len(n.gossip.remote("blue")); got != 4 {
				t.Errorf("the restarted node remembers %d of 4 rows", got)
			}
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "stays", "x")
			kept(23 * time.Millisecond)
			n.gossip.settle()
			took := c.until(20*time.Second, "there", func() bool { return c.have("blue", n, 1) })
			t.Logf("away for %v: what it says now is everywhere after %v", away, took)
			if now := n.gossip.table.epoch; now <= old {
				t.Errorf("epoch %d after %d", now, old)
			}
		})
	}
}

func TestVirtualHostDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.put("blue", "a", "x")
		c.until(10*time.Second, "there", func() bool { return c.have("blue", n, 1) })
		c.net.set(func() { n.dead = true })
		took := c.until(time.Minute, "suspended", func() bool {
			for _, other := range c.nodes[1:] {
				if other.records("blue", n) != -1 {
					return false
				}
			}
			return true
		})
		t.Logf("dead host: suspended everywhere after %v", took)
		n.kill()
		// The host comes back, its plugin does not.
		c.net.set(func() { n.dead = false })
		took = c.until(time.Minute, "back", func() bool { return c.have("blue", n, 1) })
		t.Logf("host is back: its records as well after %v", took)
		if took > probeEvery+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A host that is suspended and comes back with its plugin is there at once.
func TestVirtualHostReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.put("blue", "a", "x")
		c.until(10*time.Second, "there", func() bool { return c.have("blue", n, 1) })
		c.net.set(func() { c.net.side[n.addr] = 1 })
		c.until(time.Minute, "suspended", func() bool { return c.nodes[1].records("blue", n) == -1 })
		pause(t.Context(), time.Minute)
		c.net.set(func() { clear(c.net.side) })
		took := c.until(time.Minute, "back", func() bool { return c.have("blue", n, 1) })
		t.Logf("back after %v", took)
		if took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// The disk of a node went back in time, so that its epoch is one that the others know already.
func TestVirtualDiskWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		image, err := os.ReadFile(filepath.Join(n.dir, epochFile))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			n.kill()
			n.start()
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "old", "x")
			c.until(time.Minute, "there", func() bool { return c.have("blue", n, 1) })
		}
		n.kill()
		if err := os.WriteFile(filepath.Join(n.dir, epochFile), image, 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			n.put("blue", fmt.Sprint("new", i), "x")
		}
		took := c.until(time.Minute, "there", func() bool { return c.have("blue", n, 3) })
		t.Logf("the epoch is above what is remembered, and everything said again, after %v", took)
		if took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A host has a new address after its restart. It is the same node, and its endpoints are behind the new VTEP.
func TestVirtualHostMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.put("blue", "a", "x")
		c.until(10*time.Second, "there", func() bool { return c.have("blue", n, 1) })
		n.kill()
		moved := netip.MustParseAddr("192.0.2.200")
		c.net.set(func() {
			delete(c.net.hosts, n.addr)
			n.addr = moved
			c.net.hosts[moved] = n.memHost
		}) // and the facts do not know yet
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		n.put("blue", "a", "x")
		there := func() bool { // at the new address and nowhere else
			for _, other := range c.nodes[1:] {
				found := false
				for _, row := range other.gossip.remote("blue") {
					found = found || row.Node.ID == n.id && row.Node.Addr == moved && len(row.Records) == 1
				}
				if !found {
					return false
				}
			}
			return true
		}
		took := c.until(time.Minute, "at its new address", there)
		t.Logf("its VTEP has followed everywhere after %v", took)
		if took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		took = c.until(time.Minute, "alive at its new address", func() bool {
			if !there() {
				t.Fatal("it was lost again")
			}
			for _, other := range c.nodes[1:] {
				for _, m := range other.gossip.list.Load().Members() {
					if m.Name == n.id && m.Addr.String() != moved.String() {
						return false
					}
				}
			}
			return c.formed()
		})
		t.Logf("and memberlist knows it %v later", took)
		if took > 20*time.Second {
			t.Errorf("memberlist took %v", took)
		}
		pause(t.Context(), 5*time.Minute)
		if !c.formed() || !there() {
			t.Error("it was lost again")
		}
		for _, other := range c.nodes {
			if texts := other.alarms.texts(); len(texts) > 0 {
				t.Errorf("alarms: %q", texts)
			}
		}
	})
}
