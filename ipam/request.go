package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
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

// RequestPool makes a provisional pool, or finds the one that the same words made before.
func (i *IPAM) RequestPool(ctx context.Context, r PoolRequest) (id string, prefix netip.Prefix, data map[string]string, err error) {
	if err := i.checkRequest(r); err != nil {
		return "", netip.Prefix{}, nil, err
	}
	var subnet, rng netip.Prefix
	if r.SubPool != "" {
		if r.Pool == "" {
			return "", netip.Prefix{}, nil, fmt.Errorf("--ip-range %s needs a --subnet around it", r.SubPool)
		}
		if rng, err = parseSubnet("--ip-range", r.SubPool); err != nil {
			return "", netip.Prefix{}, nil, err
		}
	}
	if r.Pool != "" {
		subnet, err = parseSubnet("--subnet", r.Pool)
		if err == nil && rng.IsValid() && (rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr())) {
			err = fmt.Errorf("--ip-range %s is not inside --subnet %s", rng, subnet)
		}
	} else {
		subnet, err = i.chooseSubnet(ctx, r)
	}
	if err != nil {
		return "", netip.Prefix{}, nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.provisional(r, subnet, rng)
	if err != nil {
		return "", netip.Prefix{}, nil, err
	}
	return p.ID, p.Prefix, nil, nil
}

func (i *IPAM) checkRequest(r PoolRequest) error {
	if r.Space != localSpace && r.Space != globalSpace {
		return fmt.Errorf("address space %q: allowed are %s and %s", r.Space, localSpace, globalSpace)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Options)) {
		switch {
		case k == serialOption:
		case k != OptionNetwork:
			return fmt.Errorf("--ipam-opt %s=%s is unknown: allowed is %s=NAME", k, r.Options[k], OptionNetwork)
		case !networkNames.MatchString(r.Options[k]):
			return fmt.Errorf("--ipam-opt %s=%q: allowed are 1 to 63 of a-z, A-Z, 0-9, '_', '.' and '-'", OptionNetwork, r.Options[k])
		case i.config.Cluster == nil:
			return fmt.Errorf("--ipam-opt %s=%s names a network of a cluster, and this host is in none: set SECRET first",
				OptionNetwork, r.Options[k])
		}
	}
	return nil
}

// chooseSubnet finds a subnet that nobody uses; for a named network, the one that all hosts have.
func (i *IPAM) chooseSubnet(ctx context.Context, r PoolRequest) (netip.Prefix, error) {
	inUse, err := i.config.InUse()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("choose a subnet: %w", err)
	}
	inUse = append(slices.Clone(inUse), nameServers(i.resolvConf)...)
	used := slices.Clone(inUse)
	i.mu.Lock()
	name := r.Options[OptionNetwork]
	for _, p := range i.ordered() {
		if name == "" || p.Options[OptionNetwork] != name {
			used = append(used, p.Prefix)
			continue
		}
		if p.Network != "" && p.Prefix.Addr().Is6() == r.V6 {
			i.mu.Unlock()
			return netip.Prefix{}, fmt.Errorf("network %s is on this host already, with subnet %s", name, p.Prefix)
		}
	}
	i.mu.Unlock()
	seed := ""
	if i.config.Cluster != nil {
		used = append(used, i.config.Cluster.View().Reserved()...)
		seed = name
		if name == "" {
			seed = anywhere()
		}
	}
	if name == "" {
		return choose(i.config.Pools, r.V6, seed, used)
	}
	return i.chooseNamed(ctx, r, inUse, used)
}

// chooseNamed asks the cluster which subnet the named network has, and proposes one for the case that it has none.
func (i *IPAM) chooseNamed(ctx context.Context, r PoolRequest, inUse, used []netip.Prefix) (netip.Prefix, error) {
	name := r.Options[OptionNetwork]
	candidate, err := choose(i.config.Pools, r.V6, name, used)
	if err != nil {
		// The network may have a subnet already. One that is looked for here and not written is never used.
		known, ok := reservedFor(i.config.Cluster.View(), name, r.V6)
		if !ok {
			return netip.Prefix{}, err
		}
		candidate = known
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	subnet, err := cluster.ReservePool(ctx, i.config.Cluster, name, candidate)
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, u := range inUse {
		if u.Bits() > 0 && subnet.Overlaps(u) {
			return netip.Prefix{}, fmt.Errorf("network %s has subnet %s in the cluster, which overlaps %s of this host (a route, an "+
				"address or a name server)", name, subnet, u)
		}
	}
	return subnet, nil
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

// provisional makes the pool's record, or brings a provisional one up to what is asked now. i.mu is held.
func (i *IPAM) provisional(r PoolRequest, subnet, rng netip.Prefix) (*pool, error) {
	options := map[string]string{}
	if name := r.Options[OptionNetwork]; name != "" {
		options[OptionNetwork] = name
	}
	id := poolID(r.Space, subnet, options)
	p, known := i.pools[id]
	if known && p.Network != "" {
		if rng.IsValid() && rng != p.rangeOf() {
			return nil, fmt.Errorf("subnet %s is that of a network on this host, with --ip-range %s, not %s", subnet, p.rangeOf(), rng)
		}
		return p, nil
	}
	if err := i.collides(r.Space, id, subnet); err != nil {
		return nil, err
	}
	rec := poolRecord{Version: recordVersion, ID: id, Space: r.Space, Prefix: subnet, Range: rng, Options: options}
	if !known {
		p = i.newPool(rec)
	} else if len(p.space.leases) > 0 {
		rec = p.poolRecord // another driver's network has it: Docker asks again when it starts
		rec.Range = rng
	}
	if r.Pool == "" && len(options) > 0 {
		if p.asked++; p.asked > maxAsked {
			return nil, fmt.Errorf("network %s has subnet %s in the cluster, and Docker does not take it: look for a route on this host "+
				"that overlaps it", options[OptionNetwork], subnet)
		}
	}
	if err := i.change(p, rec); err != nil {
		return nil, err
	}
	i.serial++
	p.serial = i.serial
	i.pools[id] = p
	return p, nil
}

// collides says which network of this host has part of a subnet.
func (i *IPAM) collides(space, id string, subnet netip.Prefix) error {
	for _, other := range i.ordered() {
		taken := other.Network != "" || len(other.space.leases) > 0
		if other.Space == space && other.ID != id && taken && other.Prefix.Overlaps(subnet) {
			return fmt.Errorf("subnet %s overlaps %s of a network on this host", subnet, other.Prefix)
		}
	}
	return nil
}

// ReleasePool drops a provisional pool. One that belongs to a network stays until Unbind: Docker releases pools before it
// deletes the network, and also when it takes back a second creation of the same network.
func (i *IPAM) ReleasePool(_ context.Context, id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.get(id)
	if errors.Is(err, errUnknownPool) || p.Network != "" {
		return nil
	}
	return i.drop(p)
}

// drop forgets pools and all that belongs to them. i.mu is held.
func (i *IPAM) drop(pools ...*pool) error {
	var writes []store.Write
	for _, p := range pools {
		writes = append(writes, store.Write{Key: belowPool + p.ID})
		for _, below := range []string{belowLease, belowNext, belowCarve, belowBlock} {
			for key := range i.config.Store.Prefix(below + p.ID + "/") {
				writes = append(writes, store.Write{Key: key})
			}
		}
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	for _, p := range pools {
		delete(i.pools, p.ID)
		i.clearAlarms(p.ID)
	}
	return nil
}
