package ledger

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
)

// stray is an address that is leased here, and not this host's to give.
type stray struct {
	pool  *pool
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
			all = append(all, stray{p, addr, owner, l.Endpoint})
		}
	}
	slices.SortFunc(all, func(a, b stray) int { return a.addr.Compare(b.addr) })
	return all
}

// Reown asks for the addresses of a network that are leased here and are not this host's any more, since it has another
// identity, or since the cluster was recovered. What others have by now stays theirs, and is an alarm while a container has it.
func (l *Ledger) Reown(at Moment, network string) Move {
	if !at.Joined {
		return done(nil)
	}
	var lost []stray
	for _, p := range l.ordered() {
		if p.Network == network && network != "" {
			p.refresh(at)
			lost = append(lost, p.strays()...)
		}
	}
	return l.reownAll(at, lost)
}

func (l *Ledger) reownAll(at Moment, lost []stray) Move {
	if len(lost) == 0 {
		return done(nil)
	}
	s := lost[0]
	return l.reown(at, s, func(at Moment, err error) Move {
		if isNoQuorum(err) {
			return done(err)
		}
		fields := map[string]any{"address": s.addr}
		if err != nil {
			l.note("an address in use here is another host's now", err, fields)
		} else {
			l.note("an address in use here is this host's again", nil, fields)
		}
		return l.reownAll(at, lost[1:])
	})
}

func (l *Ledger) reown(at Moment, s stray, after func(Moment, error) Move) Move {
	owner, found := at.View.Owner(s.pool.Shared, s.addr)
	switch {
	case !found:
		return s.pool.claimOf(at, s.addr, func(at Moment, err error) Move {
			owner, found := at.View.Owner(s.pool.Shared, s.addr)
			if err != nil || !found || owner.Node == at.Self {
				return after(at, err)
			}
			return l.carve(at, s.pool, s.addr, after)
		})
	case owner.Node == at.Self:
		return after(at, nil)
	}
	return l.carve(at, s.pool, s.addr, after)
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
