package ledger

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// unsettled is the Since of a pool whose binding is under way: no view is as new.
const unsettled = math.MaxUint64

// Describe says what was asked for a network's pools: its name, and for each subnet the range, gateway and auxiliary
// addresses as the user gave them. ours is false if the address space is another IPAM driver's.
func (l *Ledger) Describe(space string, subnets []netip.Prefix) (name string, described []cluster.Subnet, ours bool) {
	if space != LocalSpace && space != GlobalSpace {
		return "", nil, false
	}
	for _, prefix := range subnets {
		s := cluster.Subnet{Prefix: prefix}
		if p := l.newest(space, prefix); p != nil {
			name = max(name, p.Options[OptionNetwork])
			s.Range, s.Aux = p.Range, auxOf(p.Aux)
			if !p.Chosen {
				s.Gateway = p.Gateway
			}
		}
		described = append(described, s)
	}
	return name, described, true
}

// newest is the provisional pool of a subnet that was asked for last; or, if there is none, the bound one.
func (l *Ledger) newest(space string, prefix netip.Prefix) *pool {
	var found *pool
	for _, p := range l.ordered() {
		if p.Space != space || p.Prefix != prefix {
			continue
		}
		if found == nil || (p.Network == "") && (found.Network != "" || p.serial > found.serial) {
			found = p
		}
	}
	return found
}

// binding is one pool before and after Bind.
type binding struct {
	pool   *pool
	before poolRecord // Version 0: there was none
	after  poolRecord
}

// Bind ties pools to a network of Docker's. For a network of the cluster, which has been joined before, the host gets its
// first block of each subnet. Bound again the same way it succeeds; on failure everything is as it was.
func (l *Ledger) Bind(at Moment, network, shared string, subnets []cluster.Subnet) Move {
	if shared != "" && !at.Joined {
		return done(errors.New("a network of a cluster, and this host is in none: SECRET is not set"))
	}
	bindings, err := l.plan(network, shared, subnets)
	if err != nil {
		return done(err)
	}
	after := func(b binding) poolRecord { return b.after }
	return then(at, l.record(bindings, after), func(at Moment, m Move) Move {
		if m.Err != nil || shared == "" {
			return m
		}
		return then(at, l.settle(at, shared, bindings), func(at Moment, m Move) Move {
			if m.Err != nil && !flawed(flawHalfBound) {
				return then(at, l.record(bindings, func(b binding) poolRecord { return b.before }), func(_ Moment, undone Move) Move {
					return done(errors.Join(m.Err, undone.Err))
				})
			}
			return inOrder(at, l.receipts(bindings))
		})
	})
}

// plan finds the pools and says how they shall be.
func (l *Ledger) plan(network, shared string, subnets []cluster.Subnet) ([]binding, error) {
	var bindings []binding
	for _, s := range subnets {
		if !s.Range.IsValid() {
			s.Range = s.Prefix
		}
		p := l.bound(network, s.Prefix.Addr())
		if p == nil {
			p = l.newest(LocalSpace, s.Prefix)
		}
		if p != nil && p.Network != "" && p.Network != network {
			return nil, fmt.Errorf("subnet %s is that of network %s on this host", s.Prefix, short(p.Network))
		}
		if p != nil && p.Network == "" && len(p.space.leases) > 0 {
			return nil, fmt.Errorf("subnet %s is that of another driver's network on this host", s.Prefix)
		}
		b := binding{pool: p}
		if p != nil {
			b.before = p.poolRecord
			b.after = p.poolRecord
		} else {
			id := poolID(LocalSpace, s.Prefix, nil)
			b.after = poolRecord{Version: recordVersion, ID: id, Space: LocalSpace, Prefix: s.Prefix}
			b.pool = newPool(b.after)
		}
		settled := b.before.Network == network && b.before.Shared == shared && b.before.Since != unsettled
		b.after.Network, b.after.Shared, b.after.Subnet = network, shared, s
		if shared != "" && !settled {
			b.after.Since = unsettled
		}
		bindings = append(bindings, b)
	}
	return bindings, nil
}

// record makes the records so, all or none.
func (l *Ledger) record(bindings []binding, record func(binding) poolRecord) Move {
	var all []store.Write
	for _, b := range bindings {
		if rec := record(b); rec.Version == 0 {
			all = append(all, deletion(belowPool+b.after.ID))
		} else {
			all = append(all, putPool(rec))
		}
	}
	return write(all, func(at Moment) Move {
		for _, b := range bindings {
			rec := record(b)
			if rec.Version == 0 {
				l.set(b.after.ID, nil)
				continue
			}
			b.pool.asked = 0
			l.set(rec.ID, b.pool)
			b.pool.adopt(rec, at)
		}
		return done(nil)
	})
}

