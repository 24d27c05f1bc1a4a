package ipam

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/ipam/ledger"
)

const (
	// lookInUse is how often a host looks at its routes, addresses and name servers, to tell the others.
	lookInUse = 30 * time.Second
	// lookShare bounds that to a hundredth of a processor: a router has a million routes.
	lookShare = 100
)

// inUse are the host's routes, addresses and name servers.
func (i *IPAM) inUse() ([]netip.Prefix, error) {
	all, err := i.config.InUse()
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(all), nameServers(i.resolvConf)...), nil
}

// occupy looks, when it is time to, and tells the others what is news.
func (i *IPAM) occupy(ctx context.Context) error {
	i.mu.Lock()
	at := i.moment()
	i.mu.Unlock()
	if !at.Joined || at.Now.Before(i.look) || !at.View.IsNode(at.Self) {
		return nil
	}
	used, err := i.inUse()
	now := i.now()
	i.look = now.Add(max(lookInUse, lookShare*now.Sub(at.Now)))
	if err != nil {
		return err
	}
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Occupy(at, used) })
}
