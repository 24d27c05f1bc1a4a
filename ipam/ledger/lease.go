package ledger

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/store"
)

const (
	// SweepEvery is how often leases that nobody uses are looked for.
	SweepEvery = 15 * time.Second
	// sweepGrace is how long a lease may wait for its endpoint. Docker creates it within seconds.
	sweepGrace = 60 * time.Second
	// poolGrace is how long a provisional pool may wait for its gateway or its network.
	poolGrace = 5 * time.Minute
)

// ReleaseAddress takes an address back. An unknown one is free already. One that an endpoint uses is not taken from it: the
// driver's word about endpoints counts, and another release follows, or the sweep. The same goes for one that was handed out
// again so soon after this process began that the release may be the repetition of one that its predecessor did not answer.
func (l *Ledger) ReleaseAddress(at Moment, pool, address string) Move {
	addr, err := parseAddress(address)
	if err != nil {
		return done(err)
	}
	if !flawed(flawReleaseStaysInPool) {
		pool = l.around(pool, addr)
	}
	p, err := l.get(pool)
	if errors.Is(err, errUnknownPool) {
		return done(nil)
	}
	p.refresh(at)
	had := p.space.leases[addr]
	switch {
	case had != nil && had.Endpoint != "" && !flawed(flawUsedIsReleased):
		l.note("an address was released that an endpoint still uses; it stays the endpoint's", nil,
			map[string]any{"address": addr, "endpoint": short(had.Endpoint)})
	case had != nil && had.doubt && at.Now.Sub(l.began) < releaseGrace && !flawed(flawLateReleaseCounts):
		l.note("an address was released that was handed out anew a moment ago; it waits for its container", nil, map[string]any{"address": addr})
	case had != nil:
		return p.free(addr)
	case p.Network != "": // gateway and auxiliary addresses go with the network
	case addr == p.Gateway || slices.Contains(p.Aux, addr):
		rec := p.poolRecord
		rec.Aux = slices.DeleteFunc(slices.Clone(rec.Aux), func(a netip.Addr) bool { return a == addr })
		if addr == rec.Gateway {
			rec.Gateway, rec.Chosen = netip.Addr{}, false
		}
		return l.change(p, rec, func(Moment) Move { return done(nil) })
	}
	return done(nil)
}

// free ends leases, on disk first.
func (p *pool) free(addrs ...netip.Addr) Move {
	var all []store.Write
	remembered := p.names.clone()
	for _, addr := range addrs {
		all = append(all, deletion(leaseKey(p.ID, addr)))
		all = append(all, remembered.remember(p.space.leases[addr].leaseRecord)...)
		if !p.shown(addr) && !p.rests[addr] {
			all = append(all, putRest(restRecord{recordVersion, p.ID, addr}))
		}
	}
	return write(all, func(at Moment) Move {
		p.names = remembered
		for _, addr := range addrs {
			if !p.shown(addr) {
				p.rests[addr] = true
			}
			p.space.release(addr, at.Now)
		}
		return done(nil)
	})
}

// shown says whether the mark of a part shows, after a start as well, that an address was handed out once. A single address of a
// subnet with larger blocks has none, and may lie in a block of this host by then.
func (p *pool) shown(addr netip.Addr) bool {
	n := p.space.part(addr)
	lone := n >= 0 && p.space.parts[n].prefix.IsSingleIP() && p.Shared != "" && p.Subnet.BlockBits() < addr.BitLen()
	return p.space.given(addr) && !lone
}

