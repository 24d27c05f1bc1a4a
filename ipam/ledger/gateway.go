package ledger

import (
	"fmt"
	"net/netip"
	"slices"
)

// gateway answers Docker's request for a gateway. Until the pool belongs to a network it is one of the pool's attributes.
func (l *Ledger) gateway(at Moment, id string, want netip.Addr) Move {
	p, err := l.get(id)
	if err != nil {
		return done(err)
	}
	if want.IsValid() {
		if err := p.inside(want); err != nil {
			return done(fmt.Errorf("--gateway: %w", err))
		}
	}
	has := p.subnet().Gateway
	if p.Network != "" || has.IsValid() && (!want.IsValid() || want == has) {
		switch {
		case !has.IsValid():
			has = p.Gateway
		case want == p.Gateway:
			has = p.Gateway // what Docker was told stays right for Docker
		}
		if !has.IsValid() && !want.IsValid() {
			has = p.firstHost()
		}
		if want.IsValid() && want != has {
			return done(fmt.Errorf("--gateway %s: the network of subnet %s has gateway %s", want, p.Prefix, orNone(has)))
		}
		return p.gives(has)
	}
	rec := p.poolRecord
	rec.Gateway, rec.Chosen = want, false
	if !want.IsValid() {
		rec.Gateway, rec.Chosen = p.gatewayFor(at), true
	}
	if slices.Contains(p.Aux, rec.Gateway) || p.space.leases[rec.Gateway] != nil {
		return done(fmt.Errorf("--gateway: address %s is in use in subnet %s", rec.Gateway, p.Prefix))
	}
	return l.change(p, rec, func(Moment) Move { return p.gives(rec.Gateway) })
}

func orNone(addr netip.Addr) string {
	if !addr.IsValid() {
		return "none"
	}
	return addr.String()
}

// gives is the answer to a request for an address.
func (p *pool) gives(addr netip.Addr) Move {
	return Move{Kind: Done, Answer: Answer{Pool: p.ID, Prefix: p.with(addr)}}
}

// gatewayFor is the gateway that the cluster's network of that name or subnet has, so that all hosts say the same; else
// the first address.
func (p *pool) gatewayFor(at Moment) netip.Addr {
	if at.Joined {
		for _, n := range at.View.Networks() {
			for _, s := range n.Subnets {
				if s.Prefix == p.Prefix && s.Gateway.IsValid() && n.Name == p.Options[OptionNetwork] {
					return s.Gateway
				}
			}
		}
	}
	return p.firstHost()
}

func (p *pool) firstHost() netip.Addr {
	first := p.Prefix.Addr()
	if first.BitLen()-p.Prefix.Bits() <= 1 {
		return first
	}
	for first = first.Next(); slices.Contains(p.Aux, first) || p.space.leases[first] != nil; {
		first = first.Next()
	}
	return first
}
