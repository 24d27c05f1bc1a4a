package driver

import (
	"context"
	"time"

	"github.com/carricknet/carrick/kernel"
)

// An endpoint is dead when it seemed so at several looks, one after the other. Looks are counted rather than time: a host
// that was paused or stood under load has not looked, and its engine has had no time either.
const (
	sweepEvery = 15 * time.Second
	// goneLooks: the devices of a container that lives do not come and go. A minute, for whatever has not been thought of.
	goneLooks = 5
	// waitingLooks: engines up to 27 take the device when the container's process is made, after its volumes are
	// mounted; a server of NFS that does not answer holds that up for a minute and more. Two minutes.
	waitingLooks = 8
)

// sweep removes the endpoints whose containers are gone although the engine never said so: it was killed between its
// calls, or lost its own records. A device that went into a sandbox is gone with it.
func (d *Driver) sweep(ctx context.Context) {
	owned, err := d.Kernel.Owners(ctx)
	if err != nil {
		d.Logger.WithError(err).Warn("what the kernel holds of ours cannot be listed; dead endpoints are looked for later")
		return
	}
	waiting := map[string]bool{} // owner -> its container end is in the host's namespace
	for _, o := range owned {
		waiting[o.Owner] = o.Waiting
	}
	for _, nw := range d.all() {
		if !nw.tryTake(ctx) {
			continue // somebody is at work on it: it is looked at the next time
		}
		if nw.plan != nil && !nw.gone {
			d.sweepNetwork(ctx, nw, waiting)
		}
		nw.turn.give()
	}
}

func (d *Driver) sweepNetwork(ctx context.Context, nw *network, waiting map[string]bool) {
	for id, e := range nw.endpoints {
		state, _ := nw.plan.Endpoint(e)
		waits, there := waiting[endpointOwner(id)]
		reason, looks := "", 0
		switch {
		case e.Half:
			reason, looks = "it was never finished", 1
		case len(state.Links) == 0: // mode none: nothing to see it by
		case !there:
			reason, looks = "its devices are gone", goneLooks
		case waits:
			reason, looks = "the engine never took its device, or gave it back", waitingLooks
		}
		if there && nw.adopted[id] {
			d.adopt(ctx, nw, id, state)
		}
		if reason == "" {
			delete(nw.suspects, id)
			continue
		}
		if nw.suspects[id]++; nw.suspects[id] < looks {
			continue
		}
		if err := d.removeEndpoint(ctx, nw, e); err != nil {
			d.log(nw.ID).WithError(err).WithField("endpoint", short(id)).Error("a dead endpoint cannot be removed; trying again")
			continue
		}
		d.log(nw.ID).WithField("endpoint", short(id)).Warnf("removed an endpoint whose container is gone: %s", reason)
	}
}

// adopt tells the kernel once, after a start, what an endpoint has: from then on it is kept so. One whose devices are gone is not
// made anew, since its container has no end of the new ones.
func (d *Driver) adopt(ctx context.Context, nw *network, id string, state kernel.State) {
	delete(nw.adopted, id)
	if err := d.Kernel.Set(ctx, endpointOwner(id), state); err != nil {
		d.log(nw.ID).WithError(err).WithField("endpoint", short(id)).Warn("what the endpoint has is not as it should be")
	}
}
