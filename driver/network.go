package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
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

// leaveTimeout bounds how long `docker network rm` waits for the cluster to hear of it; after that Run goes on trying.
// The engine waits up to 30 s for an answer.
const leaveTimeout = 5 * time.Second

// SkipGateway is GwAllocCheck: whether Docker shall reserve no gateway address, for IPv4 and for IPv6.
func (d *Driver) SkipGateway(opts map[string]string) (v4, v6 bool, err error) {
	_, mode, err := d.mode(opts)
	return mode.NoGateway, mode.NoGateway, err
}

// CreateNetwork makes a network; for a shared mode it makes or joins the cluster's network of that name or those subnets.
// Made again with the same words it succeeds. On failure nothing is left.
func (d *Driver) CreateNetwork(ctx context.Context, r NetworkRequest) error {
	want, said, err := d.parseNetwork(r)
	if err != nil {
		return err
	}
	nw, known, err := d.enter(want)
	if err != nil {
		return err
	}
	defer nw.mu.Unlock()
	if nw.gone {
		return fmt.Errorf("network %s is being removed: %w", short(r.ID), ErrExists)
	}
	if known {
		if !asked(nw.Network, want) {
			return fmt.Errorf("network %s is here with other options or subnets: %w", short(r.ID), ErrExists)
		}
		return d.set(ctx, nw)
	}
	if err := d.make(ctx, nw, said); err != nil {
		undo := d.unmake(context.WithoutCancel(ctx), nw)
		d.drop(nw)
		return errors.Join(err, undo)
	}
	return nil
}

// enter returns the network of that identifier, locked, and whether it was there before. A new one has its claim.
func (d *Driver) enter(want Network) (nw *network, known bool, err error) {
	d.mu.Lock()
	if nw, known = d.networks[want.ID]; known {
		d.mu.Unlock()
		nw.mu.Lock()
		return nw, true, nil
	}
	defer d.mu.Unlock()
	nw = &network{Network: want, endpoints: map[string]Endpoint{}}
	if err := d.claim(nw); err != nil {
		return nil, false, err
	}
	nw.mu.Lock() // nobody else has it yet
	d.networks[want.ID] = nw
	return nw, false, nil
}

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
		Internal: r.Internal, IPv4: r.IPv4, IPv6: r.IPv6, Making: true,
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

// asked says whether b asks for what a is.
func asked(a, b Network) bool {
	return a.Mode == b.Mode && maps.Equal(a.Options, b.Options) && a.Internal == b.Internal && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 &&
		slices.Equal(prefixesOf(a), prefixesOf(b))
}

// claim takes the network's subnets and its place in the cluster, or says who has them on this host. d.mu is held.
func (d *Driver) claim(nw *network) error {
	mine := claim{shared: nw.Shared, subnets: prefixesOf(nw.Network)}
	for id, other := range d.claims {
		if mine.shared != "" && mine.shared == other.shared {
			return fmt.Errorf("this network of the cluster is on this host already, as %s: %w", short(id), ErrExists)
		}
		for _, theirs := range other.subnets {
			for _, s := range mine.subnets {
				if s.Overlaps(theirs) {
					return fmt.Errorf("subnet %s overlaps %s of network %s on this host: %w", s, theirs, short(id), ErrExists)
				}
			}
		}
	}
	d.claims[nw.ID] = mine
	return nil
}

// make does everything that a new network needs, intent first.
func (d *Driver) make(ctx context.Context, nw *network, said cluster.Network) error {
	intent, err := put(networkKey(nw.ID), nw.Network)
	if err != nil {
		return err
	}
	if err := d.Store.Apply(intent); err != nil {
		return err
	}
	mode := d.Modes[nw.Mode]
	if nw.plan, err = mode.Open(ctx, &nw.Network); err != nil {
		return err
	}
	if mode.Shared {
		if err := d.join(ctx, nw, said); err != nil {
			return err
		}
		if nw.plan, err = mode.Open(ctx, &nw.Network); err != nil {
			return err
		}
	}
	if nw.Ours {
		if err := d.Pools.Bind(ctx, nw.ID, nw.Shared, nw.Subnets); err != nil {
			return err
		}
	}
	if err := d.set(ctx, nw); err != nil {
		return err
	}
	nw.Making = false
	done, err := put(networkKey(nw.ID), nw.Network)
	if err != nil {
		return err
	}
	return d.Store.Apply(done)
}

