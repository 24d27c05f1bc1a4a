package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// hearLimit bounds how long networks stay as they were found, after a start, until the other hosts have said what they
// have.
const hearLimit = 10 * time.Second

// rebindEvery is how often pools that could not take what is bound to them are told again: for that they may need a quorum.
const rebindEvery = 5 * time.Second

// Restore reads the records, undoes what was begun and never answered, removes what the kernel holds for owners that
// nobody knows, and brings the rest in step. It asks nothing of the cluster, which does not run yet. What cannot be
// undone, opened or brought in step keeps its record and its traffic and is tried again by Run.
func (d *Driver) Restore(ctx context.Context) error {
	d.read()
	owned, err := d.Kernel.Owners(ctx)
	switch {
	case err != nil && d.Damaged:
		return fmt.Errorf("the records are lost, and what the kernel holds of ours cannot be listed: %w", err)
	case err != nil:
		d.Logger.WithError(err).Error("what the kernel holds of ours cannot be listed; orphans are left for the next start")
	}
	if err := d.removeOrphans(ctx, owned); err != nil {
		return err
	}
	_ = d.keepGuard(ctx, true) // Run tries again
	for _, nw := range d.all() {
		if err := nw.take(ctx); err != nil {
			return err
		}
		if err := d.removeHalf(ctx, nw); err != nil {
			d.log(nw.ID).WithError(err).Error("what was begun before the start is not undone; trying again")
		}
		d.announce(nw)
		// What is remembered of the other hosts may be old or lost, and what is in the kernel carries traffic.
		there := slices.ContainsFunc(owned, func(o kernel.Owned) bool { return o.Owner == networkOwner(nw.ID) })
		nw.unheard = there && nw.Shared != "" && d.Records != nil && len(nw.endpoints) > 0
		d.keep(ctx, nw)
		nw.turn.give()
	}
	return nil
}

// hear brings the networks in step that were left as they were found.
func (d *Driver) hear(ctx context.Context) {
	d.awaitFacts(ctx)
	limited, cancel := context.WithTimeout(ctx, hearLimit)
	defer cancel()
	for _, nw := range d.all() {
		if nw.take(ctx) != nil {
			return
		}
		unheard, shared := nw.unheard, nw.Shared
		nw.turn.give()
		if !unheard {
			continue
		}
		d.sync(limited, shared, hearLimit)
		if nw.take(ctx) != nil {
			return
		}
		nw.unheard = false
		d.keep(ctx, nw)
		nw.turn.give()
	}
}

// factsEvery is how often it is looked whether there are facts; a start that has none gets them within a second.
const factsEvery = 20 * time.Millisecond

