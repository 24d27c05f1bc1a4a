package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// wantVersion is the version of the facts below "want/".
const wantVersion = 1

// Want is a question to the owner of a block for one address of it. The owner gives the address away as a block of its own
// and removes the want, or says why not.
type Want struct {
	Addr   netip.Addr
	Node   string // id of who asks; empty if the fact is not understood
	Denied string // the owner's reason; empty: there is no answer yet
	Index  uint64 // of the log entry that wrote it
}

type wantFact struct {
	Version int    `json:"v"`
	Node    string `json:"node"`
	Denied  string `json:"denied,omitempty"`
}

func wantKey(network string, addr netip.Addr) string { return "want/" + network + "/" + addr.String() }

func attendKey(network, node string) string { return "attend/" + network + "/" + node }

// Want returns the question for an address, if there is one.
func (v View) Want(network string, addr netip.Addr) (Want, bool) {
	f, ok := v.Get(wantKey(network, addr))
	if !ok {
		return Want{}, false
	}
	w, _ := decodeWant(f)
	return w, true
}

// Wants returns the questions in a network, in the order of their keys. The slice is not to be changed.
func (v View) Wants(network string) []Want {
	return memoized(v, "want/"+network, func() []Want {
		var all []Want
		for f := range v.Prefix("want/" + network + "/") {
			if w, ok := decodeWant(f); ok {
				all = append(all, w)
			}
		}
		return all
	})
}

// decodeWant fails for what is not at an address. The value of a version that is not known is nobody's.
func decodeWant(f Fact) (Want, bool) {
	addr, err := netip.ParseAddr(f.Key[strings.LastIndexByte(f.Key, '/')+1:])
	if err != nil {
		return Want{}, false
	}
	w := Want{Addr: addr, Index: f.Index}
	var fact wantFact
	if json.Unmarshal(f.Value, &fact) == nil && fact.Version == wantVersion {
		w.Node, w.Denied = fact.Node, fact.Denied
	}
	return w, true
}

func wantOp(network string, w Want) (Op, error) {
	value, err := json.Marshal(wantFact{wantVersion, w.Node, w.Denied})
	return Op{wantKey(network, w.Addr), value}, err
}

// PlanAsk asks, in the name of node, for an address that lies in another's block. A question of its own that is there already
// is asked anew: an answer to the old one does not count any more.
func PlanAsk(v View, network string, addr netip.Addr, node string) (Txn, error) {
	op, err := wantOp(network, Want{Addr: addr, Node: node})
	if err != nil {
		return Txn{}, err
	}
	attend := attendKey(network, node)
	txn := Txn{If: []Cond{{op.Key, v.Index()}, {attend, v.Index()}}}
	if _, ok := v.Get(attend); !ok {
		return txn, fmt.Errorf("ask for %s: network %s is not on this host", addr, network)
	}
	if w, ok := v.Want(network, addr); ok && w.Node != node {
		return txn, fmt.Errorf("host %s is asking for it at the moment", v.NodeName(w.Node))
	}
	txn.Then = []Op{op}
	return txn, nil
}

// openWant returns the transaction that rests on a question that is open and that owner, whose block the address lies in, has to
// answer; false if it is not there.
func openWant(v View, network string, asked Want, owner string) (Txn, bool) {
	w, ok := v.Want(network, asked.Addr)
	block, found := v.Owner(network, asked.Addr)
	if !ok || w != asked || w.Denied != "" || w.Node == "" || w.Node == owner || !found || block.Node != owner {
		return Txn{}, false
	}
	given := netip.PrefixFrom(w.Addr, w.Addr.BitLen())
	return Txn{If: []Cond{
		{wantKey(network, w.Addr), v.Index()}, {BlockKey(network, block.Prefix), v.Index()},
		{BlockKey(network, given), v.Index()}, {attendKey(network, w.Node), v.Index()},
	}}, true
}

// PlanGive is the yes of owner to a question: the address becomes a block of who asks. Nothing is to be done if the question is
// not open any more or the address is not the owner's; the question of a node that has left the network is removed.
func PlanGive(v View, network string, asked Want, owner string) (Txn, error) {
	txn, ok := openWant(v, network, asked, owner)
	if !ok {
		return Txn{}, nil
	}
	txn.Then = []Op{{Key: wantKey(network, asked.Addr)}}
	if _, attends := v.Get(attendKey(network, asked.Node)); !attends {
		return txn, nil
	}
	given, err := BlockOp(network, netip.PrefixFrom(asked.Addr, asked.Addr.BitLen()), asked.Node)
	txn.Then = append(txn.Then, given)
	return txn, err
}

// PlanDeny is the no of owner to a question, for a reason. Nothing is to be done in the cases of PlanGive, and the question of
// a node that has left is removed.
func PlanDeny(v View, network string, asked Want, owner, reason string) (Txn, error) {
	txn, ok := openWant(v, network, asked, owner)
	if !ok {
		return Txn{}, nil
	}
	op := Op{Key: wantKey(network, asked.Addr)}
	var err error
	if _, attends := v.Get(attendKey(network, asked.Node)); attends {
		op, err = wantOp(network, Want{Addr: asked.Addr, Node: asked.Node, Denied: reason})
	}
	txn.Then = []Op{op}
	return txn, err
}

// PlanWithdraw removes the question of a node, answered or not.
func PlanWithdraw(v View, network string, addr netip.Addr, node string) Txn {
	if w, ok := v.Want(network, addr); !ok || w.Node != node {
		return Txn{}
	}
	key := wantKey(network, addr)
	return Txn{If: []Cond{{key, v.Index()}}, Then: []Op{{Key: key}}}
}
