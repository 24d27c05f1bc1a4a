package driver

import (
	"context"
	"sync"
	"time"
)

const (
	// batch is how long after a pass the next one comes at the earliest, if there are changes all the time: ten thousand
	// records arriving one by one cost twenty passes a second at most. A single change does not wait.
	batch = 50 * time.Millisecond
	// retry is after how long a network that the kernel refused is tried again.
	retry = time.Second
	// audit is how often everything is compared although nothing seems to have changed: someone may have removed an
	// entry behind our back.
	audit = time.Minute
	// busyLimit is how long a pass waits for a network that somebody is at work on: long for what the kernel does, short
	// for the other networks. The calls that take longer wait for the cluster.
	busyLimit = 200 * time.Millisecond
)

// Run keeps the kernel in step with what other hosts say, repairs what others changed, removes endpoints whose containers
// are gone without a word, and tells the cluster what it could not be told before. wake says that records have changed.
func (d *Driver) Run(ctx context.Context, wake <-chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.hear(ctx) })
	wg.Go(func() { d.rebindAll(ctx) })
	wg.Go(func() { every(ctx, sweepEvery, nil, d.sweep) })
	wg.Go(func() { // the cluster may take its time
		d.leaveAll(ctx)
		every(ctx, leaveEvery, d.left, d.leaveAll)
	})
	again, all := time.NewTicker(retry), time.NewTicker(audit)
	defer again.Stop()
	defer all.Stop()
	var changed <-chan time.Time // fires when the next pass may come
	var passed time.Time         // when the last one ended
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			if changed == nil {
				changed = time.After(batch - time.Since(passed))
			}
		case <-changed:
			_ = d.keepGuard(ctx, false) // its failures are alarms, and so they are below
			d.reconcile(ctx, d.stale())
			changed, passed = nil, time.Now()
		case <-all.C:
			_ = d.keepGuard(ctx, true)
			d.reconcile(ctx, func(*network) bool { return true })
		case <-again.C:
			_ = d.keepGuard(ctx, false)
			d.reconcile(ctx, func(nw *network) bool { return nw.missed || nw.problem != nil })
		}
	}
}

// every does something again and again, and when it is woken.
func every(ctx context.Context, period time.Duration, wake <-chan struct{}, do func(context.Context)) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-ticker.C:
		}
		do(ctx)
	}
}

// reconcile brings the networks in step that are due. One that somebody is at work on comes later.
func (d *Driver) reconcile(ctx context.Context, due func(*network) bool) {
	for _, nw := range d.due(due) {
		nw.missed = !nw.tryTake(ctx)
		if !nw.missed {
			d.keep(ctx, nw)
			nw.turn.give()
		}
	}
}

// basis is what the kernel's state of a network was made from, besides what the network is and has. The zero basis is that of
// no state.
type basis struct {
	made           bool
	records, facts uint64 // revision and index
}

func (d *Driver) basis(shared string) basis {
	b := basis{made: true}
	if shared != "" && d.Records != nil {
		b.records = d.Records.Revision(shared)
	}
	if shared != "" && d.Facts != nil {
		b.facts = d.Facts.View().Index()
	}
	return b
}

// stale tells which networks have to be looked at after a change: of a hundred networks with a thousand endpoints each, one
// has changed usually.
func (d *Driver) stale() func(*network) bool {
	now := map[*network]basis{}
	shared := map[*network]string{}
	d.mu.Lock()
	for _, nw := range d.networks {
		shared[nw] = nw.Shared
	}
	d.mu.Unlock()
	for nw, id := range shared {
		now[nw] = d.basis(id)
	}
	return func(nw *network) bool { return nw.missed || nw.problem != nil || nw.from != now[nw] }
}

// due are the networks that are; those whose making is under way are not.
func (d *Driver) due(due func(*network) bool) []*network {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*network
	for _, nw := range d.networks {
		if due(nw) && (!nw.Half || nw.problem != nil) {
			all = append(all, nw)
		}
	}
	return all
}

// tryTake takes the turn, unless that takes long.
func (nw *network) tryTake(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, busyLimit)
	defer cancel()
	return nw.turn.take(ctx) == nil
}