// join makes the network the cluster's, or takes what the cluster has. What was chosen for the user, the mode's MTU and our
// gateway, counts only for a new network.
func (d *Driver) join(ctx context.Context, nw *network, said cluster.Network) error {
	d.leaving.Lock()
	defer d.leaving.Unlock()
	if err := d.Store.Apply(store.Write{Key: leavingKey(nw.Shared)}); err != nil {
		return err
	}
	defaults := cluster.Defaults{MTU: nw.MTU, Gateways: map[netip.Prefix]netip.Addr{}}
	for _, s := range nw.Subnets {
		defaults.Gateways[s.Prefix] = s.Gateway
	}
	have, err := cluster.JoinNetwork(ctx, d.Facts, said, defaults)
	if err != nil {
		return err
	}
	nw.VNI, nw.MTU, nw.Subnets = have.VNI, have.MTU, have.Subnets
	return nil
}

// DeleteNetwork removes a network and whatever endpoints the engine forgot to remove. An unknown one is gone already.
func (d *Driver) DeleteNetwork(ctx context.Context, id string) error {
	nw, err := d.get(id)
	if errors.Is(err, ErrNotFound) {
		return d.removeKept(ctx, networkOwner(id))
	}
	if err != nil {
		return err
	}
	defer nw.mu.Unlock()
	for _, e := range nw.endpoints {
		if err := d.removeEndpoint(ctx, nw, e); err != nil {
			return err
		}
	}
	if err := d.unmake(ctx, nw); err != nil {
		return err
	}
	d.drop(nw)
	return nil
}

// unmake removes everything a network has, finished or half-made. The cluster may hear of it later.
func (d *Driver) unmake(ctx context.Context, nw *network) error {
	if nw.Shared != "" && d.Records != nil {
		d.Records.Attend(nw.Shared, false)
	}
	if err := d.Kernel.Set(ctx, networkOwner(nw.ID), kernel.State{}); err != nil {
		return err
	}
	if nw.Ours {
		if err := d.Pools.Unbind(ctx, nw.ID); err != nil {
			return err
		}
	}
	writes := []store.Write{{Key: networkKey(nw.ID)}}
	if nw.Shared != "" {
		writes = append(writes, store.Write{Key: leavingKey(nw.Shared), Value: []byte("{}")})
	}
	if err := d.Store.Apply(writes...); err != nil {
		return err
	}
	if nw.Shared != "" {
		ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
		defer cancel()
		d.leave(ctx, nw.Shared)
	}
	return nil
}

// leave tells the cluster that this host does not have a network any more. If that fails it stays in the store and Run
// tries again.
func (d *Driver) leave(ctx context.Context, shared string) {
	d.leaving.Lock()
	defer d.leaving.Unlock()
	if d.Facts == nil || !d.has(leavingKey(shared)) {
		return
	}
	err := cluster.LeaveNetwork(ctx, d.Facts, shared, d.Facts.ID())
	if err == nil {
		err = d.Store.Apply(store.Write{Key: leavingKey(shared)})
	}
	if err != nil {
		d.Logger.WithError(err).WithField("shared", shared).Warn("the cluster has not heard yet that a network left this host; trying again")
	}
}

// drop forgets a network. nw.mu is held.
func (d *Driver) drop(nw *network) {
	nw.gone = true
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.networks, nw.ID)
	delete(d.claims, nw.ID)
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
