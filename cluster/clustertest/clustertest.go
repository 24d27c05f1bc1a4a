// Package clustertest is a cluster in memory, for the tests of those who stand on package cluster.
package clustertest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/carricknet/carrick/cluster"
)

// Cluster is what its nodes share. The zero Cluster is empty.
type Cluster struct {
	mu    sync.Mutex
	view  cluster.View
	nodes []*Node
	rows  map[string]map[string]map[string][]byte // network -> node -> key -> value
	fail  func(node string, txn cluster.Txn) error

	changes uint64
}

// Node is one node's view of a Cluster: it has the methods of a *cluster.Cluster that other packages use.
type Node struct {
	c       *Cluster
	node    cluster.Node
	watches map[chan struct{}]bool

	disputed error
}

// View is one with these facts, written by the log entry with index 1. View.Apply makes the next ones.
func View(facts map[string][]byte) cluster.View {
	txn := cluster.Txn{}
	for key, value := range facts {
		txn.Then = append(txn.Then, cluster.Op{Key: key, Value: value})
	}
	v, _ := cluster.View{}.Apply(txn) // never fails: there is no condition
	return v
}

// Node adds a node of that name, with the next address of 192.0.2.0/24 (RFC 5737).
func (c *Cluster) Node(name string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(c.nodes) + 1)})
	n := &Node{c: c, node: cluster.Node{ID: "id-" + name, Name: name, Addr: addr, Alive: true}, watches: map[chan struct{}]bool{}}
	c.nodes = append(c.nodes, n)
	return n
}

// Fail makes every later Propose ask fail first; an error is returned instead of the result and nothing is written. Nil
// ends it.
func (c *Cluster) Fail(fail func(node string, txn cluster.Txn) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

// ID is the identifier of the node.
func (n *Node) ID() string { return n.node.ID }

// View is the newest version of the facts.
func (n *Node) View() cluster.View {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.c.view
}

// Propose applies txn at once.
func (n *Node) Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return n.c.view, fmt.Errorf("%w: %w", cluster.ErrNoQuorum, err)
	}
	if n.c.fail != nil {
		if err := n.c.fail(n.node.Name, txn); err != nil {
			return n.c.view, err
		}
	}
	next, err := n.c.view.Apply(txn)
	if err == nil {
		n.c.view = next
		n.c.wakeAll()
	}
	return n.c.view, err
}

// Watch returns a channel that wakes at every change, until the function is called.
func (n *Node) Watch() (<-chan struct{}, func()) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	wake := make(chan struct{}, 1)
	n.watches[wake] = true
	return wake, func() {
		n.c.mu.Lock()
		defer n.c.mu.Unlock()
		delete(n.watches, wake)
	}
}

// Undisputed is what Dispute said, or nil.
func (n *Node) Undisputed(context.Context) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.disputed
}

// Dispute makes Undisputed answer err.
func (n *Node) Dispute(err error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.disputed = err
}

// Nodes are all nodes.
func (n *Node) Nodes() []cluster.Node {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	var all []cluster.Node
	for _, other := range n.c.nodes {
		all = append(all, other.node)
	}
	return all
}

// Suspend makes the node's rows invisible to the others, or visible again.
func (n *Node) Suspend(on bool) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.node.Suspended = on
	n.c.wakeAll()
}

// Attend says that the node takes part in a network, or does not.
func (n *Node) Attend(network string, on bool) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if !on {
		delete(n.c.rows[network], n.node.ID)
	} else {
		n.row(network)
	}
	n.c.wakeAll()
}

// Publish writes or, with nil, withdraws a record of the node.
func (n *Node) Publish(network, key string, value []byte) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if value == nil {
		delete(n.c.rows[network][n.node.ID], key)
	} else {
		n.row(network)[key] = slices.Clone(value)
	}
	n.c.wakeAll()
}

// Remote are the rows of the other nodes.
func (n *Node) Remote(network string) []cluster.Row {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	var rows []cluster.Row
	for _, other := range n.c.nodes {
		records, ok := n.c.rows[network][other.node.ID]
		if ok && other != n && !other.node.Suspended {
			rows = append(rows, cluster.Row{Node: other.node, Records: maps.Clone(records)})
		}
	}
	return rows
}

// Revision is another number after every change of anything.
func (n *Node) Revision(string) uint64 {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.c.changes
}

// Sync has nothing to wait for.
func (n *Node) Sync(context.Context, string) error { return nil }

func (n *Node) row(network string) map[string][]byte {
	if n.c.rows == nil {
		n.c.rows = map[string]map[string]map[string][]byte{}
	}
	if n.c.rows[network] == nil {
		n.c.rows[network] = map[string]map[string][]byte{}
	}
	if n.c.rows[network][n.node.ID] == nil {
		n.c.rows[network][n.node.ID] = map[string][]byte{}
	}
	return n.c.rows[network][n.node.ID]
}

func (c *Cluster) wakeAll() {
	c.changes++
	for _, n := range c.nodes {
		for wake := range n.watches {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
}
