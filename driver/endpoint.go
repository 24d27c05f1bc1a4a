package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// syncLimit bounds how long the first endpoint of a network on this host waits for the other hosts to say what they
// have. After it the container starts all the same, and what is missing is reached by flooding until it arrives.
const syncLimit = 3 * time.Second

// CreateEndpoint gives a container its place on a network. Everything that can fail happens here rather than in Join, whose
// failure engine 29 does not survive. It returns the MAC it chose; zero if the engine gave one. On failure nothing is left.
func (d *Driver) CreateEndpoint(ctx context.Context, r EndpointRequest) (kernel.MAC, error) {
	nw, err := d.get(ctx, r.Network)
	if err != nil {
		return kernel.MAC{}, err
	}
	defer nw.turn.give()
	if err := nw.usable(); err != nil {
		return kernel.MAC{}, err
	}
	if known, ok := nw.endpoints[r.ID]; ok && !known.Half {
		return d.repeatEndpoint(ctx, nw, known, r)
	} else if err := d.removeHalf(ctx, nw); err != nil {
		return kernel.MAC{}, err
	}
	e, err := parseEndpoint(nw, r)
	if err != nil {
		return kernel.MAC{}, err
	}
	if err := d.makeEndpoint(ctx, nw, e); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer cancel()
		return kernel.MAC{}, errors.Join(err, d.removeEndpoint(ctx, nw, e))
	}
	return answer(r, e), nil
}

// repeatEndpoint answers a CreateEndpoint that came before.
func (d *Driver) repeatEndpoint(ctx context.Context, nw *network, known Endpoint, r EndpointRequest) (kernel.MAC, error) {
	if !slices.Equal(known.Addrs, r.Addrs) || (r.MAC != kernel.MAC{} && r.MAC != known.MAC) {
		return kernel.MAC{}, fmt.Errorf("endpoint %s is here with other addresses: %w", short(r.ID), ErrExists)
	}
	state, _ := nw.plan.Endpoint(known)
	return answer(r, known), d.Kernel.Set(ctx, endpointOwner(known.ID), state)
}

// answer is the MAC that the engine is to be told: one that it gave itself must not be said again.
func answer(r EndpointRequest, e Endpoint) kernel.MAC {
	if r.MAC != (kernel.MAC{}) {
		return kernel.MAC{}
	}
	return e.MAC
}

// parseEndpoint checks a request against what the network is and has.
func parseEndpoint(nw *network, r EndpointRequest) (Endpoint, error) {
	for _, name := range slices.Sorted(maps.Keys(r.Options)) {
		return Endpoint{}, fmt.Errorf("driver option %s=%s is unknown: mode %s has none for endpoints: %w",
			name, r.Options[name], nw.Mode, ErrInvalid)
	}
	e := Endpoint{Version: recordVersion, ID: r.ID, Network: nw.ID, MAC: r.MAC, Addrs: r.Addrs}
	if e.MAC[0]&1 != 0 {
		return Endpoint{}, fmt.Errorf("MAC address %s is a multicast address: the lowest bit of its first byte must be 0: %w", e.MAC, ErrInvalid)
	}
	if e.MAC == (kernel.MAC{}) {
		e.MAC = randomMAC()
	}
	for _, a := range e.Addrs {
		if !slices.ContainsFunc(nw.Subnets, func(s cluster.Subnet) bool { return s.Prefix.Contains(a.Addr()) }) && nw.Ours {
			return Endpoint{}, fmt.Errorf("address %s is in none of the network's subnets %v: %w", a.Addr(), nw.Network.Prefixes(), ErrInvalid)
		}
	}
	for _, other := range nw.endpoints {
		if other.MAC == e.MAC {
			return Endpoint{}, fmt.Errorf("MAC address %s is that of endpoint %s: %w", e.MAC, short(other.ID), ErrExists)
		}
		for _, a := range e.Addrs {
			if slices.ContainsFunc(other.Addrs, func(o netip.Prefix) bool { return o.Addr() == a.Addr() }) {
				return Endpoint{}, fmt.Errorf("address %s is that of endpoint %s: %w", a.Addr(), short(other.ID), ErrExists)
			}
		}
	}
	return e, nil
}

// makeEndpoint does everything that a new endpoint needs, intent first; the other hosts hear of it when its device exists. An
// engine whose plugin dies meanwhile never removes the endpoint, and the next one has its address.
func (d *Driver) makeEndpoint(ctx context.Context, nw *network, e Endpoint) error {
	first := len(nw.endpoints) == 0
	if first {
		d.attend(nw, true)
	}
	half := e
	half.Half = true
	if err := d.keepEndpoint(nw, half); err != nil {
		return err
	}
	if nw.Ours {
		if err := d.Leases.Use(ctx, nw.ID, e.ID, bare(e.Addrs)); err != nil {
			return err
		}
	}
	if first {
		d.sync(ctx, nw.Shared, syncLimit)
		if err := d.set(ctx, nw); err != nil {
			return err
		}
	}
	state, _ := nw.plan.Endpoint(e)
	if err := d.Kernel.Set(ctx, endpointOwner(e.ID), state); err != nil {
		return err
	}
	if err := d.keepEndpoint(nw, e); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the engine has been told that it failed
		return err
	}
	d.publish(nw, e)
	return nil
}

// keepEndpoint makes it a network's, and writes its record.
func (d *Driver) keepEndpoint(nw *network, e Endpoint) error {
	record, err := put(endpointKey(nw.ID, e.ID), e)
	if err != nil {
		return err
	}
	d.change(func() { nw.endpoints[e.ID] = e })
	return d.Store.Apply(record)
}

