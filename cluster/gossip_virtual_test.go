//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"fmt"
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
