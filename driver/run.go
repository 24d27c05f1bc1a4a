package driver

import (
	"context"
	"time"
)

const (
	// batch is how long a change waits for others: short beside the 60 ms gossip takes, long enough that ten thousand
	// records arriving one by one cost twenty passes a second at most.
	batch = 50 * time.Millisecond
	// retry is after how long a network that the kernel refused is tried again.
	retry = time.Second
	// audit is how often everything is compared although nothing seems to have changed: someone may have removed an
	// entry behind our back.
	audit = time.Minute
	// sweepEvery and sweepGrace: an endpoint is dead when its devices were missing, or not taken by the engine, at every
	// look for that long. Between CreateEndpoint and the moment the engine takes the device lie seconds at most, even
	// on engines that make the sandbox afterwards.
	sweepEvery = 15 * time.Second
	sweepGrace = time.Minute
)

// suspect is an endpoint that seems dead.
type suspect struct {
	since  time.Time
	reason string
}

// Run keeps the kernel in step with what other hosts say, repairs what others changed, removes endpoints whose containers
// are gone without a word, and tells the cluster what it could not be told before. wake says that records have changed.
func (d *Driver) Run(ctx context.Context, wake <-chan struct{}) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	timer := time.NewTimer(audit)
	defer timer.Stop()
	waiting := false // the timer runs for a batch and is not to be put off by the next wake
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			if !waiting {
				timer.Reset(batch)
				waiting = true
			}
		case <-timer.C:
			waiting = false
			timer.Reset(d.reconcile(ctx))
		case now := <-sweep.C:
			d.sweep(ctx, now)
			d.leaveAll(ctx)
		}
	}
}

// reconcile brings every network in step and says after how long to look again if nothing happens.
func (d *Driver) reconcile(ctx context.Context) time.Duration {
	again := audit
	for _, nw := range d.all() {
		nw.mu.Lock()
		if nw.plan == nil && !nw.gone {
			d.open(ctx, nw)
		}
		if !nw.gone && !nw.Making {
			d.keep(ctx, nw)
		}
		if nw.problem != nil {
			again = retry
		}
		nw.mu.Unlock()
	}
	return again
}

// sweep removes the endpoints whose containers are gone although the engine never said so: it was killed between its
// calls, or lost its own records. A device that went into a sandbox is gone with it.
func (d *Driver) sweep(ctx context.Context, now time.Time) {
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
		nw.mu.Lock()
		if nw.plan != nil && !nw.gone {
			d.sweepNetwork(ctx, nw, waiting, now)
		}
		nw.mu.Unlock()
	}
}

func (d *Driver) sweepNetwork(ctx context.Context, nw *network, waiting map[string]bool, now time.Time) {
	if nw.suspects == nil {
		nw.suspects = map[string]suspect{}
	}
	for id, e := range nw.endpoints {
		state, _ := nw.plan.Endpoint(e)
		waits, there := waiting[endpointOwner(id)]
		reason := ""
		switch {
		case len(state.Links) == 0: // mode none: nothing to see it by
		case !there:
			reason = "its devices are gone"
		case waits:
			reason = "the engine never took its device, or gave it back"
		}
		was, suspected := nw.suspects[id]
		switch {
		case reason == "":
			delete(nw.suspects, id)
		case !suspected || was.reason != reason:
			nw.suspects[id] = suspect{since: now, reason: reason}
		case now.Sub(was.since) >= sweepGrace:
			if err := d.removeEndpoint(ctx, nw, e); err != nil {
				d.log(nw.ID).WithError(err).WithField("endpoint", short(id)).Error("a dead endpoint cannot be removed; trying again")
				continue
			}
			d.log(nw.ID).WithField("endpoint", short(id)).Warnf("removed an endpoint whose container is gone: %s", reason)
		}
	}
}

// leaveAll tells the cluster of every network that left this host while there was no quorum.
func (d *Driver) leaveAll(ctx context.Context) {
	var shared []string
	for key := range d.Store.Prefix(leavingKey("")) {
		shared = append(shared, key[len(leavingKey("")):])
	}
	for _, id := range shared {
		ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
		d.leave(ctx, id)
		cancel()
	}
}