// receipts writes those of pools that were bound.
func (l *Ledger) receipts(bindings []binding) []func(Moment) Move {
	var steps []func(Moment) Move
	for _, b := range bindings {
		steps = append(steps, b.pool.receive)
	}
	return steps
}

// receive writes receipts for the blocks of ours that the facts show.
func (p *pool) receive(at Moment) Move {
	p.refresh(at)
	all, receipts := p.receipt()
	if len(all) == 0 {
		p.noted = p.known
		return done(nil)
	}
	return write(all, func(Moment) Move {
		p.note(receipts)
		return done(nil)
	})
}

// settle gives the host a block of each subnet and notes from when on its view of the facts is good: whatever it had of
// the network before may have been given back in a log entry that it has not seen yet. And a removal of the network that was
// proposed before, and whose answer was lost, cannot happen any more.
func (l *Ledger) settle(at Moment, shared string, bindings []binding) Move {
	if !slices.ContainsFunc(bindings, func(b binding) bool { return b.after.Since == unsettled }) {
		return done(nil)
	}
	if flawed(flawBindsToOldFacts) {
		return l.firstBlocks(at, shared, bindings, 0, 0)
	}
	return attend(at, shared, func(at Moment, err error) Move {
		if err != nil {
			return done(fmt.Errorf("network create: %w", err))
		}
		since := at.View.Index()
		return l.firstBlocks(at, shared, bindings, 0, since)
	})
}

// firstBlocks claims a block for each binding from the n-th on that needs one, and then writes that all are settled.
func (l *Ledger) firstBlocks(at Moment, shared string, bindings []binding, n int, since uint64) Move {
	if n == len(bindings) {
		return l.record(bindings, func(b binding) poolRecord { return b.after })
	}
	b := &bindings[n]
	if b.after.Since != unsettled {
		return l.firstBlocks(at, shared, bindings, n+1, since)
	}
	b.after.Since = since
	if l.damaged {
		b.after.Frozen = since
	}
	if flawed(flawNothingFreezes) {
		b.after.Frozen = 0
	}
	had := hasBlock(at, shared, b.after.Subnet)
	if had && !l.damaged {
		return l.firstBlocks(at, shared, bindings, n+1, since)
	}
	subnet := b.after.Subnet
	return agree(at, func(at Moment) (cluster.Txn, error) {
		_, txn, err := cluster.PlanClaim(at.View, shared, subnet, at.Self)
		return txn, err
	}, func(at Moment, err error) Move {
		// After damage nobody knows whether it was bound before: it goes on without room, too, for its containers run.
		if err != nil && !had && (!l.damaged || isNoQuorum(err)) {
			return done(err)
		}
		if err != nil { // what is in use is taken over from the frozen blocks; for more there has to be room
			l.note("no new block instead of the frozen ones", err, map[string]any{"subnet": subnet.Prefix})
		}
		return l.firstBlocks(at, shared, bindings, n+1, since)
	})
}

// hasBlock says whether the host has a block of a subnet.
func hasBlock(at Moment, shared string, s cluster.Subnet) bool {
	return slices.ContainsFunc(at.View.Blocks(shared), func(b cluster.Block) bool { return b.Node == at.Self && s.Range.Overlaps(b.Prefix) })
}

// attend writes once more that the host has the network, so that its view is as new as that.
func attend(at Moment, shared string, after func(Moment, error) Move) Move {
	key := "attend/" + shared + "/" + at.Self
	return agree(at, func(at Moment) (cluster.Txn, error) {
		f, ok := at.View.Get(key)
		if !ok {
			return cluster.Txn{}, fmt.Errorf("network %s is not on this host", shared)
		}
		return cluster.Txn{If: []cluster.Cond{{Key: key, Index: at.View.Index()}}, Then: []cluster.Op{{Key: key, Value: f.Value}}}, nil
	}, after)
}

// Unbind drops the pools of a network and every lease in them. Blocks are given back by cluster.LeaveNetwork.
func (l *Ledger) Unbind(_ Moment, network string) Move {
	var pools []*pool
	for _, p := range l.ordered() {
		if p.Network == network && network != "" {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return done(nil)
	}
	return l.drop(pools...)
}