// removeHalf removes the endpoints of a network whose making has not come to its end. The network's turn is held.
func (d *Driver) removeHalf(ctx context.Context, nw *network) error {
	var half []Endpoint
	for _, e := range nw.endpoints {
		if e.Half {
			half = append(half, e)
		}
	}
	if err := d.removeEndpoints(ctx, nw, half); err != nil {
		return fmt.Errorf("network %s: remove endpoints that were not finished: %w", short(nw.ID), err)
	}
	return nil
}

// sync waits for what the other hosts have on a network, so that the first packet of the first container finds its way.
func (d *Driver) sync(ctx context.Context, shared string, limit time.Duration) {
	if shared == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := d.Records.Sync(ctx, shared); err != nil {
		d.Logger.WithError(err).WithField("shared", shared).Warn("not every host has said what it has on the network; going on without")
	}
}

// DeleteEndpoint removes an endpoint. An unknown one is gone already.
func (d *Driver) DeleteEndpoint(ctx context.Context, network, id string) error {
	defer d.doom(network, id)()
	nw, err := d.get(ctx, network)
	if errors.Is(err, ErrNotFound) {
		return d.removeLostEndpoint(ctx, network, id)
	}
	if err != nil {
		return err
	}
	defer nw.turn.give()
	if _, ok := nw.endpoints[id]; !ok { // or another call has removed it along with its own
		return d.removeLostEndpoint(ctx, network, id)
	}
	return d.removeEndpoints(ctx, nw, d.doomed(nw))
}

// doom notes that an endpoint is to go, until the call about it ends: whoever of many such calls gets the turn removes the
// endpoints of all, since the kernel takes as long for one as for many.
func (d *Driver) doom(network, id string) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	nw := d.networks[network]
	if nw == nil {
		return func() {}
	}
	nw.doomed[id] = true
	return func() { d.change(func() { delete(nw.doomed, id) }) }
}

// doomed are the endpoints of a network that are to go.
func (d *Driver) doomed(nw *network) (all []Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range nw.doomed {
		if e, ok := nw.endpoints[id]; ok {
			all = append(all, e)
		}
	}
	return all
}

// removeEndpoint removes everything an endpoint has, finished or half-made.
func (d *Driver) removeEndpoint(ctx context.Context, nw *network, e Endpoint) error {
	return d.removeEndpoints(ctx, nw, []Endpoint{e})
}

// removeEndpoints does so for several: the others stop sending first, the records go last. The last endpoint takes the host off
// the network.
func (d *Driver) removeEndpoints(ctx context.Context, nw *network, all []Endpoint) error {
	if len(all) == 0 {
		return nil
	}
	var owners []string
	var records []store.Write
	for _, e := range all {
		if !nw.Half { // then the host has been taken off already
			d.withdraw(nw, e)
		}
		owners = append(owners, endpointOwner(e.ID))
		records = append(records, store.Write{Key: endpointKey(nw.ID, e.ID)})
	}
	if err := d.Kernel.Remove(ctx, owners...); err != nil {
		return err
	}
	if nw.Ours {
		for _, e := range all {
			if err := d.Leases.Unuse(ctx, e.ID); err != nil {
				return err
			}
		}
	}
	if err := d.Store.Apply(records...); err != nil {
		return err
	}
	d.change(func() {
		for _, e := range all {
			delete(nw.endpoints, e.ID)
		}
		nw.from = basis{} // what another host says of their addresses may be believed now
	})
	for _, e := range all {
		delete(nw.suspects, e.ID)
	}
	if len(nw.endpoints) == 0 && nw.Shared != "" && !nw.Half {
		d.attend(nw, false)
		d.keep(ctx, nw) // without what the other hosts have
	}
	return nil
}

// Join tells the engine what to move into the sandbox. The sandbox may not exist yet (engines up to 27) and is not looked
// at. The other hosts know the endpoint already, unless it has left and comes back.
func (d *Driver) Join(ctx context.Context, network, endpoint, _ string) (Attachment, error) {
	nw, err := d.get(ctx, network)
	if err != nil {
		return Attachment{}, err
	}
	defer nw.turn.give()
	e, ok := nw.endpoints[endpoint]
	if !ok || e.Half {
		return Attachment{}, fmt.Errorf("endpoint %s: %w", short(endpoint), ErrNotFound)
	}
	if err := nw.usable(); err != nil {
		return Attachment{}, err
	}
	_, a := nw.plan.Endpoint(e)
	d.publish(nw, e)
	return a, nil
}

// Leave tells the other hosts to stop sending. The device stays until DeleteEndpoint: the engine still has to move it out
// of the sandbox.
func (d *Driver) Leave(ctx context.Context, network, endpoint string) error {
	nw, err := d.get(ctx, network)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer nw.turn.give()
	if e, ok := nw.endpoints[endpoint]; ok {
		d.withdraw(nw, e)
	}
	return nil
}

// EndpointInfo is EndpointOperInfo, whose content the engine does not use.
func (d *Driver) EndpointInfo(context.Context, string, string) (map[string]string, error) {
	return map[string]string{}, nil
}

// randomMAC returns a locally administered unicast address (IEEE 802, bits 1 and 0 of the first byte). It is not derived
// from the IP address: an address given again would then meet stale forwarding entries on other hosts.
func randomMAC() kernel.MAC {
	var m kernel.MAC
	rand.Read(m[:])
	m[0] = m[0]&^1 | 2
	return m
}

func bare(prefixes []netip.Prefix) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(prefixes))
	for _, p := range prefixes {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}
