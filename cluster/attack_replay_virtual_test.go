//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// replayed is when recorded datagrams are sent again, after the host of their sender died: memberlist knows it as alive, has
// found it dead and forgotten it (after 30 s), and would not mind a new one of that name at all.
var replayed = []time.Duration{time.Second, 31 * time.Second, 31 * time.Minute}

// recorder keeps what a host is sent.
type recorder struct {
	of      netip.Addr
	packets [][]byte
}

func (r *recorder) tap(to netip.Addr, packet []byte) {
	if to == r.of {
		r.packets = append(r.packets, packet)
	}
}

// replay sends it again, all of it.
func (r *recorder) replay(n *memNet, from netip.Addr) {
	n.set(func() {
		for _, packet := range r.packets {
			if tr := n.hosts[r.of].tr; tr != nil {
				tr.arrives(packet, from)
			}
		}
	})
}

// Somebody without the key has recorded what a host was sent, and sends it again when the sender is dead. memberlist's own
// encryption does not notice.
func TestVirtualAttackReplayWithoutDefence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		var lists []*memberlist.Memberlist
		heard := 0
		for i := range 3 {
			h := &memHost{net: n, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
			n.hosts[h.addr] = h
			tr, err := h.open()
			if err != nil {
				t.Fatal(err)
			}
			cfg := memberlist.DefaultLANConfig()
			cfg.Name, cfg.BindAddr, cfg.AdvertiseAddr, cfg.AdvertisePort = fmt.Sprint("n", i), h.addr.String(), h.addr.String(), 7946
			cfg.Transport, cfg.SecretKey, cfg.LogOutput = tr, make([]byte, 32), testOutput(t, cfg.Name)
			if i == 0 {
				cfg.Delegate = counter{&heard}
			}
			list, err := memberlist.Create(cfg)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, list)
		}
		r := &recorder{of: netip.MustParseAddr("192.0.2.1")}
		n.set(func() { n.tap = r.tap })
		for _, i := range []int{0, 2} { // one after the other, so that the last is gossiped about
			if _, err := lists[i].Join([]string{"192.0.2.2:7946"}); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), 10*time.Second)
		}
		for _, m := range lists[1].Members() {
			if err := lists[1].SendBestEffort(m, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		// A node says that it is alive when it joins, by push/pull, and by datagrams when it has something new to say.
		for range 3 {
			if err := lists[2].UpdateNode(time.Second); err != nil {
				t.Fatal(err)
			}
			pause(t.Context(), time.Second)
		}
		pause(t.Context(), 10*time.Second)
		n.set(func() { n.hosts[netip.MustParseAddr("192.0.2.3")].dead, n.tap = true, nil })
		pause(t.Context(), 3*time.Minute)
		if got := lists[0].NumMembers(); got != 2 {
			t.Fatalf("%d are alive after one has died", got)
		}
		before := heard
		r.replay(n, netip.MustParseAddr("192.0.2.9"))
		pause(t.Context(), time.Second)
		if got := lists[0].NumMembers(); got != 3 || heard == before {
			t.Errorf("%d are alive, and the delegate heard nothing again: the attack does nothing", got)
		}
		t.Logf("after the replay %d are alive, one of them dead for three minutes; messages were delivered again %d times", lists[0].NumMembers(), heard-before)
		n.set(func() { n.hosts[netip.MustParseAddr("192.0.2.3")].dead = false })
		for _, list := range lists {
			if err := list.Shutdown(); err != nil {
				t.Error(err)
			}
		}
		pause(t.Context(), 3*time.Minute)
	})
}

// counter is a delegate that counts messages.
type counter struct{ heard *int }

func (c counter) NodeMeta(int) []byte             { return nil }
func (c counter) NotifyMsg([]byte)                { *c.heard++ }
func (c counter) GetBroadcasts(int, int) [][]byte { return nil }
func (c counter) LocalState(bool) []byte          { return nil }
func (c counter) MergeRemoteState([]byte, bool)   {}

// The same against our nodes: at no time, and not after a restart of who is attacked, does anything change.
func TestVirtualAttackReplay(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newMemCluster(t, 4, noAntiEntropy)
			defer c.close()
			victim, dead := c.nodes[0], c.nodes[3]
			r := &recorder{of: victim.addr}
			c.net.set(func() { c.net.tap = r.tap })
			c.until(time.Minute, "formed", c.formed)
			c.attend("blue")
			dead.put("blue", "a", "x")
			dead.put("blue", "b", "x")
			c.until(time.Minute, "there", func() bool { return c.have("blue", dead, 2) })
			if err := dead.gossip.publish("blue", "b", nil); err != nil { // whose hint is recorded as well
				t.Fatal(err)
			}
			c.until(time.Minute, "there", func() bool { return c.have("blue", dead, 1) })
			pause(t.Context(), 10*time.Second)
			c.net.set(func() { dead.dead, c.net.tap = true, nil })
			dead.kill()
			died := time.Now()
			for _, at := range replayed {
				pause(t.Context(), time.Until(died.Add(at)))
				if restart {
					victim.kill()
					victim.start()
					if err := victim.gossip.attend("blue", true); err != nil {
						t.Fatal(err)
					}
					c.until(time.Minute, "back", func() bool { return len(victim.gossip.contacts.allLive(true)) >= 2 })
				}
				before := victim.gossip.digestOf("blue")
				for range 5 {
					r.replay(c.net, netip.MustParseAddr("192.0.2.99"))
					pause(t.Context(), 20*time.Millisecond)
				}
				if got := victim.gossip.digestOf("blue"); got != before {
					t.Errorf("after %v: what is known of the network has changed", at)
				}
				if at == time.Second {
					continue // it is not found dead yet
				}
				c.until(2*time.Second, "suspended", func() bool { // after its own start, when it has looked
					m, _ := victim.memberNamed(dead)
					return !m.Alive && m.Suspended
				})
				if got := victim.gossip.list.Load().NumMembers(); got != 3 {
					t.Errorf("after %v: %d nodes are alive, want 3", at, got)
				}
			}
			t.Logf("%d datagrams were sent again, 5 times each, at %v; after restarts: %v", len(r.packets), replayed, restart)
			c.net.set(func() { dead.dead = false })
		})
	}
}

// memberNamed is what n knows of another node.
func (n *memNode) memberNamed(other *memNode) (member, bool) {
	for _, m := range n.gossip.members() {
		if m.ID == other.id {
			return m, true
		}
	}
	return member{}, false
}

func (g *gossip) digestOf(network string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.digest(network)
}
