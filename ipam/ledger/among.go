package ledger

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// full is the answer of a pool that has no address for this host: the next subnet of its network may have one.
type full struct{ error }

func (e full) Unwrap() error { return e.error }

// among are the pools that an address may come from which was asked of p: p, and then the other subnets of its network, the lowest
// first. The engine has several pools of one family for such a network and asks the first one only: it goes on to the next on
// an error of libnetwork's (ErrNoAvailableIPs) that no plugin can answer with.
func (l *Ledger) among(p *pool) []*pool {
	all := []*pool{p}
	if p.Network == "" || flawed(flawFirstSubnetOnly) {
		return all
	}
	for _, other := range l.ordered() {
		if other != p && other.Network == p.Network && other.Prefix.Addr().Is4() == p.Prefix.Addr().Is4() {
			all = append(all, other)
		}
	}
	slices.SortFunc(all[1:], func(a, b *pool) int { return comparePrefixes(a.Prefix, b.Prefix) })
	return all
}

// around is the identifier of the pool that an address lies in, where id is that of a pool of the same network: the engine takes
// an address back, and replays it, with the pool that it had asked.
func (l *Ledger) around(id string, addr netip.Addr) string {
	p := l.pools[id]
	if p == nil || !addr.IsValid() || p.Prefix.Contains(addr) {
		return id
	}
	if other := l.bound(p.Network, addr); other != nil {
		return other.ID
	}
	return id
}

// repeated finds the lease that the same request was given before, in whichever subnet, and its pool.
func (l *Ledger) repeated(at Moment, p *pool, a ask) (*pool, *lease) {
	pools := []*pool{p}
	if !a.addr.IsValid() && !flawed(flawRepetitionStaysInPool) {
		pools = l.among(p)
	}
	for _, p := range pools {
		p.refresh(at)
		if same := p.repeated(a); same != nil {
			return p, same
		}
	}
	return nil, nil
}

// anywhere hands out an address of the first pool that has one, and says of each why not if none has.
func (l *Ledger) anywhere(at Moment, id string, a ask, disputed error) Move {
	p, err := l.get(id)
	if err != nil {
		return done(err)
	}
	var pools []string
	for _, p := range l.among(p) {
		pools = append(pools, p.ID)
	}
	return l.inTurn(at, pools, a, disputed, nil)
}

func (l *Ledger) inTurn(at Moment, pools []string, a ask, disputed, before error) Move {
	return then(at, l.endpoint(at, pools[0], a, disputed, maxTries), func(at Moment, m Move) Move {
		switch {
		case m.Err == nil:
			return m
		case before != nil:
			m.Err = fmt.Errorf("%w; %w", before, m.Err)
		}
		if no := (full{}); len(pools) > 1 && errors.As(m.Err, &no) {
			return l.inTurn(at, pools[1:], a, disputed, m.Err)
		}
		return m
	})
}
