//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Every host takes part in many networks, and all start at once: what is new is not kept waiting by what everybody is told.
func TestVirtualManyNetworks(t *testing.T) {
	const nodes, networks = 20, 200
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, nodes, byHintsAlone)
		defer c.close()
		c.net.set(func() { c.net.wire = lan() })
		c.until(time.Minute, "formed", c.formed)
		pause(t.Context(), time.Minute)
		name := func(i int) string { return fmt.Sprintf("%012x", i) }
		before, start := c.usage(), time.Now()
		for _, n := range c.nodes {
			for i := range networks {
				if err := n.gossip.attend(name(i), true); err != nil {
					t.Fatal(err)
				}
				n.put(name(i), "a", "x")
			}
		}
		pause(t.Context(), 200*time.Millisecond)
		n := c.nodes[7]
		n.put(name(networks/2), "b", "x")
		fresh := c.until(time.Minute, "there", func() bool { return c.have(name(networks/2), n, 2) })
		c.until(time.Minute, "equal", func() bool {
			for i := range networks {
				if !c.converged(name(i)) {
					return false
				}
			}
			return true
		})
		took := time.Since(start)
		pause(t.Context(), 10*time.Second)
		u := c.usage().since(before, 0)
		t.Logf("%d nodes with %d networks each: equal after %v; a record made meanwhile everywhere after %v; %d datagrams a node",
			nodes, networks, took, fresh, u.packets/nodes)
		// 20 log2(n) hints of each other would be 1800 datagrams.
		if fresh > time.Second || took > 3*time.Second || u.packets/nodes > 300 {
			t.Errorf("it took %v and %v, and %d datagrams a node", fresh, took, u.packets/nodes)
		}
	})
}

// A node that starts again and again is one node.
func TestVirtualFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 5, nil)
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		n := c.nodes[0]
		for i := range 100 {
			n.kill()
			pause(t.Context(), time.Duration(i%7)*300*time.Millisecond)
			n.start()
			if err := n.gossip.attend("blue", true); err != nil {
				t.Fatal(err)
			}
			n.put("blue", fmt.Sprint(i), "x")
			pause(t.Context(), time.Duration(i%5)*200*time.Millisecond)
		}
		took := c.until(time.Minute, "there", func() bool { return c.converged("blue") && c.have("blue", n, 1) })
		t.Logf("after 100 starts: equal after %v", took)
		pause(t.Context(), time.Minute)
		for _, other := range c.nodes[1:] {
			g := other.gossip
			g.mu.Lock()
			g.contacts.mu.Lock()
			for what, size := range map[string]int{
				"contacts": len(g.contacts.all), "lives": len(g.contacts.lives), "epochs": len(g.table.epochs), "rows": len(g.table.remote["blue"]),
			} {
				if size != 4 {
					t.Errorf("%s: %d %s, want 4", other.id, size, what)
				}
			}
			g.contacts.mu.Unlock()
			if seen := len(g.seen.now) + len(g.seen.before); seen > 8 || !g.queue.empty() || len(g.contacts.twins) > 0 {
				t.Errorf("%s: %d hints are remembered, %d queued, %d twins", other.id, seen, len(g.queue.hints), len(g.contacts.twins))
			}
			g.mu.Unlock()
			if texts := other.alarms.texts(); len(texts) > 0 {
				t.Errorf("alarms: %q", texts)
			}
		}
	})
}

// One try hangs: another one gets through meanwhile, and what comes of the first is closed.
func TestVirtualDialAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, closed := 0, make(chan time.Duration, dialTries)
		start := time.Now()
		refused := errors.New("refused")
		g, err := newGossip(gossipConfig{id: "us", advertise: netip.MustParseAddr("192.0.2.1"), key: make([]byte, 32), dir: t.TempDir(),
			dial: func(ctx context.Context, addr netip.AddrPort, _ string) (net.Conn, string, error) {
				tries++
				near, far := net.Pipe()
				switch {
				case addr.Port() == 2:
					return nil, "", refused
				case tries == 1:
					pause(context.Background(), time.Second) // and does not look at ctx
					go func() {
						far.Read(make([]byte, 1))
						closed <- time.Since(start)
					}()
				}
				return near, "them", nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		g.life.begin(t.Context())
		conn, err := g.dialNode(t.Context(), "them", netip.MustParseAddrPort("192.0.2.2:1"))
		if took := time.Since(start); err != nil || tries != 2 || took != dialAgain {
			t.Errorf("%d tries, %v, after %v", tries, err, took)
		}
		if late := <-closed; late != time.Second {
			t.Errorf("the first was closed after %v", late)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Errorf("the one that got through was closed: %v", err)
		}
		tries = 0
		if _, err := g.dialNode(t.Context(), "them", netip.MustParseAddrPort("192.0.2.2:2")); !errors.Is(err, refused) || tries != 1 {
			t.Errorf("a refusal: %d tries, %v", tries, err)
		}
		g.life.end()
	})
}
