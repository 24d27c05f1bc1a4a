//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A host without power is suspended by everybody within a second of memberlist's finding its node dead, each by itself.
func TestVirtualSuspendedASecondAfterItsNodeIsFoundDead(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 10, nil)
			defer c.close()
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			n := c.nodes[0]
			c.net.set(func() { n.dead = true })
			start := time.Now()
			detected, suspended := map[*memNode]time.Time{}, map[*memNode]time.Time{}
			for len(suspended) < len(c.nodes)-1 && time.Since(start) < time.Minute {
				pause(t.Context(), time.Millisecond)
				for _, other := range c.nodes[1:] {
					for _, m := range other.gossip.members() {
						if m.ID == n.id && !m.Alive && detected[other].IsZero() {
							detected[other] = time.Now()
						}
						if m.ID == n.id && m.Suspended && suspended[other].IsZero() {
							suspended[other] = time.Now()
						}
					}
				}
			}
			for _, other := range c.nodes[1:] {
				if after := suspended[other].Sub(detected[other]); after < 0 || after > time.Second {
					t.Errorf("%s found it dead after %v and suspended it %v later", other.id, detected[other].Sub(start), after)
				}
			}
			t.Logf("node 1 found it dead after %v and suspended it after %v", detected[c.nodes[1]].Sub(start), suspended[c.nodes[1]].Sub(start))
			n.kill()
			c.net.set(func() { n.dead = false })
		})
	}
}

// A living host is not suspended for lost packets. The control run has one try, and loses it soon.
func TestVirtualLostPacketsSuspendNobody(t *testing.T) {
	const rounds = 200
	for _, tries := range []int{1, probeTries} {
		synctest.Test(t, func(t *testing.T) {
			var asked, answered atomic.Int32
			g := testGossip(t)
			g.probe = func(ctx context.Context, _ netip.AddrPort) bool {
				if n := int(asked.Add(1)); n > tries || rand.Float64() < 0.19 { // 10 % of SYNs, and of answers
					<-ctx.Done()
					return false
				}
				return true
			}
			for range rounds {
				asked.Store(0)
				if g.hostAnswers(t.Context(), netip.AddrPort{}) {
					answered.Add(1)
				}
			}
			lost := rounds - int(answered.Load())
			t.Logf("%d tries at 10 %% loss: %d of %d times nothing was heard of a living host", tries, lost, rounds)
			if tries > 1 && lost > 1 || tries == 1 && lost < 10 {
				t.Errorf("%d of %d rounds", lost, rounds)
			}
		})
	}
}