// awaitFacts waits for the first facts, no longer than hearLimit: a node that has dropped its copy begins without any, and by that nobody would be a node whose
// frames are taken.
func (d *Driver) awaitFacts(ctx context.Context) {
	if d.Facts == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hearLimit)
	defer cancel()
	again := time.NewTicker(factsEvery)
	defer again.Stop()
	for d.Facts.View().Index() == 0 {
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// rebindAll tells the pools, after a start, what is bound to them, until they have heard it of every network. They know it
// unless their own records are lost.
func (d *Driver) rebindAll(ctx context.Context) {
	d.awaitFacts(ctx) // without any, no network of the cluster can be bound
	pending, said := d.all(), map[string]string{}
	again := time.NewTicker(rebindEvery)
	defer again.Stop()
	for {
		pending = slices.DeleteFunc(pending, func(nw *network) bool {
			if nw.take(ctx) != nil {
				return false
			}
			defer nw.turn.give()
			err := d.rebind(ctx, nw)
			if err != nil && err.Error() != said[nw.ID] {
				said[nw.ID] = err.Error()
				d.log(nw.ID).WithError(err).Warn("the pools do not take what the network has; trying again")
			}
			return err == nil
		})
		if len(pending) == 0 {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *Driver) rebind(ctx context.Context, nw *network) error {
	if nw.Half || nw.gone {
		return nil
	}
	if err := d.reattend(ctx, nw); err != nil || !nw.Ours {
		return err
	}
	if err := d.Pools.Bind(ctx, nw.ID, nw.Shared, nw.Subnets); err != nil {
		return err
	}
	var errs []error
	for _, e := range nw.endpoints {
		errs = append(errs, d.Leases.Use(ctx, nw.ID, e.ID, bare(e.Addrs)))
	}
	return errors.Join(append(errs, d.Leases.Reown(ctx, nw.ID))...)
}

// read takes over the records that this version understands.
func (d *Driver) read() {
	for _, raw := range d.Store.Prefix(networkKey("")) {
		var n Network
		if err := decode(raw, &n, &n.Version); err != nil {
			d.Logger.WithError(err).Error("a network's record cannot be read; the network is left as it is")
			d.unread = true
			continue
		}
		d.networks[n.ID] = newNetwork(n)
		d.claims[n.ID] = claimOf(n)
	}
	for _, raw := range d.Store.Prefix(belowEndpoint) {
		var e Endpoint
		if err := decode(raw, &e, &e.Version); err != nil {
			d.Logger.WithError(err).Error("an endpoint's record cannot be read; the endpoint is left as it is")
			continue
		}
		if nw := d.networks[e.Network]; nw != nil {
			nw.endpoints[e.ID], nw.adopted[e.ID] = e, true
		}
	}
}

// announce tells the other hosts of the endpoints here.
func (d *Driver) announce(nw *network) {
	if nw.Half || len(nw.endpoints) == 0 {
		return
	}
	d.attend(nw, true)
	for _, e := range nw.endpoints {
		d.publish(nw, e)
	}
}

// removeOrphans removes what owners have that no record names: a plugin killed between the kernel and its answer leaves
// such things. A failure leaves them for the next start. When the records are lost nobody can say what is an orphan:
// then everything is kept, and marked, until the engine removes it.
func (d *Driver) removeOrphans(ctx context.Context, owned []kernel.Owned) error {
	known := d.recorded()
	var kept []store.Write
	var orphans []string
	for _, o := range owned {
		switch {
		case known[o.Owner]:
		case d.Unsure && !d.Damaged:
			d.Logger.WithField("owner", o.Owner).Info("no record names this owner; left as it is, since nobody could be asked whether the records are the newest")
		case d.Damaged:
			kept = append(kept, store.Write{Key: keptKey(o.Owner), Value: []byte("{}")})
		default:
			orphans = append(orphans, o.Owner)
		}
	}
	if err := d.Kernel.Remove(ctx, orphans...); err != nil {
		d.Logger.WithError(err).WithField("owners", orphans).Error("orphans cannot be removed")
	} else if len(orphans) != 0 {
		d.Logger.WithField("owners", orphans).Warn("removed what nobody owns any more")
	}
	if len(kept) == 0 {
		return nil
	}
	return d.Store.Apply(kept...)
}

// recorded are the owners that a record names, whether this version can read it or not.
func (d *Driver) recorded() map[string]bool {
	known := map[string]bool{guardOwner: d.guards()}
	for key := range d.Store.Prefix(networkKey("")) {
		known[networkOwner(strings.TrimPrefix(key, networkKey("")))] = true
	}
	for key := range d.Store.Prefix(belowEndpoint) {
		known[endpointOwner(key[strings.LastIndexByte(key, '/')+1:])] = true
	}
	for key := range d.Store.Prefix(keptKey("")) {
		known[strings.TrimPrefix(key, keptKey(""))] = true
	}
	return known
}

// removeLostNetwork removes what there is of a network without a record, or with one that cannot be read.
func (d *Driver) removeLostNetwork(ctx context.Context, id string) error {
	if err := d.removeLostEndpoints(ctx, id); err != nil {
		return err
	}
	return errors.Join(d.removeLost(ctx, networkOwner(id), networkKey(id)), d.Pools.Unbind(ctx, id))
}

func (d *Driver) removeLostEndpoints(ctx context.Context, network string) error {
	for key := range d.Store.Prefix(endpointKey(network, "")) {
		if err := d.removeLostEndpoint(ctx, network, strings.TrimPrefix(key, endpointKey(network, ""))); err != nil {
			return err
		}
	}
	return nil
}

// removeLostEndpoint is the same for an endpoint. The engine may never have heard of it, if its creation was cut short.
func (d *Driver) removeLostEndpoint(ctx context.Context, network, id string) error {
	return errors.Join(d.removeLost(ctx, endpointOwner(id), endpointKey(network, id)), d.Leases.Unuse(ctx, id))
}

func (d *Driver) removeLost(ctx context.Context, owner, record string) error {
	if err := d.Kernel.Set(ctx, owner, kernel.State{}); err != nil {
		return err
	}
	if !d.has(record) && !d.has(keptKey(owner)) {
		return nil
	}
	return d.Store.Apply(store.Write{Key: record}, store.Write{Key: keptKey(owner)})
}

// has says whether the store has a key; keys of one kind have one length, so none begins with another.
func (d *Driver) has(key string) bool {
	for range d.Store.Prefix(key) {
		return true
	}
	return false
}
