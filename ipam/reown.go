package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
)

// stray is an address that is leased here, and not this host's to give.
type stray struct {
	pool  poolRecord
	addr  netip.Addr
	owner cluster.Block // zero: nobody's
	used  string        // the endpoint that has it
}

// strays of a pool, sorted. i.mu is held and the pool refreshed.
func (p *pool) strays() []stray {
	if p.Shared == "" || p.stale || !p.known {
		return nil
	}
	var all []stray
	for addr, l := range p.space.leases {
		if owner, found := p.owner(addr); !found || !p.ours(owner) {
			all = append(all, stray{p.poolRecord, addr, owner, l.Endpoint})
		}
	}
	slices.SortFunc(all, func(a, b stray) int { return a.addr.Compare(b.addr) })
	return all
}

// Reown asks for the addresses of a network that are leased here and are not this host's any more, since it has another
// identity, or since the cluster was recovered. What others have by now stays theirs, and is an alarm while a container has it.
func (i *IPAM) Reown(ctx context.Context, network string) error {
	if i.config.Cluster == nil {
		return nil
	}
	i.mu.Lock()
	var lost []stray
	for _, p := range i.ordered() {
		if p.Network == network && network != "" {
			i.refresh(p)
			lost = append(lost, p.strays()...)
		}
	}
	i.mu.Unlock()
	for _, s := range lost {
		err := i.reown(ctx, s)
		if errors.Is(err, cluster.ErrNoQuorum) || errors.Is(err, cluster.ErrNotMember) || ctx.Err() != nil {
			return err
		}
		log := i.config.Logger.WithField("address", s.addr)
		if err != nil {
			log.WithError(err).Warn("an address in use here is another host's now")
		} else {
			log.Info("an address in use here is this host's again")
		}
	}
	return nil
}

func (i *IPAM) reown(ctx context.Context, s stray) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	owner, found := i.config.Cluster.View().Owner(s.pool.Shared, s.addr)
	if !found {
		var err error
		if owner, err = cluster.ClaimBlockOf(ctx, i.config.Cluster, s.pool.Shared, s.pool.Subnet, s.addr); err != nil {
			return err
		}
	}
	if owner.Node == i.config.Cluster.ID() {
		return nil
	}
	return i.carve(ctx, s.pool, s.addr)
}

// strayAlarms are sentences about addresses that containers here have and another host gives. i.mu is held and the pool
// refreshed.
func (p *pool) strayAlarms(view cluster.View) []string {
	var all []string
	for _, s := range p.strays() {
		if s.used == "" {
			continue
		}
		whose := "nobody's"
		if s.owner.Prefix.IsValid() {
			whose = "that of host " + view.NodeName(s.owner.Node)
		}
		all = append(all, fmt.Sprintf("%s: address %s of endpoint %s is not this host's any more, it is %s: restart its container, which gets another one",
			p.label(), s.addr, short(s.used), whose))
	}
	return all
}
