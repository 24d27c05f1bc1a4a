package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// Options of RequestAddress, from libnetwork's ipamapi and netlabel.
const (
	typeOption   = "RequestAddressType"
	gatewayType  = "com.docker.network.gateway"
	macOption    = "com.docker.network.endpoint.macaddress"
	nameOption   = "com.docker.network.endpoint.name" // engines since 29
	serialOption = "com.docker.network.ipam.serial"   // Swarm's; the order of addresses is ours
)

// maxTries bounds how often a request goes to the cluster: once for an address that nobody has, once more if another
// request took it meanwhile, and so on.
const maxTries = 4

// releaseGrace is how long after the end of its endpoint an address may still be released: the engine tries a call for
// 15 s. Then `--ip` may have it although the release never came.
const releaseGrace = 20 * time.Second

// Reasons to ask the cluster.
var (
	errNothingFree = errors.New("no address is free")
	errNobodys     = errors.New("the address is in no block")
	errOthers      = errors.New("the address is in another host's block")
)

// ask is an address wanted for an endpoint.
type ask struct {
	addr netip.Addr // zero: any
	mac  string     // identity of the request; "": none
	name string
}

// RequestAddress hands out an address: the gateway's, one that is asked for by name, or any. It is on disk when it is
// answered, and the same request again has the same answer.
func (i *IPAM) RequestAddress(ctx context.Context, pool, address string, options map[string]string) (netip.Prefix, error) {
	a := ask{name: options[nameOption]}
	if address != "" {
		var err error
		if a.addr, err = parseAddress(address); err != nil {
			return netip.Prefix{}, err
		}
	}
	if mac := options[macOption]; mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("option %s=%q is not a MAC address, as in 02:42:0a:01:00:03", macOption, mac)
		}
		a.mac = hw.String()
	}
	var addr netip.Prefix
	var err error
	switch {
	case options[typeOption] == gatewayType:
		addr, err = i.gateway(pool, a.addr)
	case options[typeOption] != "":
		err = fmt.Errorf("option %s=%q: allowed is %s", typeOption, options[typeOption], gatewayType)
	case a.mac == "" && a.addr.IsValid():
		addr, err = i.known(ctx, pool, a)
	default:
		addr, err = i.endpoint(ctx, pool, a)
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	return addr, nil
}

// parseAddress parses "10.1.0.3", and takes "10.1.0.3/24" as well.
func parseAddress(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		var p netip.Prefix
		if p, err = netip.ParsePrefix(s); err == nil {
			addr = p.Addr()
		}
	}
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 or IPv6 address", s)
	}
	return addr, nil
}

func (p *pool) with(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, p.Prefix.Bits()) }

// inside says why an address can be nobody's in a pool.
func (p *pool) inside(addr netip.Addr) error {
	if !p.Prefix.Contains(addr) {
		return fmt.Errorf("address %s is not in subnet %s", addr, p.Prefix)
	}
	if !(cluster.Subnet{Prefix: p.Prefix}).Usable(addr) {
		return fmt.Errorf("address %s is the network's, the broadcast or the anycast address of subnet %s", addr, p.Prefix)
	}
	return nil
}

// gateway answers Docker's request for a gateway. Until the pool belongs to a network it is one of the pool's attributes.
func (i *IPAM) gateway(id string, want netip.Addr) (netip.Prefix, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.get(id)
	if err != nil {
		return netip.Prefix{}, err
	}
	if want.IsValid() {
		if err := p.inside(want); err != nil {
			return netip.Prefix{}, fmt.Errorf("--gateway: %w", err)
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
			return netip.Prefix{}, fmt.Errorf("--gateway %s: the network of subnet %s has gateway %s", want, p.Prefix, orNone(has))
		}
		return p.with(has), nil
	}
	rec := p.poolRecord
	rec.Gateway, rec.Chosen = want, false
	if !want.IsValid() {
		rec.Gateway, rec.Chosen = i.gatewayFor(p), true
	}
	if slices.Contains(p.Aux, rec.Gateway) || p.space.leases[rec.Gateway] != nil {
		return netip.Prefix{}, fmt.Errorf("--gateway: address %s is in use in subnet %s", rec.Gateway, p.Prefix)
	}
	if err := i.change(p, rec); err != nil {
		return netip.Prefix{}, err
	}
	return p.with(rec.Gateway), nil
}

func orNone(addr netip.Addr) string {
	if !addr.IsValid() {
		return "none"
	}
	return addr.String()
}

