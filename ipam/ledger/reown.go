package ledger

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
)

// stray is an address that is leased here, and not this host's to give.
type stray struct {
	addr  netip.Addr
	owner cluster.Block // zero: nobody's
	used  string        // the endpoint that has it
}

// strays of a pool, sorted. The pool is refreshed.
func (p *pool) strays() []stray {
	if p.Shared == "" || p.stale || !p.known {
		return nil
	}
	var all []stray
	for addr, l := range p.space.leases {
		if owner, found := p.owner(addr); !found || !p.ours(owner) {
			all = append(all, stray{addr, owner, l.Endpoint})
		}
	}
	slices.SortFunc(all, func(a, b stray) int { return a.addr.Compare(b.addr) })
	return all
}

// Strays are the addresses of a network that are leased here and are not this host's any more, since it has another identity,
// or since the cluster was recovered.
func (l *Ledger) Strays(at Moment, network string) []netip.Addr {
	var all []netip.Addr
	for _, p := range l.ordered() {
		if p.Network == network && network != "" {
			p.refresh(at)
			for _, s := range p.strays() {
				all = append(all, s.addr)
			}
		}
	}
	return all
}

// Reown asks for a stray. What others have by now stays theirs, which is no error: it is an alarm while a container has it.
func (l *Ledger) Reown(at Moment, network string, addr netip.Addr) Move {
	p := l.bound(network, addr)
	if !at.Joined || p == nil || p.Shared == "" {
		return done(nil)
	}
	return l.reown(at, p, addr, func(_ Moment, err error) Move {
		if isNoQuorum(err) {
			return done(err)
		}
		fields := map[string]any{"address": addr}
		if err != nil {
			l.note("an address in use here is another host's now", err, fields)
		} else {
			l.note("an address in use here is this host's again", nil, fields)
		}
		return done(nil)
	})
}

func (l *Ledger) reown(at Moment, p *pool, addr netip.Addr, after func(Moment, error) Move) Move {
	shared := p.Shared
	switch owner, found := at.View.Owner(shared, addr); {
	case !found:
		return p.claimOf(at, addr, func(at Moment, err error) Move {
			if owner, found := at.View.Owner(shared, addr); err == nil && found && owner.Node != at.Self {
				return l.carve(at, p, addr, after) // another was faster
			}
			return after(at, err)
		})
	case owner.Node == at.Self:
		return after(at, nil)
	}
	return l.carve(at, p, addr, after)
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
