package driver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// leaveLimit bounds how long `docker network rm` waits for the cluster to hear of it; after that Run goes on trying.
	leaveLimit = 5 * time.Second
	// leaveEvery is how often Run tries.
	leaveEvery = 5 * time.Second
)

// member returns whose turn it is to join or leave a network of the cluster: one that is being left must not meet the same
// one made again.
func (d *Driver) member(shared string) turn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.members[shared] == nil {
		d.members[shared] = newTurn()
	}
	return d.members[shared]
}

// join makes the network the cluster's, or takes what the cluster has. What was chosen for the user, the mode's MTU and our
// gateway, counts only for a new network.
func (d *Driver) join(ctx context.Context, nw *network, said cluster.Network) error {
	turn := d.member(nw.Shared)
	if err := turn.take(ctx); err != nil {
		return err
	}
	defer turn.give()
	defaults := cluster.Defaults{MTU: nw.MTU, Gateways: map[netip.Prefix]netip.Addr{}}
	for _, s := range nw.Subnets {
		defaults.Gateways[s.Prefix] = s.Gateway
	}
	have, err := cluster.JoinNetwork(ctx, d.Facts, said, defaults)
	if err != nil {
		return err
	}
	d.change(func() { nw.VNI, nw.MTU, nw.Subnets = have.VNI, have.MTU, have.Subnets })
	return nil
}

// reattend tells the cluster again that this host has a network: it may be another node than before, as after `carrick leave`.
// A network that the cluster has made anew meanwhile is not the one that is here.
func (d *Driver) reattend(ctx context.Context, nw *network) error {
	if nw.Shared == "" || d.Facts == nil {
		return nil
	}
	view := d.Facts.View()
	have, ok := view.Network(nw.Shared)
	switch {
	case view.Index() == 0:
		return errors.New("nothing has been heard from the cluster yet")
	case !ok || have.VNI != nw.VNI || slices.Contains(view.Attendants(nw.Shared), d.Facts.ID()):
		return nil
	}
	turn := d.member(nw.Shared)
	if err := turn.take(ctx); err != nil {
		return err
	}
	defer turn.give()
	if err := cluster.ReattendNetwork(ctx, d.Facts, nw.Shared, nw.VNI); err != nil {
		return err
	}
	d.log(nw.ID).Info("the cluster counts this host among those of the network again")
	return nil
}

// tellLeft tells the cluster that this host does not have a network any more, if that is quickly done.
func (d *Driver) tellLeft(ctx context.Context, nw *network) {
	if nw.Shared == "" || d.Facts == nil {
		return
	}
	if err := d.leave(ctx, nw.Shared); err != nil {
		d.log(nw.ID).WithError(err).Warn("the cluster has not heard yet that the network left this host; trying again")
	}
}

// leave is one try.
func (d *Driver) leave(ctx context.Context, shared string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	turn := d.member(shared)
	if err := turn.take(ctx); err != nil {
		return err
	}
	defer turn.give()
	if d.claimed(shared) {
		return nil // made again meanwhile
	}
	return cluster.LeaveNetwork(ctx, d.Facts, shared, d.Facts.ID())
}

// leaveAll tells the cluster, again and again, what it could not be told before.
func (d *Driver) leaveAll(ctx context.Context) {
	for _, shared := range d.leaving() {
		if err := d.leave(ctx, shared); err != nil {
			d.Logger.WithError(err).WithField("shared", shared).Debug("the cluster has not heard yet that a network left this host")
		}
	}
}

// leaving are the networks that the cluster counts this host among, and that this host does not have: they were removed
// without a quorum, or their making failed, and was decided after all. While a record is lost or cannot be read nobody knows
// what this host has: then none, for the addresses of what it may have would be given to others.
func (d *Driver) leaving() []string {
	if d.Facts == nil || d.unread || d.has(keptKey(networkOwner(""))) {
		return nil
	}
	var all []string
	view := d.Facts.View()
	for _, n := range view.Networks() {
		if !d.claimed(n.ID) && slices.Contains(view.Attendants(n.ID), d.Facts.ID()) {
			all = append(all, n.ID)
		}
	}
	return all
}

// claimed says whether a network of the cluster is on this host, or being made or removed.
func (d *Driver) claimed(shared string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.claims {
		if c.shared == shared {
			return true
		}
	}
	return false
}

// disowned says why a network is not the cluster's, as this host has it; "": it is. A host that left the cluster, was
// forgotten or lost its identity still has its networks, and is another node now.
func (d *Driver) disowned(n Network) string {
	if n.Shared == "" || d.Facts == nil || n.Half {
		return ""
	}
	const again = "; remove it from this host and create it again"
	view := d.Facts.View()
	have, ok := view.Network(n.Shared)
	switch {
	case view.Index() == 0: // nothing has been heard yet
	case !ok:
		return "the cluster does not have this network any more" + again
	case !slices.Contains(view.Attendants(n.Shared), d.Facts.ID()):
		return "the cluster does not know that this host has the network" + again
	case have.VNI != n.VNI:
		return "the cluster has made this network anew" + again
	}
	return ""
}
