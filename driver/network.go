package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// makeLimit bounds the making of a network, which may wait for the cluster twice, 8 s each. With undoLimit and leaveLimit
// it is below the 22 s that the server gives a call, after which the engine would be told something less useful.
const makeLimit = 12 * time.Second

// SkipGateway is GwAllocCheck: whether Docker shall reserve no gateway address, for IPv4 and for IPv6.
func (d *Driver) SkipGateway(opts map[string]string) (v4, v6 bool, err error) {
	_, mode, err := d.mode(opts)
	return mode.NoGateway, mode.NoGateway, err
}

// CreateNetwork makes a network; for a shared mode it makes or joins the cluster's network of that name or those subnets.
// Made again with the same words it succeeds. On failure nothing is left, or goes as soon as that is possible.
func (d *Driver) CreateNetwork(ctx context.Context, r NetworkRequest) error {
	want, said, err := d.parseNetwork(r)
	if err != nil {
		return err
	}
	nw, known, err := d.enter(ctx, want)
	if err != nil {
		return err
	}
	defer nw.turn.give()
	if known {
		if !asked(nw.Network, want) {
			return fmt.Errorf("network %s is here with other options or subnets: %w", short(r.ID), ErrExists)
		}
		if err := nw.usable(); err != nil {
			return err
		}
		return d.set(ctx, nw)
	}
	making, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	if err := d.make(making, nw, said); err != nil {
		return errors.Join(err, d.undo(ctx, nw))
	}
	return nil
}

// enter returns the network of that identifier, with its turn, and whether it was there before. A new one has its claim.
// What is left of an older one, whose making or removal came to no end, goes first.
func (d *Driver) enter(ctx context.Context, want Network) (nw *network, known bool, err error) {
	nw, err = d.get(ctx, want.ID)
	if err == nil && nw.Half {
		err = d.remove(ctx, nw)
		nw.turn.give()
		if err != nil {
			return nil, false, fmt.Errorf("network %s: remove what is left of it: %w", short(want.ID), err)
		}
	} else if !errors.Is(err, ErrNotFound) {
		return nw, true, err
	}
	nw = newNetwork(want)
	if err := nw.take(ctx); err != nil { // nobody else has it yet: fails only if the caller is gone
		return nil, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.networks[want.ID] != nil {
		return nil, false, fmt.Errorf("network %s is being made by another call: %w", short(want.ID), ErrExists)
	}
	if err := d.claim(nw); err != nil {
		return nil, false, err
	}
	d.networks[want.ID] = nw
	return nw, false, nil
}

// claim takes the network's subnets and its place in the cluster, or says who has them on this host. d.mu is held.
func (d *Driver) claim(nw *network) error {
	mine := claimOf(nw.Network)
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

func claimOf(n Network) claim { return claim{shared: n.Shared, subnets: n.Prefixes()} }

// make does everything that a new network needs, intent first.
func (d *Driver) make(ctx context.Context, nw *network, said cluster.Network) error {
	if err := d.write(nw.Network); err != nil {
		return err
	}
	if err := d.open(ctx, nw); err != nil {
		return err
	}
	if nw.Shared != "" {
		if err := d.join(ctx, nw, said); err != nil {
			return err
		}
		if err := d.open(ctx, nw); err != nil { // with what the cluster has
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
	done := nw.Network
	done.Half = false
	if err := d.write(done); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // the engine has been told that it failed, and will never remove it
		return fmt.Errorf("network create: took too long: %w", err)
	}
	d.change(func() { nw.Network = done })
	return nil
}

func (d *Driver) write(n Network) error {
	record, err := put(networkKey(n.ID), n)
	if err != nil {
		return err
	}
	return d.Store.Apply(record)
}

// undo is the way back of CreateNetwork, also when the caller's time is over.
func (d *Driver) undo(ctx context.Context, nw *network) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	return d.delete(ctx, nw)
}

// DeleteNetwork removes a network and whatever endpoints the engine forgot to remove. An unknown one is gone already. The
// engine forgets the network whatever it is answered: what fails goes on without it.
func (d *Driver) DeleteNetwork(ctx context.Context, id string) error {
	nw, err := d.get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return d.removeLostNetwork(ctx, id)
	}
	if err != nil {
		return err
	}
	defer nw.turn.give()
	return d.delete(ctx, nw)
}

// delete removes a network and tells the cluster. The network's turn is held.
func (d *Driver) delete(ctx context.Context, nw *network) error {
	if err := d.remove(ctx, nw); err != nil {
		d.change(func() { nw.problem = err })
		return err
	}
	d.tellLeft(ctx, nw)
	return nil
}

// remove removes everything a network has, finished or half-made, intent first, and forgets it. The cluster hears of it
// later.
func (d *Driver) remove(ctx context.Context, nw *network) error {
	if !nw.Half {
		half := nw.Network
		half.Half = true
		d.change(func() { nw.Network = half })
	}
	if err := d.write(nw.Network); err != nil {
		return err
	}
	d.attend(nw, false)
	if err := d.removeEndpoints(ctx, nw, slices.Collect(maps.Values(nw.endpoints))); err != nil {
		return err
	}
	if err := d.removeLostEndpoints(ctx, nw.ID); err != nil {
		return err
	}
	if err := d.Kernel.Set(ctx, networkOwner(nw.ID), kernel.State{}); err != nil {
		return err
	}
	if nw.Ours {
		if err := d.Pools.Unbind(ctx, nw.ID); err != nil {
			return err
		}
	}
	if err := d.Store.Apply(store.Write{Key: networkKey(nw.ID)}); err != nil {
		return err
	}
	d.change(func() {
		nw.gone = true
		delete(d.networks, nw.ID)
		delete(d.claims, nw.ID)
	})
	return nil
}
