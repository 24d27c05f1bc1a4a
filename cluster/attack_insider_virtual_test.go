//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// says has a node with the key tell another something about a third, sealed as it should be.
func (n *memNode) says(to *memNode, messages ...[]byte) {
	n.t().Helper()
	life, ok := n.gossip.contacts.lifeOf(to.id)
	if !ok {
		n.t().Fatalf("%s does not know %s", n.id, to.id)
	}
	for _, message := range messages {
		packet := n.gossip.sealer.seal(life, message)
		n.net.set(func() { to.tr.arrives(packet, n.addr) })
	}
}

// metaOf is what memberlist was told of a node.
func (n *memNode) metaOf(other *memNode) []byte {
	for _, m := range n.gossip.list.Load().Members() {
		if m.Name == other.id {
			return m.Meta
		}
	}
	return nil
}

// A node with the key tells that another has died and has come back at its own address. The others believe it, and traffic
// to the victim's endpoints would go there.
func TestVirtualAttackStolenVTEP(t *testing.T) {
	for _, credulous := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 4, nil)
			defer c.close()
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			here, victim, insider := c.nodes[0], c.nodes[1], c.nodes[3]
			victim.put("blue", "a", "x")
			c.until(time.Minute, "there", func() bool { return c.have("blue", victim, 1) })
			for _, n := range c.nodes {
				n.gossip.contacts.credulous = credulous
			}
			meta := here.metaOf(victim)
			stolen, lost, steps := 0, 0, 0
			for incarnation := uint64(100); incarnation < 2000; incarnation += 10 {
				insider.says(here, forgeDead(victim.id, incarnation))
				pause(t.Context(), 5*time.Millisecond)
				insider.says(here, forgeAlive(victim.id, insider.addr.AsSlice(), 7946, incarnation+1, meta))
				for range 10 {
					pause(t.Context(), 2*time.Millisecond)
					steps++
					switch m, known := here.memberNamed(victim); {
					case !known || m.Suspended || here.records("blue", victim) != 1:
						lost++
					case m.Addr != victim.addr:
						stolen++
					}
				}
			}
			t.Logf("believing memberlist %v: of %d looks, %d led to the insider and %d to nobody", credulous, steps, stolen, lost)
			if credulous && stolen == 0 || !credulous && stolen > 0 || lost > 0 {
				t.Error("that is wrong")
			}
			took := c.until(2*time.Minute, "whole again", c.formed)
			t.Logf("memberlist was right again after %v", took)
		})
	}
}

// A node with the key tells that another is dead, again and again, also with the last incarnation there is, which nobody can
// refute. The host answers, so nothing is suspended. In the control run its answers are not asked for.
func TestVirtualAttackKilledByRumour(t *testing.T) {
	for _, defended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 4, func(cfg *gossipConfig) {
				if !defended {
					cfg.probe = func(context.Context, netip.AddrPort) bool { return false }
				}
			})
			defer c.close()
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			victim, insider := c.nodes[1], c.nodes[3]
			victim.put("blue", "a", "x")
			c.until(time.Minute, "there", func() bool { return c.have("blue", victim, 1) })
			suspended := 0
			for _, incarnation := range []uint64{1, 10, 1000, 1 << 31, 1<<32 - 1, 1<<32 - 1} {
				for _, to := range []*memNode{c.nodes[0], c.nodes[2]} {
					insider.says(to, forgeSuspect(victim.id, incarnation), forgeDead(victim.id, incarnation))
				}
				for range 300 {
					pause(t.Context(), 10*time.Millisecond)
					if c.nodes[0].records("blue", victim) != 1 {
						suspended++
					}
				}
			}
			t.Logf("hosts are asked whether they live %v: of 1800 looks, %d found the victim suspended", defended, suspended)
			if defended != (suspended == 0) {
				t.Error("that is wrong")
			}
			if !defended {
				return
			}
			took := c.until(5*time.Minute, "whole again", c.formed)
			victim.put("blue", "b", "x")
			took += c.until(time.Minute, "heard", func() bool { return c.have("blue", victim, 2) })
			t.Logf("the victim was alive for memberlist, and heard by all, %v after the last rumour", took)
		})
	}
}

// A node with the key invents nodes. They cost what a few hundred nodes do, and the others still hear each other.
func TestVirtualAttackInventedNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		here, insider := c.nodes[0], c.nodes[2]
		for i, message := range ghostMessages() {
			insider.says(here, message)
			if i%100 == 99 {
				pause(t.Context(), 10*time.Millisecond)
			}
		}
		pause(t.Context(), time.Second)
		if got := here.gossip.list.Load().NumMembers(); got > maxStrays+3 || got < 100 {
			t.Errorf("%d nodes are believed, at most %d may be", got, maxStrays+3)
		}
		for i := range 3 {
			c.nodes[1].put("blue", fmt.Sprint(i), "x")
			c.until(time.Minute, "heard", func() bool { return here.records("blue", c.nodes[1]) == i+1 })
		}
	})
}