// gatewayFor is the gateway that the cluster's network of that name or subnet has, so that all hosts say the same; else
// the first address.
func (i *IPAM) gatewayFor(p *pool) netip.Addr {
	if i.config.Cluster != nil {
		for _, n := range i.config.Cluster.View().Networks() {
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

// known answers requests that name an address and no endpoint: auxiliary addresses while the network is being created, and
// Docker's replay of everything it knows, when it starts.
func (i *IPAM) known(ctx context.Context, id string, a ask) (netip.Prefix, error) {
	disputed := i.disputed(ctx, id, a)
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.get(id)
	if err != nil {
		return netip.Prefix{}, err
	}
	if err := p.inside(a.addr); err != nil {
		return netip.Prefix{}, err
	}
	i.refresh(p)
	subnet := p.subnet()
	isAux := slices.Contains(p.Aux, a.addr)
	for _, aux := range subnet.Aux {
		isAux = isAux || aux == a.addr
	}
	switch {
	case p.space.leases[a.addr] != nil || isAux:
		return p.with(a.addr), nil
	case a.addr == subnet.Gateway && p.Network != "":
		return p.with(a.addr), nil
	case a.addr == subnet.Gateway:
		return netip.Prefix{}, fmt.Errorf("address %s is the gateway of subnet %s: name another with --gateway", a.addr, p.Prefix)
	case p.Network == "":
		rec := p.poolRecord
		rec.Aux = append(slices.Clone(rec.Aux), a.addr)
		return p.with(a.addr), i.change(p, rec)
	}
	if err := cmp.Or(disputed, i.mayAdopt(p, a.addr)); err != nil {
		return netip.Prefix{}, err
	}
	return p.with(a.addr), i.grant(p, a.addr, a)
}

// mayAdopt says why an address that is seen in use without a lease is not taken over; nil: it is.
func (i *IPAM) mayAdopt(p *pool, addr netip.Addr) error {
	if owner, found := p.owner(addr); p.Shared != "" && found && p.ours(owner) && p.frozen(owner) {
		return nil
	}
	if err := i.mayGive(p, addr); err != nil {
		return fmt.Errorf("address %s was not handed out here: %w", addr, err)
	}
	return nil
}

// endpoint hands out an address to a new endpoint. What that needs of the cluster is done without holding the mutex.
func (i *IPAM) endpoint(ctx context.Context, id string, a ask) (netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	disputed := i.disputed(ctx, id, a)
	var err error
	for range maxTries {
		var p *pool
		var rec poolRecord
		var addr netip.Prefix
		p, rec, addr, err = i.tryEndpoint(id, a, disputed)
		switch {
		case err == nil:
			return addr, nil
		case errors.Is(err, errNothingFree):
			if err := i.claim(ctx, p); err != nil {
				return netip.Prefix{}, i.exhausted(p, err)
			}
		case errors.Is(err, errNobodys):
			if _, err := cluster.ClaimBlockOf(ctx, i.config.Cluster, rec.Shared, rec.Subnet, a.addr); err != nil {
				return netip.Prefix{}, fmt.Errorf("address %s: %w", a.addr, err)
			}
		case errors.Is(err, errOthers):
			if err := i.carve(ctx, rec, a.addr); err != nil {
				return netip.Prefix{}, fmt.Errorf("address %s: %w", a.addr, err)
			}
		default:
			return netip.Prefix{}, err
		}
	}
	return netip.Prefix{}, fmt.Errorf("pool %s: given up after %d tries, others were faster: %w", id, maxTries, err)
}

// disputed says why nothing new of a pool may be handed out on this host. i.mu is not held.
func (i *IPAM) disputed(ctx context.Context, id string, a ask) error {
	i.mu.Lock()
	p := i.pools[id]
	known := p == nil || p.Shared == "" || a.mac == "" && p.space.leases[a.addr] != nil
	i.mu.Unlock()
	if known || i.config.Cluster == nil {
		return nil
	}
	return i.config.Cluster.Undisputed(ctx)
}

// tryEndpoint hands out an address if that needs nobody else. Else it says of which pool, as it was.
func (i *IPAM) tryEndpoint(id string, a ask, disputed error) (*pool, poolRecord, netip.Prefix, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, err := i.get(id)
	if err != nil {
		return nil, poolRecord{}, netip.Prefix{}, err
	}
	if err := i.isBound(p); err != nil {
		return p, p.poolRecord, netip.Prefix{}, err
	}
	i.refresh(p)
	if l := p.repeated(a); l != nil {
		return p, p.poolRecord, p.with(l.Addr), nil
	}
	if disputed != nil {
		return p, p.poolRecord, netip.Prefix{}, fmt.Errorf("%s: %w", p.label(), disputed)
	}
	addr := a.addr
	if addr.IsValid() {
		err = i.mayTake(p, addr)
	} else {
		addr, err = i.pick(p)
	}
	if err == nil {
		err = i.grant(p, addr, a)
	}
	return p, p.poolRecord, p.with(addr), err
}

// isBound refuses endpoints in a pool whose subnet is a network's of the cluster while nothing says that it is that
// network: after its store was lost, this host would hand out addresses that are others'.
func (i *IPAM) isBound(p *pool) error {
	if p.Network != "" || p.Space != localSpace || i.config.Cluster == nil {
		return nil
	}
	view := i.config.Cluster.View()
	if i.damaged && view.Index() == 0 {
		return fmt.Errorf("%s: the records of this host were lost, and it has not heard from the cluster yet: %w", p.label(), cluster.ErrNoQuorum)
	}
	for _, taken := range view.Reserved() {
		if taken.Overlaps(p.Prefix) {
			return fmt.Errorf("%s overlaps %s of a network of the cluster, and this network is not known to be it: remove it and "+
				"create it again", p.label(), taken)
		}
	}
	return nil
}

// repeated finds the lease that the same request was given before. One that an endpoint uses was answered, and heard.
func (p *pool) repeated(a ask) *lease {
	if a.mac == "" {
		return nil
	}
	for _, l := range p.space.leases {
		if l.MAC == a.mac && l.Endpoint == "" && l.Explicit == a.addr.IsValid() && (!l.Explicit || l.Addr == a.addr) {
			return l
		}
	}
	return nil
}

// mayTake says why an address that was asked for cannot be had.
func (i *IPAM) mayTake(p *pool, addr netip.Addr) error {
	if err := p.inside(addr); err != nil {
		return err
	}
	subnet := p.subnet()
	switch l := p.space.leases[addr]; {
	case addr == subnet.Gateway:
		return fmt.Errorf("address %s is the gateway of subnet %s", addr, p.Prefix)
	case !subnet.Usable(addr):
		return fmt.Errorf("address %s is an --aux-address of subnet %s", addr, p.Prefix)
	case l != nil && l.Endpoint != "":
		return fmt.Errorf("address %s is in use by endpoint %s", addr, short(l.Endpoint))
	case l != nil && l.gone && i.now().Sub(l.idle) >= releaseGrace:
		return nil
	case l != nil:
		return fmt.Errorf("address %s is in use: it was given to another container a moment ago", addr)
	}
	return i.mayGive(p, addr)
}

// pick finds any address.
func (i *IPAM) pick(p *pool) (netip.Addr, error) {
	addr, ok := p.space.pick(i.now())
	switch {
	case ok:
		return addr, nil
	case p.stale:
		return netip.Addr{}, i.staleError(p)
	case p.Shared == "":
		total, _ := p.space.counts()
		return netip.Addr{}, fmt.Errorf("%s: no address left: %d in use of %d in %s", p.label(), p.usedHere(), total, p.rangeOf())
	}
	return netip.Addr{}, errNothingFree
}

// exhausted says why a network of the cluster has no address for this host, with numbers.
func (i *IPAM) exhausted(p *pool, cause error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.refresh(p)
	_, free := p.space.counts()
	return fmt.Errorf("%s: no address left: %d used and %d free on this host, %d in blocks that no host has: %w",
		p.label(), p.usedHere(), free, p.unclaimed(), cause)
}

// grant writes a lease, and then counts it. i.mu is held.
func (i *IPAM) grant(p *pool, addr netip.Addr, a ask) error {
	rec := leaseRecord{Version: recordVersion, Pool: p.ID, Addr: addr, MAC: a.mac, Explicit: a.addr.IsValid(), Name: a.name}
	write, err := putLease(rec)
	if err != nil {
		return err
	}
	writes := []store.Write{write}
	if part, next, ok := p.space.after(addr); ok {
		write, err := putNext(nextRecord{recordVersion, p.ID, part, next})
		if err != nil {
			return err
		}
		writes = append(writes, write)
	}
	if err := i.config.Store.Apply(writes...); err != nil {
		return err
	}
	p.space.take(addr, &lease{leaseRecord: rec, idle: i.now()})
	if p.Shared != "" {
		select {
		case i.used <- struct{}{}: // Run may have to claim ahead
		default:
		}
	}
	return nil
}

// short is how Docker prints an identifier.
func short(id string) string { return id[:min(len(id), 12)] }
