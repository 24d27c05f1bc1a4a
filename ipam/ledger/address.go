package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// Options of RequestAddress, from libnetwork's ipamapi and netlabel.
const (
	typeOption   = "RequestAddressType"
	gatewayType  = "com.docker.network.gateway"
	macOption    = "com.docker.network.endpoint.macaddress"
	nameOption   = "com.docker.network.endpoint.name" // engines since 29
	serialOption = "com.docker.network.ipam.serial"   // Swarm's; the order of addresses is ours
)

// maxTries bounds how often a request goes to the cluster: once for what nobody has, and once more whenever another was faster. Of
// many containers that start at once where blocks are single addresses, one may see most of the others go before it.
const maxTries = 64

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
func (l *Ledger) RequestAddress(at Moment, pool, address string, options map[string]string) Move {
	a := ask{name: options[nameOption]}
	if address != "" {
		var err error
		if a.addr, err = parseAddress(address); err != nil {
			return done(err)
		}
	}
	if mac := options[macOption]; mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return done(fmt.Errorf("option %s=%q is not a MAC address, as in 02:42:0a:01:00:03", macOption, mac))
		}
		a.mac = hw.String()
	}
	switch {
	case options[typeOption] == gatewayType:
		return l.gateway(at, pool, a.addr)
	case options[typeOption] != "":
		return done(fmt.Errorf("option %s=%q: allowed is %s", typeOption, options[typeOption], gatewayType))
	}
	pool = l.around(pool, a.addr)
	return l.undisputed(at, pool, a, func(at Moment, disputed error) Move {
		switch {
		case !a.addr.IsValid():
			return l.anywhere(at, pool, a, disputed)
		case a.mac == "":
			return l.replay(at, pool, a, disputed)
		}
		return l.endpoint(at, pool, a, disputed, maxTries)
	})
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

// undisputed goes on with why nothing new of a pool may be handed out on this host.
func (l *Ledger) undisputed(at Moment, id string, a ask, after func(Moment, error) Move) Move {
	p := l.pools[id]
	if p == nil || p.Shared == "" || a.mac == "" && p.space.leases[a.addr] != nil || !at.Joined {
		return after(at, nil)
	}
	return Move{Kind: Ask, next: after}
}

// replay answers requests that name an address and no endpoint: auxiliary addresses while the network is being created, and
// Docker's replay of everything it knows, when it starts.
func (l *Ledger) replay(at Moment, id string, a ask, disputed error) Move {
	p, err := l.get(id)
	if err == nil {
		err = p.inside(a.addr)
	}
	if err != nil {
		return done(err)
	}
	p.refresh(at)
	subnet := p.subnet()
	isAux := slices.Contains(p.Aux, a.addr)
	for _, aux := range subnet.Aux {
		isAux = isAux || aux == a.addr
	}
	switch {
	case p.space.leases[a.addr] != nil || isAux, a.addr == subnet.Gateway && p.Network != "":
		return p.gives(a.addr)
	case a.addr == subnet.Gateway:
		return done(fmt.Errorf("address %s is the gateway of subnet %s: name another with --gateway", a.addr, p.Prefix))
	case p.Network == "":
		rec := p.poolRecord
		rec.Aux = append(slices.Clone(rec.Aux), a.addr)
		return l.change(p, rec, func(Moment) Move { return p.gives(a.addr) })
	}
	if err := cmp.Or(disputed, p.mayAdopt(a.addr)); err != nil {
		return done(err)
	}
	return l.grant(at, p, a.addr, a)
}

// mayAdopt says why an address that is seen in use without a lease is not taken over; nil: it is.
func (p *pool) mayAdopt(addr netip.Addr) error {
	if owner, found := p.owner(addr); p.Shared != "" && found && p.ours(owner) && p.frozen(owner) {
		return nil
	}
	if err := p.mayGive(addr); err != nil {
		return fmt.Errorf("address %s was not handed out here: %w", addr, err)
	}
	return nil
}

// endpoint hands out an address to a new endpoint, after what that needs of the cluster.
func (l *Ledger) endpoint(at Moment, id string, a ask, disputed error, left int) Move {
	p, err := l.get(id)
	if err == nil {
		err = l.isBound(at, p)
	}
	if err != nil {
		return done(err)
	}
	if in, same := l.repeated(at, p, a); same != nil {
		return in.gives(same.Addr)
	}
	p.refresh(at)
	if disputed != nil {
		return done(fmt.Errorf("%s: %w", p.label(), disputed))
	}
	if p.Since == unsettled && at.Joined { // the driver is about to bind it again
		return wait(func(at Moment, err error) Move {
			if err != nil {
				return done(p.staleError())
			}
			return l.endpoint(at, id, a, nil, left)
		})
	}
	addr := a.addr
	if addr.IsValid() {
		err = p.mayTake(at, addr)
	} else {
		addr, err = p.pickFor(at, a.name)
	}
	again := func(at Moment, err error) Move {
		switch {
		case err != nil:
			return done(fmt.Errorf("address %s: %w", addr, err))
		case left == 1:
			return done(fmt.Errorf("pool %s: given up after %d tries, others were faster", id, maxTries))
		}
		return l.endpoint(at, id, a, disputed, left-1)
	}
	switch {
	case err == nil:
		return l.grant(at, p, addr, a)
	case errors.Is(err, errNothingFree):
		return l.claim(at, p, func(at Moment, err error) Move {
			if err != nil {
				return l.lastly(at, id, a, err)
			}
			return again(at, nil)
		})
	case errors.Is(err, errNobodys):
		return p.claimOf(at, addr, again)
	case errors.Is(err, errOthers):
		return l.carve(at, p, addr, again)
	case errors.Is(err, errGivenUp):
		owner, _ := p.owner(addr)
		return p.reclaim(at, owner, again)
	}
	return done(err)
}

