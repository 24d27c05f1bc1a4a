package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// memCluster is a few nodes in a memNet.
type memCluster struct {
	t     *testing.T
	net   *memNet
	nodes []*memNode
	wg    sync.WaitGroup
	tune  func(*gossipConfig) // nil: as it is
}

type memNode struct {
	*memHost
	cluster *memCluster
	dir     string
	stop    context.CancelFunc
	stopped chan struct{}
	alarms  *alarms
	fact    registered

	mu      sync.Mutex
	changes int
}

func newMemCluster(t *testing.T, size int, tune func(*gossipConfig)) *memCluster {
	c := makeMemCluster(t, size, tune)
	for _, n := range c.nodes {
		n.start()
		pause(context.Background(), rand.N(gossipInterval)) // or all would gossip at the same instants
	}
	return c
}

// makeMemCluster starts no node.
func makeMemCluster(t *testing.T, size int, tune func(*gossipConfig)) *memCluster {
	c := &memCluster{t: t, net: newMemNet(), tune: tune}
	for range size {
		c.add()
	}
	return c
}

// add makes one more node, which is in the facts at once.
func (c *memCluster) add() *memNode {
	i := len(c.nodes) + 1
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	h := &memHost{net: c.net, addr: addr, id: fmt.Sprintf("%032x", i)}
	n := &memNode{
		memHost: h, cluster: c, dir: c.t.TempDir(), alarms: &alarms{},
		fact: registered{ID: h.id, Name: fmt.Sprintf("n%d", i), Addr: addr, GossipPort: 7946, RaftPort: 7947},
	}
	c.net.set(func() {
		c.net.hosts[addr] = h
		c.nodes = append(c.nodes, n)
	})
	return n
}

// registered is the same on all nodes.
func (c *memCluster) registered() []registered {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	var all []registered
	for _, n := range c.nodes {
		all = append(all, n.fact)
	}
	return all
}

func (n *memNode) start() {
	n.t().Helper()
	g, err := newGossip(n.config())
	if err != nil {
		n.t().Fatal(err)
	}
	n.net.mu.Lock()
	n.gossip = g
	n.net.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.stopped = cancel, make(chan struct{})
	n.cluster.wg.Go(func() {
		defer close(n.stopped)
		if err := g.run(ctx); err != nil {
			n.t().Error(err)
		}
	})
}

func (n *memNode) t() *testing.T { return n.cluster.t }

func (n *memNode) config() gossipConfig {
	cfg := gossipConfig{
		id: n.id, name: n.fact.Name, advertise: n.addr, gossipPort: 7946, port: 7947,
		key: make([]byte, 32), dir: n.dir, alarms: n.alarms,
		dial: n.dial, nodes: n.cluster.registered, clusterID: func() string { return "c1" },
		onChange: func() {
			n.mu.Lock()
			n.changes++
			n.mu.Unlock()
		},
		transport: n.open,
		probe: func(ctx context.Context, addr netip.AddrPort) bool {
			answers := n.net.whole(n.addr, addr.Addr())
			if !answers {
				pause(ctx, probeTimeout)
			}
			return answers
		},
	}
	if n.cluster.tune != nil {
		n.cluster.tune(&cfg)
	}
	return cfg
}

// kill ends the plugin; the host lives on.
func (n *memNode) kill() {
	n.net.mu.Lock()
	n.gossip = nil
	n.net.mu.Unlock()
	n.stop()
	<-n.stopped
}

func (c *memCluster) close() {
	c.net.set(func() {
		clear(c.net.side)
		for _, h := range c.net.hosts {
			h.dead = false
		}
	})
	for _, n := range c.nodes {
		if n.stop != nil {
			n.stop()
		}
	}
	c.wg.Wait()
	// memberlist's goroutines see that it is shut down when their timers run out, and streams that they are closed.
	pause(context.Background(), 3*time.Minute)
}

// until waits for a condition in virtual time, and returns how long it took.
func (c *memCluster) until(limit time.Duration, what string, ok func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			c.t.Fatalf("after %v: not %s", limit, what)
		}
		pause(context.Background(), max(time.Millisecond, time.Since(start)/100))
	}
	return time.Since(start)
}

// formed: everybody sees everybody.
func (c *memCluster) formed() bool {
	for _, n := range c.nodes {
		if len(n.gossip.contacts.allLive(true)) != len(c.nodes)-1 {
			return false
		}
	}
	return true
}

// have tells whether all nodes but the origin have that many of its records.
func (c *memCluster) have(network string, origin *memNode, records int) bool {
	for _, n := range c.nodes {
		if n != origin && n.gossip != nil && n.records(network, origin) != records {
			return false
		}
	}
	return true
}

// records of origin as n sees them; -1 if it has no row.
func (n *memNode) records(network string, origin *memNode) int {
	for _, row := range n.gossip.remote(network) {
		if row.Node.ID == origin.id {
			return len(row.Records)
		}
	}
	return -1
}

// attend makes all nodes attend a network, and waits until all know it.
func (c *memCluster) attend(network string) {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.gossip.attend(network, true); err != nil {
			c.t.Fatal(err)
		}
	}
	c.until(20*time.Second, "known who attends", func() bool {
		for _, n := range c.nodes {
			if !c.have(network, n, 0) {
				return false
			}
		}
		return true
	})
}

func (n *memNode) put(network, key, value string) {
	n.t().Helper()
	if err := n.gossip.publish(network, key, []byte(value)); err != nil {
		n.t().Fatal(err)
	}
}
