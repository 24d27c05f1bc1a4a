package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	// inUseVersion is the version of the facts below "inuse/".
	inUseVersion = 1
	belowInUse   = "inuse/"
)

// inUseFact is what a node says of its host, below "inuse/". Versions that do not know it leave it alone.
type inUseFact struct {
	Version  int            `json:"v"`
	Prefixes []netip.Prefix `json:"prefixes"`
}

// InUse is what a host has of its own where subnets of networks are chosen from: its routes, addresses and name servers.
type InUse struct {
	Node     string // id
	Name     string
	Prefixes []netip.Prefix
}

// InUse is what the hosts of registered nodes use, as they have told, in the order of their ids. What is of a newer version is
// left out: then a subnet may be chosen that is in that host's way, as one that the user names may be.
func (v View) InUse() []InUse {
	var all []InUse
	for f := range v.Prefix(belowInUse) {
		node := strings.TrimPrefix(f.Key, belowInUse)
		r, registered := v.registration(node)
		var fact inUseFact
		if registered && json.Unmarshal(f.Value, &fact) == nil && fact.Version == inUseVersion {
			all = append(all, InUse{node, r.Name, fact.Prefixes})
		}
	}
	return all
}

// IsNode says whether a node is registered.
func (v View) IsNode(id string) bool {
	_, ok := v.registration(id)
	return ok
}

// PlanInUse tells what the host of a node uses. Nothing is to be done if that is known, or if the node is not registered.
func PlanInUse(v View, node string, prefixes []netip.Prefix) (Txn, error) {
	key := belowInUse + node
	f, known := v.Get(key)
	var has inUseFact
	if known && json.Unmarshal(f.Value, &has) != nil {
		has = inUseFact{}
	}
	same := known && has.Version == inUseVersion && slices.Equal(has.Prefixes, prefixes)
	if !v.IsNode(node) || same || !known && len(prefixes) == 0 {
		return Txn{}, nil
	}
	op := Op{Key: key}
	if len(prefixes) > 0 {
		value, err := json.Marshal(inUseFact{inUseVersion, prefixes})
		if err != nil {
			return Txn{}, fmt.Errorf("%s: %w", key, err)
		}
		op.Value = value
	}
	return Txn{If: []Cond{{key, v.Index()}, {belowNode + node, v.Index()}}, Then: []Op{op}}, nil
}
