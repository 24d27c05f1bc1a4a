package cluster

import (
	"context"
	"fmt"
)

// ReattendNetwork says again that this node has a network: it has another identity now, or the cluster was recovered from a
// copy that did not know. The network must be the one that it was, by its VNI.
func ReattendNetwork(ctx context.Context, c proposer, id string, vni uint32) error {
	_, _, err := Decide(ctx, c, "network "+id, func(v View) (struct{}, Txn, error) {
		attend, network := attendKey(id, c.ID()), "network/"+id
		txn := Txn{If: []Cond{{attend, v.Index()}, {network, v.Index()}}}
		if n, ok := v.Network(id); !ok || n.VNI != vni {
			return struct{}{}, txn, fmt.Errorf("the cluster does not have network %s any more", id)
		}
		if _, ok := v.Get(attend); !ok {
			txn.Then = []Op{{Key: attend, Value: []byte("{}")}}
		}
		return struct{}{}, txn, nil
	})
	return err
}
