package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// joined is the answer to who wants to join.
type joined struct {
	Cluster    string `json:"cluster"`
	Generation string `json:"generation,omitempty"` // of the log
}

// join asks the nodes that know a cluster to be let in, one after the other. It tells whether this node is in afterwards;
// if not, the state says why and the next round tries again.
func (c *Cluster) join(ctx context.Context, members []reply) bool {
	for _, r := range members[1:] {
		if r.Cluster != members[0].Cluster {
			c.setState(Refused, fmt.Sprintf("%s is in cluster %s and %s in cluster %s: JOIN must name nodes of one cluster",
				members[0].target, members[0].Cluster, r.target, r.Cluster))
			return false
		}
	}
	var failed []string
	for _, via := range members {
		limited, cancel := context.WithTimeout(ctx, c.timing.propose)
		var a joined
		_, err := c.call(limited, via.addr, opJoin, c.registration(), &a)
		cancel()
		switch code := codeOf(err); {
		case err == nil && a.Cluster == via.Cluster:
			if err = c.enterCluster(a.Cluster, a.Generation); err == nil {
				return true
			}
		case code == codeFenced:
			c.setFenced(err.Error())
			return false
		case code == codeRefused:
			c.setState(Refused, err.Error())
			return false
		case ctx.Err() != nil:
			return false
		}
		failed = append(failed, fmt.Sprintf("%s: %v", via.target, err))
	}
	c.setState(Joining, strings.Join(failed, "; "))
	return false
}

// admit registers a node that asks to join. Its entry is all that it needs: the leader makes everybody who has one a
// server of raft.
func (c *Cluster) admit(ctx context.Context, from netip.Addr, peerID string, r registered) (joined, error) {
	if r.ID != peerID {
		return joined{}, refusal(codeRefused, "node %s asks to join as %s", peerID, r.ID)
	}
	if err := checkName(r.Name); err != nil {
		return joined{}, refusal(codeRefused, "%v", err)
	}
	if !r.Addr.IsValid() || r.Addr.IsUnspecified() || r.RaftPort == 0 || r.GossipPort == 0 {
		return joined{}, refusal(codeRefused, "node %s asks to join from %v, ports %d and %d", r.Name, r.Addr, r.RaftPort, r.GossipPort)
	}
	// Nodes call from the address that they advertise. Another one may be another node's.
	if from.WithZone("") != r.Addr.WithZone("") {
		return joined{}, refusal(codeRefused, "node %s asks to join with the address %s and calls from %s: ADVERTISE must be an address "+
			"of the host itself, which the others see", r.Name, r.Addr, from)
	}
	id := c.cluster()
	if id == "" || c.View().Index() == 0 {
		return joined{}, refusal(codeRetry, "node %s is not a member yet", c.cfg.Name)
	}
	return joined{Cluster: id, Generation: c.generationNow()}, c.register(ctx, r)
}

// register writes the entry of a node, unless it is there.
func (c *Cluster) register(ctx context.Context, r registered) error {
	view := c.View()
	for {
		txn, err := registerTxn(view, r)
		if err != nil || len(txn.Then) == 0 {
			return err
		}
		view, err = c.Propose(ctx, txn)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// registerTxn is one try. Names are unique, so that the operator can say which node he means.
func registerTxn(v View, r registered) (Txn, error) {
	if how, fenced := v.Fenced(r.ID); fenced {
		return Txn{}, refusal(codeFenced, "%s", how)
	}
	for _, other := range v.registered() {
		if other.Name == r.Name && other.ID != r.ID {
			return Txn{}, refusal(codeRefused,
				"another node is called %q already (%s): if that host is gone or was installed anew, run `carrick forget %s` on a member first, else set NODE to another name",
				r.Name, other.Addr, r.Name)
		}
	}
	if have, ok := v.registration(r.ID); ok && have == r {
		return Txn{}, nil
	}
	value, err := json.Marshal(nodeFact{Version: nodeVersion, registered: r})
	if err != nil {
		return Txn{}, fmt.Errorf("node %s: %w", r.Name, err)
	}
	return Txn{
		If:   []Cond{{"node", v.Index()}, {belowFenced + r.ID, v.Index()}},
		Then: []Op{{Key: belowNode + r.ID, Value: value}},
	}, nil
}