// lastly looks once more, when no block could be had: an address may have come back meanwhile.
func (l *Ledger) lastly(at Moment, id string, a ask, cause error) Move {
	p, err := l.get(id)
	if err != nil {
		return done(err)
	}
	p.refresh(at)
	if addr, err := p.pick(at); err == nil && !flawed(flawFullAtOnce) {
		return l.grant(at, p, addr, a)
	}
	return done(full{p.exhausted(at, cause)})
}

// isBound refuses endpoints in a pool whose subnet is a network's of the cluster while nothing says that it is that
// network: after its store was lost, this host would hand out addresses that are others'.
func (l *Ledger) isBound(at Moment, p *pool) error {
	if p.Network != "" || p.Space != LocalSpace || !at.Joined {
		return nil
	}
	if l.damaged && at.View.Index() == 0 {
		return noQuorum("%s: the records of this host were lost, and it has not heard from the cluster yet", p.label())
	}
	for _, taken := range at.View.Reserved() {
		if taken.Overlaps(p.Prefix) {
			return fmt.Errorf("%s overlaps %s of a network of the cluster, and this network is not known to be it: remove it and "+
				"create it again", p.label(), taken)
		}
	}
	return nil
}

// repeated finds the lease that the same request was given before. One that an endpoint uses was answered, and heard; one that is
// not this host's any more is not given again.
func (p *pool) repeated(a ask) *lease {
	if a.mac == "" || flawed(flawRepetitionGivesAnother) {
		return nil
	}
	var found *lease
	for _, l := range p.space.leases {
		same := l.MAC == a.mac && l.Endpoint == "" && l.Explicit == a.addr.IsValid() && (!l.Explicit || l.Addr == a.addr)
		if same && (p.mayAdopt(l.Addr) == nil || flawed(flawStrayIsGivenAgain)) && (found == nil || l.Addr.Less(found.Addr)) {
			found = l
		}
	}
	return found
}

// mayTake says why an address that was asked for cannot be had.
func (p *pool) mayTake(at Moment, addr netip.Addr) error {
	if err := p.inside(addr); err != nil {
		return err
	}
	subnet := p.subnet()
	switch l := p.space.leases[addr]; {
	case addr == subnet.Gateway:
		return fmt.Errorf("address %s is the gateway of subnet %s", addr, p.Prefix)
	case !subnet.Usable(addr):
		return fmt.Errorf("address %s is an --aux-address of subnet %s", addr, p.Prefix)
	case l != nil && flawed(flawExplicitIsTaken):
	case l != nil && l.Endpoint != "":
		return fmt.Errorf("address %s is in use by endpoint %s", addr, short(l.Endpoint))
	case l != nil && (!l.Gone || at.Now.Sub(l.idle) < releaseGrace):
		return fmt.Errorf("address %s is in use: it was given to another container a moment ago", addr)
	}
	return p.mayGive(addr)
}

// pick finds any address.
func (p *pool) pick(at Moment) (netip.Addr, error) {
	addr, ok := p.space.pick(at.Now, at.Seed)
	switch {
	case ok:
		return addr, nil
	case p.stale:
		return netip.Addr{}, full{p.staleError()}
	case p.Shared == "":
		total, _ := p.space.counts()
		return netip.Addr{}, full{fmt.Errorf("%s: no address left: %d in use of %d in %s", p.label(), p.usedHere(), total, p.rangeOf())}
	}
	return netip.Addr{}, errNothingFree
}

// exhausted says why a network of the cluster has no address for this host, with numbers.
func (p *pool) exhausted(at Moment, cause error) error {
	s := p.status(at, at.hosts())
	return fmt.Errorf("%s: no address left: %d used and %d free on this host, %d in blocks that no host has, %d stranded in blocks "+
		"of hosts that do not answer: %w", p.label(), s.Used, s.Free, s.Unclaimed, s.Stranded, cause)
}

// grant writes a lease, and then counts it.
func (l *Ledger) grant(at Moment, p *pool, addr netip.Addr, a ask) Move {
	rec := leaseRecord{Version: recordVersion, Pool: p.ID, Addr: addr, MAC: a.mac, Explicit: a.addr.IsValid(), Name: a.name,
		Given: at.Now.UTC().Truncate(time.Second)}
	all, receipts := p.receipt()
	all = append(all, putLease(rec))
	if part, next, ok := p.space.after(addr); ok {
		all = append(all, putNext(nextRecord{recordVersion, p.ID, part, next}))
	}
	if p.rests[addr] {
		all = append(all, deletion(restKey(p.ID, addr)))
	}
	remembered := p.names.clone()
	all = append(all, remembered.forget(addr)...)
	n := p.space.part(addr)
	doubt := at.Now.Sub(l.began) < releaseGrace && (p.space.before[addr] || n >= 0 && p.space.parts[n].vast())
	if flawed(flawGivenBeforeDisk) {
		m := write(all, nil)
		m.next = func(at Moment, _ error) Move {
			p.space.take(addr, &lease{leaseRecord: rec, idle: at.Now})
			return p.gives(addr)
		}
		return m
	}
	return write(all, func(at Moment) Move {
		p.note(receipts)
		delete(p.rests, addr)
		p.names = remembered
		p.space.take(addr, &lease{leaseRecord: rec, idle: at.Now, doubt: doubt})
		return p.gives(addr)
	})
}

// short is how Docker prints an identifier.
func short(id string) string { return id[:min(len(id), 12)] }