// Use says that an endpoint has addresses of a network. It fails, and changes nothing, if one was not handed out or is
// another endpoint's. After the store was lost, what is in use is taken over.
func (l *Ledger) Use(at Moment, network, endpoint string, addrs []netip.Addr) Move {
	var all []store.Write
	var leases []*lease
	adopt := map[*lease]*pool{}
	for _, addr := range addrs {
		p := l.bound(network, addr)
		if p == nil {
			return done(fmt.Errorf("address %s is in no pool of network %s", addr, short(network)))
		}
		had := p.space.leases[addr]
		switch {
		case had == nil && l.damaged:
			p.refresh(at)
			if err := errors.Join(p.inside(addr), p.mayAdopt(addr)); err != nil {
				return done(err)
			}
			had = &lease{leaseRecord: leaseRecord{Version: recordVersion, Pool: p.ID, Addr: addr, Explicit: true}}
			adopt[had] = p
		case had == nil:
			return done(fmt.Errorf("address %s was not handed out by this host", addr))
		case had.Endpoint != "" && had.Endpoint != endpoint:
			return done(fmt.Errorf("address %s is in use by endpoint %s", addr, short(had.Endpoint)))
		case had.Endpoint == "":
			p.refresh(at)
			if err := p.mayAdopt(addr); err != nil {
				return done(err)
			}
		}
		rec := had.leaseRecord
		rec.Endpoint, rec.Gone = endpoint, false
		all, leases = append(all, putLease(rec)), append(leases, had)
	}
	if len(all) == 0 {
		return done(nil)
	}
	return write(all, func(Moment) Move {
		for _, had := range leases {
			had.Endpoint, had.Gone, had.suspect, had.doubt = endpoint, false, false, false
			if p := adopt[had]; p != nil {
				p.space.take(had.Addr, had)
			}
		}
		return done(nil)
	})
}

// Unuse says that an endpoint is gone. Its addresses are released by Docker, or by the sweep.
func (l *Ledger) Unuse(_ Moment, endpoint string) Move {
	var all []store.Write
	var leases []*lease
	for _, p := range l.ordered() {
		for _, addr := range slices.SortedFunc(maps.Keys(p.space.leases), netip.Addr.Compare) {
			had := p.space.leases[addr]
			if endpoint == "" || had.Endpoint != endpoint || flawed(flawEndpointsStay) {
				continue
			}
			rec := had.leaseRecord
			rec.Endpoint, rec.Gone = "", true
			all, leases = append(all, putLease(rec)), append(leases, had)
		}
	}
	if len(all) == 0 {
		return done(nil)
	}
	return write(all, func(at Moment) Move {
		for _, had := range leases {
			had.Endpoint, had.idle, had.Gone, had.suspect = "", at.Now, true, false
		}
		return done(nil)
	})
}

// Sweep releases leases of networks whose endpoint never came, or went without a release: when they were idle for too long
// at two looks. In pools of other drivers nobody says what is in use, so there nothing is swept, but for pools that nothing
// at all became of.
//
// It looks for blocks that are not needed, too, which Keep gives back then.
func (l *Ledger) Sweep(at Moment) Move {
	var steps []func(Moment) Move
	for _, p := range l.ordered() {
		p.look(at, l.asking)
		if !flawed(flawNeverSwept) {
			steps = append(steps, func(at Moment) Move { return l.sweep(at, p) })
		}
	}
	return inOrder(at, steps)
}

func (l *Ledger) sweep(at Moment, p *pool) Move {
	empty := p.Network == "" && p.Space == LocalSpace && !p.Gateway.IsValid() && len(p.Aux) == 0 && len(p.space.leases) == 0
	if empty && l.pools[p.ID] == p && at.Now.Sub(p.made) >= poolGrace {
		return l.drop(p)
	}
	p.refresh(at)
	if at.Now.Sub(l.began) >= releaseGrace {
		clear(p.space.before)
	}
	var idle []netip.Addr
	for _, addr := range slices.SortedFunc(maps.Keys(p.space.leases), netip.Addr.Compare) {
		switch had := p.space.leases[addr]; {
		case flawed(flawSweptAtOnce) && had.Endpoint == "", flawed(flawUsedIsSwept) && at.Now.Sub(had.idle) >= sweepGrace:
			idle = append(idle, addr)
		case p.Network == "" || had.Endpoint != "" || at.Now.Sub(had.idle) < sweepGrace:
			had.suspect = false
		case !had.suspect:
			had.suspect = true
		default:
			idle = append(idle, addr)
		}
	}
	if len(idle) == 0 {
		return done(nil)
	}
	return then(at, p.free(idle...), func(_ Moment, m Move) Move {
		if m.Err != nil {
			return done(fmt.Errorf("%s: %w", p.label(), m.Err))
		}
		l.note("released addresses whose containers never came, or are gone without a word", nil, map[string]any{"subnet": p.Prefix, "addresses": idle})
		return m
	})
}
