package ipam

import (
	"context"
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
func (i *IPAM) Describe(space string, subnets []netip.Prefix) (name string, described []cluster.Subnet, ours bool) {
	if space != localSpace && space != globalSpace {
		return "", nil, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, prefix := range subnets {
		s := cluster.Subnet{Prefix: prefix}
		if p := i.newest(space, prefix); p != nil {
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
func (i *IPAM) newest(space string, prefix netip.Prefix) *pool {
	var found *pool
	for _, p := range i.pools {
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
func (i *IPAM) Bind(ctx context.Context, network, shared string, subnets []cluster.Subnet) error {
	if shared != "" && i.config.Cluster == nil {
		return errors.New("a network of a cluster, and this host is in none: SECRET is not set")
	}
	i.mu.Lock()
	bindings, err := i.plan(network, shared, subnets)
	if err == nil {
		err = i.write(bindings, func(b binding) poolRecord { return b.after })
	}
	i.mu.Unlock()
	if err != nil || shared == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := i.settle(ctx, shared, bindings); err != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		return errors.Join(err, i.write(bindings, func(b binding) poolRecord { return b.before }))
	}
	return nil
}

// plan finds the pools and says how they shall be. i.mu is held.
func (i *IPAM) plan(network, shared string, subnets []cluster.Subnet) ([]binding, error) {
	var bindings []binding
	for _, s := range subnets {
		if !s.Range.IsValid() {
			s.Range = s.Prefix
		}
		p := i.bound(network, s.Prefix.Addr())
		if p == nil {
			p = i.newest(localSpace, s.Prefix)
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
			id := poolID(localSpace, s.Prefix, nil)
			b.after = poolRecord{Version: recordVersion, ID: id, Space: localSpace, Prefix: s.Prefix}
			b.pool = i.newPool(b.after)
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

// write makes the records so, all or none. i.mu is held.
func (i *IPAM) write(bindings []binding, record func(binding) poolRecord) error {
	var writes []store.Write
	for _, b := range bindings {
		rec := record(b)
		if rec.Version == 0 {
			writes = append(writes, store.Write{Key: belowPool + b.after.ID})
			continue
		}
		write, err := putPool(rec)
		if err != nil {
			return err
		}
		writes = append(writes, write)
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	for _, b := range bindings {
		rec := record(b)
		if rec.Version == 0 {
			delete(i.pools, b.after.ID)
			continue
		}
		b.pool.asked = 0
		i.pools[rec.ID] = b.pool
		i.adopt(b.pool, rec)
	}
	return nil
}

// settle gives the host a block of each subnet and notes from when on its view of the facts is good: whatever it had of
// the network before may have been given back in a log entry that it has not seen yet. And a removal of the network that was
// proposed before, and whose answer was lost, cannot happen any more.
func (i *IPAM) settle(ctx context.Context, shared string, bindings []binding) error {
	c := i.config.Cluster
	if !slices.ContainsFunc(bindings, func(b binding) bool { return b.after.Since == unsettled }) {
		return nil
	}
	view, err := attend(ctx, c, shared)
	if err != nil {
		return err
	}
	for n, b := range bindings {
		if b.after.Since != unsettled {
			continue
		}
		b.after.Since = view.Index()
		if i.damaged {
			b.after.Frozen = view.Index()
		}
		had := i.had(view, shared, b.after.Subnet)
		if !had || i.damaged {
			_, err := cluster.ClaimBlock(ctx, c, shared, b.after.Subnet)
			if err != nil && !had {
				return err
			}
			if err != nil { // what is in use is taken over from the frozen blocks; for more there has to be room
				i.config.Logger.WithError(err).WithField("subnet", b.after.Prefix).Warn("no new block instead of the frozen ones")
			}
		}
		bindings[n] = b
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.write(bindings, func(b binding) poolRecord { return b.after })
}

// had says whether the host has a block of a subnet.
func (i *IPAM) had(v cluster.View, shared string, s cluster.Subnet) bool {
	for _, b := range v.Blocks(shared) {
		if b.Node == i.config.Cluster.ID() && s.Range.Overlaps(b.Prefix) {
			return true
		}
	}
	return false
}

// attend writes once more that the host has the network, and returns a view that is as new as that.
func attend(ctx context.Context, c Facts, shared string) (cluster.View, error) {
	key := "attend/" + shared + "/" + c.ID()
	view := c.View()
	for {
		f, ok := view.Get(key)
		if !ok {
			return cluster.View{}, fmt.Errorf("network %s is not on this host", shared)
		}
		next, err := c.Propose(ctx, cluster.Txn{
			If: []cluster.Cond{{Key: key, Index: view.Index()}}, Then: []cluster.Op{{Key: key, Value: f.Value}},
		})
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, cluster.ErrConflict) || ctx.Err() != nil {
			return cluster.View{}, fmt.Errorf("network create: %w", err)
		}
		view = next
	}
}

// Unbind drops the pools of a network and every lease in them. Blocks are given back by cluster.LeaveNetwork.
func (i *IPAM) Unbind(_ context.Context, network string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var pools []*pool
	for _, p := range i.ordered() {
		if p.Network == network && network != "" {
			pools = append(pools, p)
		}
	}
	if len(pools) == 0 {
		return nil
	}
	return i.drop(pools...)
}
