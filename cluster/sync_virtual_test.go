//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestVirtualSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuse atomic.Bool
		c := newMemCluster(t, 5, func(cfg *gossipConfig) {
			dial := cfg.dial
			cfg.antiEntropy = -1
			cfg.dial = func(ctx context.Context, addr netip.AddrPort, alpn string) (net.Conn, string, error) {
				if refuse.Load() && addr.Addr() == netip.MustParseAddr("192.0.2.5") {
					return nil, "", errors.New("not now")
				}
				return dial(ctx, addr, alpn)
			}
		})
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		for _, n := range c.nodes[1:] {
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "a", "x")
		}
		n := c.nodes[0]
		if err := n.gossip.sync(t.Context(), "blue"); !errors.Is(err, errNotAttended) {
			t.Errorf("a network that is not attended: %v", err)
		}
		refuse.Store(true)
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		limited, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := n.gossip.sync(limited, "blue")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), c.nodes[4].id) {
			t.Errorf("a live node that does not answer: %v", err)
		}
		if got := len(n.gossip.remote("blue")); got != 3 {
			t.Errorf("%d of 3 rows although only one node does not answer", got)
		}
		refuse.Store(false)
		if err := n.gossip.sync(t.Context(), "blue"); err != nil {
			t.Error(err)
		}
		if got := len(n.gossip.remote("blue")); got != 4 {
			t.Errorf("%d of 4 rows after everybody has answered", got)
		}
		// A dead one is not waited for.
		c.nodes[4].kill()
		start := time.Now()
		if err := n.gossip.sync(t.Context(), "blue"); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("a node that has just died is waited for %v", took)
		}
		c.until(time.Minute, "found dead", func() bool { return len(n.gossip.contacts.allLive(false)) == 3 })
		start = time.Now()
		if err := n.gossip.sync(t.Context(), "blue"); err != nil || time.Since(start) > time.Second {
			t.Errorf("a dead node was waited for %v, %v", time.Since(start), err)
		}
	})
}

// A node that begins to attend is told by all others, and sync right after the start waits until they have been met.
func TestVirtualSyncAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, noAntiEntropy)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		for _, n := range c.nodes {
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "a", "x")
		}
		n := c.nodes[0]
		n.kill()
		if err := os.Remove(filepath.Join(n.dir, cacheFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		if err := n.gossip.sync(t.Context(), "blue"); err != nil {
			t.Fatal(err)
		}
		if got := len(n.gossip.remote("blue")); got != 4 {
			t.Errorf("%d of 4 rows", got)
		}
	})
}

// Everybody starts at once, holds back, and synchronises before it says anything: nobody waits for another.
func TestVirtualSyncWhileAllHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, func(cfg *gossipConfig) { cfg.hold = true })
		defer c.close()
		for _, n := range c.nodes {
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "a", "x")
			if err := n.gossip.sync(t.Context(), "blue"); err != nil {
				t.Fatal(err)
			}
			if got := len(n.gossip.remote("blue")); got != 0 {
				t.Errorf("%d rows although all hold back", got)
			}
		}
		for _, n := range c.nodes {
			n.gossip.settle()
		}
		for _, n := range c.nodes {
			c.until(time.Second, "there", func() bool { return c.have("blue", n, 1) })
		}
	})
}

func TestVirtualNoLongerAttends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 4, noAntiEntropy)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.put("blue", "a", "x")
		c.until(time.Second, "there", func() bool { return c.have("blue", n, 1) })
		if err := n.gossip.attend("blue", false); err != nil {
			t.Fatal(err)
		}
		c.until(time.Second, "gone", func() bool { return c.have("blue", n, -1) })
		if rows := n.gossip.remote("blue"); len(rows) != 0 {
			t.Errorf("rows of a network that is not attended: %v", rows)
		}
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		c.until(time.Second, "back, and empty", func() bool { return c.have("blue", n, 0) && len(n.gossip.remote("blue")) == 3 })
		// What it attended in another life is not attended in this one.
		n.kill()
		n.start()
		c.until(time.Minute, "gone", func() bool { return c.have("blue", n, -1) })
	})
}

func TestVirtualForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 4, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.put("blue", "a", "x")
		c.until(time.Second, "there", func() bool { return c.have("blue", n, 1) })
		c.net.set(func() { n.fact = registered{ID: n.id, Name: n.fact.Name, Forgotten: true} })
		c.until(5*time.Second, "gone", func() bool { return c.have("blue", n, -1) })
		n.put("blue", "b", "x")
		for range 60 {
			pause(t.Context(), time.Second)
			if !c.have("blue", n, -1) {
				t.Fatal("a forgotten node is heard again")
			}
		}
		for _, other := range c.nodes[1:] {
			for _, m := range other.gossip.members() {
				if m.ID == n.id {
					t.Errorf("%s lists the forgotten node", other.id)
				}
			}
		}
	})
}

func TestVirtualOtherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 6, func(cfg *gossipConfig) {
			if cfg.id > fmt.Sprintf("%032x", 3) {
				cfg.clusterID = func() string { return "c2" }
			}
		})
		defer c.close()
		pause(t.Context(), time.Minute)
		for i, n := range c.nodes {
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			for _, m := range n.gossip.members() {
				var other int
				if _, err := fmt.Sscanf(m.ID, "%x", &other); err != nil {
					t.Fatal(err)
				}
				if same := i/3 == (other-1)/3; m.Alive != same {
					t.Errorf("node %d takes node %d for alive: %v", i+1, other, m.Alive)
				}
			}
		}
		pause(t.Context(), time.Minute)
		for i, n := range c.nodes {
			if rows := n.gossip.remote("blue"); len(rows) != 2 {
				t.Errorf("node %d has %d rows", i+1, len(rows))
			}
			texts := strings.Join(n.alarms.texts(), "\n")
			if !strings.Contains(texts, "clusters never merge") {
				t.Errorf("node %d: alarms: %q", i+1, texts)
			}
		}
	})
}

// Two hosts with the same key: a cloned disk.
func TestVirtualTwins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 4, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		twin := &memNode{memHost: &memHost{net: c.net, addr: netip.MustParseAddr("192.0.2.99"), id: c.nodes[0].id}, cluster: c, dir: t.TempDir(), alarms: &alarms{}, fact: c.nodes[0].fact}
		c.net.set(func() { c.net.hosts[twin.addr] = twin.memHost })
		twin.start()
		defer twin.kill()
		c.until(15*time.Second, "noticed", func() bool {
			for _, n := range c.nodes[1:] {
				if !strings.Contains(strings.Join(n.alarms.texts(), "\n"), "have the same identity") {
					return false
				}
			}
			return strings.Contains(strings.Join(twin.alarms.texts(), "\n"), "has the identity of this node too")
		})
	})
}

// The whole cluster but this node is away when its plugin restarts: the rows are those of before, as long as the hosts live.
func TestVirtualCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 4, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		for _, other := range c.nodes[1:] {
			other.put("blue", "a", "x")
			c.until(time.Second, "there", func() bool { return c.have("blue", other, 1) })
		}
		for _, other := range c.nodes {
			other.kill()
		}
		n.start()
		defer n.stop()
		for start := time.Now(); time.Since(start) < time.Minute; pause(t.Context(), 100*time.Millisecond) {
			rows := n.gossip.remote("blue")
			if len(rows) != 3 {
				t.Fatalf("after %v: %d of 3 rows", time.Since(start), len(rows))
			}
			for _, row := range rows {
				if len(row.Records) != 1 || row.Node.Addr.As4()[2] != 2 {
					t.Fatalf("%+v", row)
				}
			}
		}
		c.net.set(func() { c.nodes[1].dead = true })
		c.until(10*time.Second, "suspended", func() bool { return len(n.gossip.remote("blue")) == 2 })
	})
}

// A damaged epoch file: the others tell what this node has said.
func TestVirtualEpochFileDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		for range 2 {
			n.kill()
			n.start()
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", "old", "x")
			c.until(time.Minute, "there", func() bool { return c.have("blue", n, 1) })
		}
		n.kill()
		if err := os.WriteFile(filepath.Join(n.dir, epochFile), []byte("not an epoch"), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		n.put("blue", "new1", "x")
		n.put("blue", "new2", "x")
		c.until(10*time.Second, "there", func() bool { return c.have("blue", n, 2) })
	})
}

// The disk is full when a node starts: it hears, but says nothing that it might have to take back; and says it when there is
// room again.
func TestVirtualEpochCannotBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 3, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		n.kill()
		blocked := filepath.Join(n.dir, epochFile+".new")
		if err := os.Mkdir(blocked, 0o700); err != nil {
			t.Fatal(err)
		}
		n.start()
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
		n.put("blue", "a", "x")
		c.nodes[1].put("blue", "b", "x")
		c.until(10*time.Second, "heard", func() bool { return n.records("blue", c.nodes[1]) == 1 })
		pause(t.Context(), 10*time.Second)
		if c.have("blue", n, 1) {
			t.Error("a record was published in an epoch that is not on disk")
		}
		if !strings.Contains(strings.Join(n.alarms.texts(), "\n"), "not told to the others") {
			t.Errorf("alarms: %q", n.alarms.texts())
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		c.until(5*time.Second, "there", func() bool { return c.have("blue", n, 1) })
	})
}

// Another key is another world, even at the same addresses with the same label.
func TestVirtualOtherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 4, func(cfg *gossipConfig) {
			if cfg.id == fmt.Sprintf("%032x", 4) {
				cfg.key = []byte("another key of thirty-two bytes.")
			}
		})
		defer c.close()
		pause(t.Context(), time.Minute)
		for i, n := range c.nodes {
			want := 2
			if i == 3 {
				want = 0
			}
			if got := len(n.gossip.contacts.allLive(false)); got != want {
				t.Errorf("node %d sees %d others, want %d", i+1, got, want)
			}
		}
	})
}
