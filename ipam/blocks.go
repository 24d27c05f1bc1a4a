package ipam

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// refresh takes over what a view says of a pool's blocks.
func (p *pool) refresh(view cluster.View, self string, now time.Time) {
	if p.Shared == "" {
		p.space.setParts([]netip.Prefix{p.rangeOf()}, nil, now)
		return
	}
	p.viewed, p.known, p.self = view.Index(), true, self
	p.stale = view.Index() < p.Since
	p.blocks = p.believed(view)
	var parts []netip.Prefix
	for _, b := range p.blocks {
		inRange := p.rangeOf().Contains(b.Prefix.Addr()) && b.Prefix.Bits() >= p.rangeOf().Bits()
		if inRange && p.ours(b) && !p.frozen(b) && (len(parts) == 0 || !parts[len(parts)-1].Overlaps(b.Prefix)) {
			parts = append(parts, b.Prefix)
		}
	}
	p.space.setParts(parts, p.barred(), now)
}

// believed are the blocks that a view shows, and those of ours that it is too old to show. A view from before the binding
// shows nothing that counts.
func (p *pool) believed(view cluster.View) []cluster.Block {
	var blocks []cluster.Block
	shown := map[netip.Prefix]bool{}
	if !p.stale {
		blocks = view.Blocks(p.Shared)
	}
	for _, b := range blocks {
		shown[b.Prefix] = true
	}
	for _, r := range p.receipts {
		if !p.stale && r.Index <= view.Index() || r.Node != "" && r.Node != p.self {
			continue
		}
		blocks = slices.DeleteFunc(blocks, func(b cluster.Block) bool { return b.Prefix == r.Prefix })
		blocks = append(blocks, cluster.Block{Prefix: r.Prefix, Node: p.self, Index: r.Index})
		for _, addr := range r.Carved {
			if single := netip.PrefixFrom(addr, addr.BitLen()); !shown[single] {
				blocks = append(blocks, cluster.Block{Prefix: single})
			}
		}
	}
	slices.SortFunc(blocks, func(a, b cluster.Block) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	})
	return blocks
}

// receive writes receipts for the blocks of ours that the facts show. They are for bad times only: if it fails, it is tried
// again at the next change. i.mu is held.
func (i *IPAM) receive(p *pool) {
	if p.stale {
		return
	}
	receipts := map[netip.Prefix]blockRecord{}
	var writes []store.Write
	for _, b := range p.blocks {
		if !p.ours(b) {
			continue
		}
		rec := blockRecord{Version: recordVersion, Pool: p.ID, Prefix: b.Prefix, Node: p.self, Index: b.Index}
		for _, other := range p.blocks {
			if other.Prefix.IsSingleIP() && !p.ours(other) && b.Prefix.Contains(other.Prefix.Addr()) {
				rec.Carved = append(rec.Carved, other.Prefix.Addr())
			}
		}
		receipts[b.Prefix] = rec
		if have, ok := p.receipts[b.Prefix]; !ok || have.Index != rec.Index || have.Node != rec.Node || !slices.Equal(have.Carved, rec.Carved) {
			write, err := putBlock(rec)
			if err != nil {
				return
			}
			writes = append(writes, write)
		}
	}
	for prefix := range p.receipts {
		if _, ok := receipts[prefix]; !ok {
			writes = append(writes, store.Write{Key: blockKey(p.ID, prefix)})
		}
	}
	if len(writes) == 0 {
		return
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		i.config.Logger.WithError(err).WithField("subnet", p.Prefix).Warn("no receipt of address blocks; trying again at the next change")
		return
	}
	p.receipts = receipts
}

func (p *pool) ours(b cluster.Block) bool   { return b.Node == p.self && p.self != "" }
func (p *pool) frozen(b cluster.Block) bool { return b.Index <= p.Frozen }

// barred are the addresses that lie in blocks of ours and are not ours to give.
func (p *pool) barred() map[netip.Addr]bool {
	barred := map[netip.Addr]bool{}
	for _, b := range p.blocks {
		if b.Prefix.IsSingleIP() && (!p.ours(b) || p.frozen(b)) {
			barred[b.Prefix.Addr()] = true
		}
	}
	for addr := range p.excluded {
		barred[addr] = true
	}
	return barred
}

// owner is the longest block around an address.
func (p *pool) owner(addr netip.Addr) (cluster.Block, bool) {
	var owner cluster.Block
	for _, b := range p.blocks {
		if b.Prefix.Contains(addr) && (!owner.Prefix.IsValid() || b.Prefix.Bits() > owner.Prefix.Bits()) {
			owner = b
		}
	}
	return owner, owner.Prefix.IsValid()
}

// mayGive says why an address that is asked for is not ours to give; nil: it is. i.mu is held and the pool refreshed.
func (i *IPAM) mayGive(p *pool, addr netip.Addr) error {
	if p.Shared == "" {
		return nil
	}
	owner, found := p.owner(addr)
	_, excluded := p.excluded[addr]
	switch {
	case p.stale && (!found || !p.ours(owner)):
		return i.staleError(p)
	case !found:
		return errNobodys
	case !p.ours(owner):
		return errOthers
	case excluded:
		return fmt.Errorf("address %s is being given to another host that asked for it", addr)
	case p.frozen(owner):
		return fmt.Errorf("address %s is in block %s, which is frozen: what was handed out of it was lost with a damaged store. "+
			"Remove the network from this host and create it again", addr, owner.Prefix)
	}
	return nil
}

func (i *IPAM) staleError(p *pool) error {
	if i.config.Cluster == nil {
		return fmt.Errorf("%s belongs to a network of a cluster, and this host is in none: SECRET is not set", p.label())
	}
	return fmt.Errorf("%s: what this host knows of the cluster (log entry %d) is older than its own part in the network (%d): "+
		"waiting for the cluster: %w", p.label(), p.viewed, p.Since, cluster.ErrNoQuorum)
}

// claim makes one more block of a network ours. At most one claim per pool is under way; who comes second finds what
// the first has claimed. i.mu is not held.
func (i *IPAM) claim(ctx context.Context, p *pool) error {
	select {
	case p.claims <- struct{}{}:
		defer func() { <-p.claims }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for a block to be claimed: %w", ctx.Err())
	}
	i.mu.Lock()
	i.refresh(p)
	shared, subnet := p.Shared, p.Subnet
	_, there := p.space.pick(i.now())
	gone := i.pools[p.ID] != p || shared == ""
	i.mu.Unlock()
	if there || gone {
		return nil
	}
	_, err := cluster.ClaimBlock(ctx, i.config.Cluster, shared, subnet)
	return err
}

// unclaimed is how many addresses of a network's range are in blocks that nobody has, for sentences.
func (p *pool) unclaimed() uint64 {
	left := cluster.BlockSize(p.rangeOf())
	for _, b := range p.blocks {
		if p.rangeOf().Contains(b.Prefix.Addr()) {
			left -= min(left, cluster.BlockSize(b.Prefix))
		}
	}
	return left
}

// usedHere is how many addresses of a pool are handed out on this host.
func (p *pool) usedHere() int { return len(p.space.leases) }
