package cluster

import (
	"net/netip"

	"github.com/hashicorp/raft"
)

// State of a node.
type State string

// States.
const (
	Founding State = "founding" // about to make a cluster
	Joining  State = "joining"  // looks for one, or copies its facts
	Member   State = "member"
	Left     State = "left"    // by its own wish; Rejoin or the next start makes it a new node
	Refused  State = "refused" // the others do not let it in

	Quarantined State = "quarantined" // another host has its identity
)

// Status is for the operator: what this node knows of the cluster now.
type Status struct {
	Node    StatusNode `json:"node"`
	State   State      `json:"state"`
	Reason  string     `json:"reason,omitempty"` // why it is not a member, or what it waits for
	Cluster string     `json:"cluster,omitempty"`
	Leader  string     `json:"leader,omitempty"` // name
	Quorum  bool       `json:"quorum"`           // new facts can be decided, as far as is known here
	Voters  []string   `json:"voters,omitempty"` // names
	Index   uint64     `json:"index"`            // of the newest fact
	Nodes   []Node     `json:"nodes,omitempty"`
	Alarms  []string   `json:"alarms,omitempty"`
}

// StatusNode is this node.
type StatusNode struct {
	Name string     `json:"name"`
	ID   string     `json:"id"`
	Addr netip.Addr `json:"addr"`
}

// Status of this node and of the cluster as it sees it.
func (c *Cluster) Status() Status {
	view := c.View()
	s := Status{
		Node:    StatusNode{Name: c.cfg.Name, ID: c.id, Addr: c.cfg.Advertise},
		Cluster: c.cluster(), Index: view.Index(), Nodes: c.Nodes(),
		Alarms: append(c.alarms.texts(), view.recoveredAlarms()...),
	}
	s.State, s.Reason = c.stateNow()
	n := c.running()
	if n == nil {
		return s
	}
	if leader := c.leader(); leader != "" {
		s.Leader, s.Quorum = view.nameOf(leader), true
	}
	for _, server := range n.servers() {
		if server.Suffrage == raft.Voter {
			s.Voters = append(s.Voters, view.nameOf(string(server.ID)))
		}
	}
	return s
}

// nameOf is the name of a node, or its id while it has no entry.
func (v View) nameOf(id string) string {
	if r, ok := v.registration(id); ok {
		return r.Name
	}
	return id
}

func (c *Cluster) stateNow() (State, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.reason
}

// setState says what this node is; a change is logged and wakes.
func (c *Cluster) setState(s State, reason string) {
	c.mu.Lock()
	changed, news := c.state != s || c.reason != reason, c.state != s
	c.state, c.reason = s, reason
	c.mu.Unlock()
	if news {
		c.log.WithField("reason", reason).Infof("cluster: %s", s)
	}
	if changed {
		c.own.wake()
		c.all.wake()
	}
}
