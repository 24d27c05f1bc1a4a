package ledger

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"github.com/carricknet/carrick/cluster"
)

// OptionNetwork is the `--ipam-opt` that names a network of the cluster, so that hosts need not say the subnet.
const OptionNetwork = "network"

// networkNames are those that file names, log lines and fact keys take as they are.
var networkNames = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,63}$`)

// maxAsked is how often a named network's subnet is told to an engine that does not take it. The engine asks on and on
// while a route of the host is in the way, and holds its boot or a client's call meanwhile.
const maxAsked = 8

// PoolRequest is RequestPool.
type PoolRequest struct {
	Space   string
	Pool    string            // --subnet; "": one of our choice
	SubPool string            // --ip-range
	Options map[string]string // --ipam-opt
	V6      bool
}

// RequestPool makes a provisional pool, or finds the one that the same words made before. inUse is what the host has already:
// routes, addresses, name servers; it counts where a subnet is to be chosen.
func (l *Ledger) RequestPool(at Moment, r PoolRequest, inUse []netip.Prefix) Move {
	if err := checkRequest(at, r); err != nil {
		return done(err)
	}
	var subnet, rng netip.Prefix
	var err error
	if r.SubPool != "" {
		if r.Pool == "" {
			return done(fmt.Errorf("--ip-range %s needs a --subnet around it", r.SubPool))
		}
		if rng, err = parseSubnet("--ip-range", r.SubPool); err != nil {
			return done(err)
		}
	}
	if r.Pool == "" {
		return l.chosen(at, r, inUse)
	}
	subnet, err = parseSubnet("--subnet", r.Pool)
	if err == nil && rng.IsValid() && (rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr())) {
		err = fmt.Errorf("--ip-range %s is not inside --subnet %s", rng, subnet)
	}
	if err != nil {
		return done(err)
	}
	return l.provisional(at, r, subnet, rng)
}

func checkRequest(at Moment, r PoolRequest) error {
	if r.Space != LocalSpace && r.Space != GlobalSpace {
		return fmt.Errorf("address space %q: allowed are %s and %s", r.Space, LocalSpace, GlobalSpace)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Options)) {
		switch {
		case k == serialOption:
		case k != OptionNetwork:
			return fmt.Errorf("--ipam-opt %s=%s is unknown: allowed is %s=NAME", k, r.Options[k], OptionNetwork)
		case !networkNames.MatchString(r.Options[k]):
			return fmt.Errorf("--ipam-opt %s=%q: allowed are 1 to 63 of a-z, A-Z, 0-9, '_', '.' and '-'", OptionNetwork, r.Options[k])
		case !at.Joined:
			return fmt.Errorf("--ipam-opt %s=%s names a network of a cluster, and this host is in none: set SECRET first",
				OptionNetwork, r.Options[k])
		}
	}
	return nil
}

// chosen finds a subnet that nobody uses; for a named network, the one that all hosts have.
func (l *Ledger) chosen(at Moment, r PoolRequest, inUse []netip.Prefix) Move {
	used := slices.Clone(inUse)
	name := r.Options[OptionNetwork]
	for _, p := range l.ordered() {
		if name == "" || p.Options[OptionNetwork] != name {
			used = append(used, p.Prefix)
			continue
		}
		if p.Network != "" && p.Prefix.Addr().Is6() == r.V6 {
			return done(fmt.Errorf("network %s is on this host already, with subnet %s", name, p.Prefix))
		}
	}
	seed := ""
	if at.Joined {
		used = append(used, at.View.Reserved()...)
		seed = name
		if name == "" {
			// Two hosts that create networks without a name at the same time shall not choose the same, which would make them one.
			seed = fmt.Sprint(at.Seed)
		}
	}
	candidate, err := choose(l.ranges, r.V6, seed, used, at.elsewhere())
	switch {
	case err != nil:
		// The network may have a subnet already. One that is looked for here and not written is never used.
		if known, ok := reservedFor(at.View, name, r.V6); ok && name != "" {
			return l.reserve(at, r, known, inUse)
		}
		return done(err)
	case name != "":
		return l.reserve(at, r, candidate, inUse)
	}
	return l.provisional(at, r, candidate, netip.Prefix{})
}

// reserve asks the cluster which subnet the named network has, and proposes the candidate for the case that it has none.
func (l *Ledger) reserve(at Moment, r PoolRequest, candidate netip.Prefix, inUse []netip.Prefix) Move {
	name := r.Options[OptionNetwork]
	var subnet netip.Prefix
	return agree(at, func(at Moment) (txn cluster.Txn, err error) {
		subnet, txn, err = cluster.PlanReserve(at.View, name, candidate)
		return txn, err
	}, func(at Moment, err error) Move {
		if err != nil {
			return done(fmt.Errorf("reserve a subnet for network %s: %w", name, err))
		}
		for _, u := range inUse {
			if u.Bits() > 0 && subnet.Overlaps(u) {
				return done(fmt.Errorf("network %s has subnet %s in the cluster, which overlaps %s of this host (a route, an "+
					"address or a name server)", name, subnet, u))
			}
		}
		return l.provisional(at, r, subnet, netip.Prefix{})
	})
}

func reservedFor(v cluster.View, name string, v6 bool) (netip.Prefix, bool) {
	if n, ok := v.Network(cluster.NetworkID(name, nil)); ok {
		for _, s := range n.Subnets {
			if s.Prefix.Addr().Is6() == v6 {
				return s.Prefix, true
			}
		}
	}
	key := "reserve/" + name + "/4"
	if v6 {
		key = "reserve/" + name + "/6"
	}
	f, ok := v.Get(key)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(string(f.Value))
	return p, err == nil
}

// provisional makes the pool's record, or brings a provisional one up to what is asked now.
func (l *Ledger) provisional(at Moment, r PoolRequest, subnet, rng netip.Prefix) Move {
	options := map[string]string{}
	if name := r.Options[OptionNetwork]; name != "" {
		options[OptionNetwork] = name
	}
	id := poolID(r.Space, subnet, options)
	p, known := l.pools[id]
	if known && p.Network != "" {
		if rng.IsValid() && rng != p.rangeOf() {
			return done(fmt.Errorf("subnet %s is that of a network on this host, with --ip-range %s, not %s", subnet, p.rangeOf(), rng))
		}
		return p.told()
	}
	if err := l.collides(r.Space, id, subnet); err != nil {
		return done(err)
	}
	rec := poolRecord{Version: recordVersion, ID: id, Space: r.Space, Prefix: subnet, Range: rng, Options: options}
	if !known {
		p = newPool(rec)
	} else if len(p.space.leases) > 0 {
		rec = p.poolRecord // another driver's network has it: Docker asks again when it starts
		rec.Range = rng
	}
	if r.Pool == "" && len(options) > 0 {
		if p.asked++; p.asked > maxAsked {
			return done(fmt.Errorf("network %s has subnet %s in the cluster, and Docker does not take it: look for a route on this host "+
				"that overlaps it", options[OptionNetwork], subnet))
		}
	}
	return l.change(p, rec, func(at Moment) Move {
		l.serial++
		p.serial, p.made = l.serial, at.Now
		l.set(id, p)
		return p.told()
	})
}

func (p *pool) told() Move { return Move{Kind: Done, Answer: Answer{Pool: p.ID, Prefix: p.Prefix}} }

// collides says which network of this host has part of a subnet.
func (l *Ledger) collides(space, id string, subnet netip.Prefix) error {
	for _, other := range l.ordered() {
		taken := other.Network != "" || len(other.space.leases) > 0
		if other.Space == space && other.ID != id && taken && other.Prefix.Overlaps(subnet) {
			return fmt.Errorf("subnet %s overlaps %s of a network on this host", subnet, other.Prefix)
		}
	}
	return nil
}

// ReleasePool drops a provisional pool. One that belongs to a network stays until Unbind: Docker releases pools before it
// deletes the network, and also when it takes back a second creation of the same network.
func (l *Ledger) ReleasePool(_ Moment, id string) Move {
	p, err := l.get(id)
	if errors.Is(err, errUnknownPool) || p.Network != "" {
		return done(nil)
	}
	return l.drop(p)
}
