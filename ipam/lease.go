package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/store"
)

// ReleaseAddress takes an address back. An unknown one is free already. One that an endpoint uses is not taken from it: the
// driver's word about endpoints counts, and another release follows, or the sweep.
func (i *IPAM) ReleaseAddress(_ context.Context, pool, address string) error {
	addr, err := parseAddress(address)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.get(pool)
	if errors.Is(err, errUnknownPool) {
		return nil
	}
	if err != nil {
		return err
	}
	l := p.space.leases[addr]
	switch {
	case l != nil && l.Endpoint != "":
		i.config.Logger.WithField("address", addr).WithField("endpoint", short(l.Endpoint)).
			Warn("an address was released that an endpoint still uses; it stays the endpoint's")
		return nil
	case l != nil:
		return i.free(p, addr)
	case p.Network != "":
		return nil // gateway and auxiliary addresses go with the network
	case addr == p.Gateway || slices.Contains(p.Aux, addr):
		rec := p.poolRecord
		rec.Aux = slices.DeleteFunc(slices.Clone(rec.Aux), func(a netip.Addr) bool { return a == addr })
		if addr == rec.Gateway {
			rec.Gateway, rec.Chosen = netip.Addr{}, false
		}
		return i.change(p, rec)
	}
	return nil
}

// free ends leases, on disk first. i.mu is held.
func (i *IPAM) free(p *pool, addrs ...netip.Addr) error {
	var writes []store.Write
	for _, addr := range addrs {
		writes = append(writes, store.Write{Key: leaseKey(p.ID, addr)})
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	for _, addr := range addrs {
		p.space.release(addr, i.now())
	}
	return nil
}

// Use says that an endpoint has addresses of a network. It fails, and changes nothing, if one was not handed out or is
// another endpoint's. After the store was lost, what is in use is taken over.
func (i *IPAM) Use(_ context.Context, network, endpoint string, addrs []netip.Addr) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var writes []store.Write
	var leases []*lease
	adopt := map[*lease]*pool{}
	for _, addr := range addrs {
		p := i.bound(network, addr)
		if p == nil {
			return fmt.Errorf("address %s is in no pool of network %s", addr, short(network))
		}
		l := p.space.leases[addr]
		switch {
		case l == nil && i.damaged:
			i.refresh(p)
			if err := errors.Join(p.inside(addr), i.mayAdopt(p, addr)); err != nil {
				return err
			}
			l = &lease{leaseRecord: leaseRecord{Version: recordVersion, Pool: p.ID, Addr: addr, Explicit: true}}
			adopt[l] = p
		case l == nil:
			return fmt.Errorf("address %s was not handed out by this host", addr)
		case l.Endpoint != "" && l.Endpoint != endpoint:
			return fmt.Errorf("address %s is in use by endpoint %s", addr, short(l.Endpoint))
		}
		rec := l.leaseRecord
		rec.Endpoint = endpoint
		write, err := putLease(rec)
		if err != nil {
			return err
		}
		writes, leases = append(writes, write), append(leases, l)
	}
	if len(writes) == 0 {
		return nil
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	for _, l := range leases {
		l.Endpoint, l.gone, l.suspect = endpoint, false, false
		if p := adopt[l]; p != nil {
			p.space.take(l.Addr, l)
		}
	}
	return nil
}

// bound is the pool of a network that an address lies in.
func (i *IPAM) bound(network string, addr netip.Addr) *pool {
	for _, p := range i.pools {
		if p.Network == network && network != "" && p.Prefix.Contains(addr) {
			return p
		}
	}
	return nil
}

// Unuse says that an endpoint is gone. Its addresses are released by Docker, or by the sweep.
func (i *IPAM) Unuse(_ context.Context, endpoint string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var writes []store.Write
	var leases []*lease
	for _, p := range i.ordered() {
		for _, l := range p.space.leases {
			if endpoint == "" || l.Endpoint != endpoint {
				continue
			}
			rec := l.leaseRecord
			rec.Endpoint = ""
			write, err := putLease(rec)
			if err != nil {
				return err
			}
			writes, leases = append(writes, write), append(leases, l)
		}
	}
	if len(writes) == 0 {
		return nil
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	for _, l := range leases {
		l.Endpoint, l.idle, l.gone, l.suspect = "", i.now(), true, false
	}
	return nil
}
