package driver

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/carricknet/carrick/cluster"
)

// Options of this package. Modes have their own, see CheckOptions.
const (
	OptionMode = "mode"
	OptionMTU  = "com.docker.network.driver.mtu"
)

// Bounds of OptionMTU in bytes: RFC 791 (576 octets every host must accept), RFC 8200 section 5 (1280 for IPv6), and the
// largest IP packet.
const (
	minMTU4 = 576
	minMTU6 = 1280
	maxMTU  = 65535
)

// mode returns the mode that the options name.
func (d *Driver) mode(opts map[string]string) (string, Mode, error) {
	name := opts[OptionMode]
	if name == "" {
		name = d.Default
	}
	mode, ok := d.Modes[name]
	if !ok {
		return "", Mode{}, fmt.Errorf("option mode=%s: allowed are %s: %w", name, list(slices.Sorted(maps.Keys(d.Modes))), ErrInvalid)
	}
	return name, mode, nil
}

// parseNetwork turns a request into a network, as far as that can be done without asking anybody; said is what the user
// wants of the cluster, without what has been chosen for him.
func (d *Driver) parseNetwork(r NetworkRequest) (n Network, said cluster.Network, err error) {
	name, mode, err := d.mode(r.Options)
	if err != nil {
		return Network{}, said, err
	}
	n = Network{
		Version: recordVersion, ID: r.ID, Mode: name, Options: maps.Clone(r.Options),
		Internal: r.Internal, IPv4: r.IPv4, IPv6: r.IPv6, Half: true,
	}
	delete(n.Options, OptionMode)
	if mtu, ok := n.Options[OptionMTU]; ok {
		least := minMTU4
		if n.IPv6 {
			least = minMTU6
		}
		n.MTU, err = strconv.Atoi(mtu)
		if err != nil || n.MTU < least || n.MTU > maxMTU {
			return Network{}, said, fmt.Errorf("option %s=%s: allowed are %d to %d bytes: %w", OptionMTU, mtu, least, maxMTU, ErrInvalid)
		}
	}
	if mode.Shared && d.Facts == nil {
		return Network{}, said, fmt.Errorf("mode %s spans hosts and needs a cluster: disable the plugin, type "+
			"`docker plugin set %s SECRET=… JOIN=…` on every host, and enable it: %w", name, d.Name, ErrInvalid)
	}
	name, given, err := d.parsePools(&n, mode, r.Pools)
	if err != nil {
		return Network{}, said, err
	}
	if mode.Shared {
		n.Name, n.Shared = name, cluster.NetworkID(name, n.Subnets)
		said = cluster.Network{Name: name, Mode: n.Mode, Internal: n.Internal, MTU: n.MTU, Subnets: given}
	}
	return n, said, nil
}

// parsePools finds out whose addresses the network has. It returns the name that they have in the cluster, and the subnets
// as the user gave them.
func (d *Driver) parsePools(n *Network, mode Mode, pools []PoolData) (name string, given []cluster.Subnet, err error) {
	var spaces []string
	var prefixes []netip.Prefix
	for _, p := range pools {
		if p.Prefix.Bits() == 0 {
			continue // --ipam-driver null: no addresses
		}
		if !slices.Contains(spaces, p.Space) {
			spaces = append(spaces, p.Space)
		}
		if i := slices.IndexFunc(prefixes, p.Prefix.Overlaps); i >= 0 {
			return "", nil, fmt.Errorf("subnets %s and %s overlap: %w", prefixes[i], p.Prefix, ErrInvalid)
		}
		prefixes = append(prefixes, p.Prefix)
		n.Subnets = append(n.Subnets, cluster.Subnet{Prefix: p.Prefix, Range: p.Prefix, Gateway: p.Gateway, Aux: p.Aux})
	}
	if len(spaces) == 1 {
		name, given, n.Ours = d.Pools.Describe(spaces[0], prefixes)
	}
	switch {
	case mode.Shared && !n.Ours:
		err = fmt.Errorf("mode %s needs addresses that no two hosts give out: add `--ipam-driver %s` to docker network create: %w",
			n.Mode, d.Name, ErrInvalid)
	case !mode.Shared && name != "":
		err = fmt.Errorf("--ipam-opt network=%s names a network of the cluster, but mode %s stays on its host: %w", name, n.Mode, ErrInvalid)
	}
	for i, g := range given {
		if g.Range.IsValid() {
			n.Subnets[i].Range = g.Range
		}
	}
	return name, given, err
}

// asked says whether b asks for what a is. The cluster has subnets in an order of its own.
func asked(a, b Network) bool {
	return a.Mode == b.Mode && maps.Equal(a.Options, b.Options) && a.Internal == b.Internal && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 &&
		slices.Equal(slices.SortedFunc(slices.Values(a.Prefixes()), netip.Prefix.Compare),
			slices.SortedFunc(slices.Values(b.Prefixes()), netip.Prefix.Compare))
}

// CheckOptions refuses every option of a network that is not among the allowed ones. Modes call it in Open.
func CheckOptions(n *Network, allowed ...string) error {
	for _, name := range slices.Sorted(maps.Keys(n.Options)) {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("option %s=%s is unknown in mode %s: allowed are %s: %w",
				name, n.Options[name], n.Mode, list(append([]string{OptionMode}, allowed...)), ErrInvalid)
		}
	}
	return nil
}
