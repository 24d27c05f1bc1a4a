package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// nodeVersion is the version of the facts below "node/" and "forgotten/".
const nodeVersion = 1

// Keys of what the cluster knows about itself.
const (
	factCluster = "cluster/id"
	belowNode   = "node/"
	belowFenced = "forgotten/"

	fencedByLeave  = "left"
	fencedByForget = "forgotten"
)

// nodeFact is the fact of a node, below "node/".
type nodeFact struct {
	Version int `json:"v"`
	registered
}

// fencedFact stays for ever: this identity is refused. It is written when a node leaves as well, for a copy of its disk may
// come back.
type fencedFact struct {
	Version int    `json:"v"`
	Name    string `json:"name"`
	How     string `json:"how"` // fencedByLeave or fencedByForget
}

// Node is one member of the cluster.
type Node struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Addr      netip.Addr `json:"addr"` // its VTEP: from the gossip while it is alive, else from the facts
	Alive     bool       `json:"alive"`
	Suspended bool       `json:"suspended,omitempty"`
	Silent    time.Time  `json:"silent,omitzero"` // since when, if it is not alive; zero: since before this plugin's start
	Lost      bool       `json:"lost,omitempty"`  // the cluster was recovered without it, and it is not yet forgotten
	Voter     bool       `json:"voter,omitempty"`
	Version   string     `json:"version,omitempty"`
}

// registration is what this node says about itself.
func (c *Cluster) registration() registered {
	return registered{
		ID: c.id, Name: c.cfg.Name, Addr: c.cfg.Advertise, GossipPort: c.cfg.GossipPort, RaftPort: c.cfg.RaftPort,
		Version: c.cfg.Version,
	}
}

// registered returns the nodes that have a fact, in the order of their ids. What cannot be understood is left out.
func (v View) registered() []registered {
	var all []registered
	for f := range v.Prefix(belowNode) {
		if r, err := decodeNode(f); err == nil {
			all = append(all, r)
		}
	}
	return all
}

func decodeNode(f Fact) (registered, error) {
	var n nodeFact
	if err := json.Unmarshal(f.Value, &n); err != nil {
		return registered{}, fmt.Errorf("%s: %w", f.Key, err)
	}
	if n.Version != nodeVersion {
		return registered{}, fmt.Errorf("%s: format version %d, this node knows %d", f.Key, n.Version, nodeVersion)
	}
	n.ID = strings.TrimPrefix(f.Key, belowNode)
	return n.registered, nil
}

// registration returns the fact of a node.
func (v View) registration(id string) (registered, bool) {
	f, ok := v.Get(belowNode + id)
	if !ok {
		return registered{}, false
	}
	r := memoized(v, f.Key, func() *registered {
		if r, err := decodeNode(f); err == nil {
			return &r
		}
		return nil
	})
	if r == nil {
		return registered{}, false
	}
	return *r, true
}

// Fenced says how a node went for ever, if it did: "left" or "forgotten". Whatever it proposes has no effect any more.
func (v View) Fenced(id string) (string, bool) {
	f, ok := v.Get(belowFenced + id)
	if !ok {
		return "", false
	}
	var fenced fencedFact
	if err := json.Unmarshal(f.Value, &fenced); err != nil || fenced.How == "" {
		return fencedByForget, true
	}
	return fenced.How, true
}

// known are the nodes for the gossip: the registered ones, where they were met last, the fenced ones, and while this node
// has no facts those that have answered it.
func (c *Cluster) known() []registered {
	view := c.View()
	c.mu.Lock()
	met := maps.Clone(c.met)
	c.mu.Unlock()
	all := view.registered()
	for i, r := range all {
		if _, lost := view.leftBehind(r.ID); lost {
			all[i] = registered{ID: r.ID, Name: r.Name, Forgotten: true}
			continue
		}
		if m, ok := met[r.ID]; ok {
			all[i] = m.Node
			delete(met, r.ID)
		}
	}
	for f := range view.Prefix(belowFenced) {
		var fenced fencedFact
		if err := json.Unmarshal(f.Value, &fenced); err != nil {
			fenced.Name = ""
		}
		all = append(all, registered{ID: strings.TrimPrefix(f.Key, belowFenced), Name: fenced.Name, Forgotten: true})
	}
	if view.Index() == 0 {
		for _, m := range met {
			all = append(all, m.Node)
		}
	}
	return all
}

// address is where a node's port is now.
func (c *Cluster) address(id string) (netip.AddrPort, bool) {
	for _, m := range c.gossip.members() {
		if m.ID == id && m.Alive && m.Addr.IsValid() && m.RaftPort != 0 {
			return netip.AddrPortFrom(m.Addr, m.RaftPort), true
		}
	}
	c.mu.Lock()
	met, ok := c.met[id]
	c.mu.Unlock()
	if ok {
		return met.Node.at(), true
	}
	r, ok := c.View().registration(id)
	return r.at(), ok
}

// Nodes are all members, this one included, in the order of their names.
func (c *Cluster) Nodes() []Node {
	byID := map[string]member{}
	for _, m := range c.gossip.members() {
		byID[m.ID] = m
	}
	voters := map[string]bool{}
	if n := c.running(); n != nil {
		for _, s := range n.servers() {
			voters[string(s.ID)] = s.Suffrage == raft.Voter
		}
	}
	var all []Node
	view := c.View()
	for _, r := range view.registered() {
		node := Node{ID: r.ID, Name: r.Name, Addr: r.Addr, Version: r.Version, Voter: voters[r.ID]}
		if m, ok := byID[r.ID]; ok {
			node.Alive, node.Suspended, node.Silent = m.Alive, m.Suspended, m.Silent
			if m.Alive && m.Addr.IsValid() {
				node.Addr = m.Addr
			}
		}
		_, node.Lost = view.leftBehind(r.ID)
		if r.ID == c.id {
			node.Alive, node.Suspended, node.Addr = true, false, c.cfg.Advertise
		}
		all = append(all, node)
	}
	slices.SortFunc(all, func(a, b Node) int { return strings.Compare(a.Name+" "+a.ID, b.Name+" "+b.ID) })
	return all
}
