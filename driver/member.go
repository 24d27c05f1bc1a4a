package driver

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

const (
	// leaveLimit bounds how long `docker network rm` waits for the cluster to hear of it; after that Run goes on trying.
	leaveLimit = 5 * time.Second
	// leaveEvery is how often Run tries.
	leaveEvery = 5 * time.Second
)

// member returns whose turn it is to join or leave a network of the cluster. A removal that the cluster has not heard of
// must not meet the same network made again.
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
	d.change(func() { nw.VNI, nw.MTU, nw.Subnets = have.VNI, have.MTU, have.Subnets })
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

// leave is one try. If it fails it stays in the store.
func (d *Driver) leave(ctx context.Context, shared string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	turn := d.member(shared)
	if err := turn.take(ctx); err != nil {
		return err
	}
	defer turn.give()
	if !d.has(leavingKey(shared)) {
		return nil // made again meanwhile
	}
	if err := cluster.LeaveNetwork(ctx, d.Facts, shared, d.Facts.ID()); err != nil {
		return err
	}
	return d.Store.Apply(store.Write{Key: leavingKey(shared)})
}

// leaveAll tells the cluster, again and again, of the networks that it could not be told of before.
func (d *Driver) leaveAll(ctx context.Context) {
	if d.Facts == nil {
		return
	}
	for _, shared := range d.leaving() {
		if err := d.leave(ctx, shared); err != nil {
			d.Logger.WithError(err).WithField("shared", shared).Debug("the cluster has not heard yet that a network left this host")
		}
	}
}

// leaving are the networks that have left this host, and the cluster does not know.
func (d *Driver) leaving() []string {
	var all []string
	for key := range d.Store.Prefix(leavingKey("")) {
		all = append(all, key[len(leavingKey("")):])
	}
	return all
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
