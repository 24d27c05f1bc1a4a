package ipam

import (
	"context"
	"fmt"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
	"github.com/carricknet/carrick/store"
)

const (
	// lookEvery is how often a waiting request looks by itself.
	lookEvery = 100 * time.Millisecond
	// withdrawTime bounds what is proposed although the time of its call is over.
	withdrawTime = 2 * time.Second
	// retryEvery is after how long what the cluster refused, or the disk, is tried again.
	retryEvery = time.Second
)

// do takes a call to its end: what the ledger asks for is done, and it is told.
func (i *IPAM) do(ctx context.Context, call func(ledger.Moment) ledger.Move) (ledger.Answer, error) {
	var wake <-chan struct{}
	i.mu.Lock()
	defer i.mu.Unlock()
	move := call(i.moment())
	for {
		i.log()
		switch move.Kind {
		case ledger.Done:
			return move.Answer, move.Err
		case ledger.Write:
			err := i.write(move)
			move = move.Next(i.moment(), err)
		case ledger.Propose:
			view, err := i.propose(ctx, move)
			at := i.moment()
			if err == nil && at.View.Index() < view.Index() {
				at.View = view
			}
			move = move.Next(at, err)
		case ledger.Ask:
			i.mu.Unlock()
			err := i.config.Cluster.Undisputed(ctx)
			i.mu.Lock()
			move = move.Next(i.moment(), err)
		case ledger.Wait:
			if wake == nil {
				var stop func()
				wake, stop = i.config.Cluster.Watch()
				defer stop()
			}
			err := i.wait(ctx, wake)
			move = move.Next(i.moment(), err)
		default:
			return ledger.Answer{}, fmt.Errorf("the ledger asks for what is not known here: %d", move.Kind)
		}
	}
}

// write is one transaction of the store. i.mu is held.
func (i *IPAM) write(move ledger.Move) error {
	writes := move.Writes
	for _, below := range move.Drop {
		for key := range i.config.Store.Prefix(below) {
			writes = append(writes, store.Write{Key: key})
		}
	}
	return i.config.Store.Apply(writes...)
}

// propose is one transaction of the cluster. i.mu is held when it is called, and when it returns.
func (i *IPAM) propose(ctx context.Context, move ledger.Move) (cluster.View, error) {
	i.mu.Unlock()
	defer i.mu.Lock()
	if move.Late {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
		defer cancel()
	}
	return i.config.Cluster.Propose(ctx, move.Txn)
}

// wait waits for a change, or a moment. i.mu is held when it is called, and when it returns.
func (i *IPAM) wait(ctx context.Context, wake <-chan struct{}) error {
	i.mu.Unlock()
	defer i.mu.Lock()
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// log writes what the ledger has to say. i.mu is held.
func (i *IPAM) log() {
	for _, n := range i.ledger.Notes() {
		entry := i.config.Logger.WithFields(n.Fields)
		if n.Err != nil {
			entry.WithError(n.Err).Warn(n.Text)
			continue
		}
		entry.Info(n.Text)
	}
}

// Run claims blocks ahead, answers other hosts, tells them what this one uses, and releases what was never used, until ctx ends.
func (i *IPAM) Run(ctx context.Context) error {
	var wake <-chan struct{}
	if i.config.Cluster != nil {
		var stop func()
		wake, stop = i.config.Cluster.Watch()
		defer stop()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	swept := i.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-i.used:
		case <-timer.C:
		}
		again := ledger.SweepEvery
		if i.now().Sub(swept) >= ledger.SweepEvery {
			swept = i.now()
			if err := i.sweep(ctx); err != nil {
				i.config.Logger.WithError(err).Error("leases that nobody uses cannot be released")
			}
		}
		if err := i.keep(ctx); err != nil && ctx.Err() == nil {
			again = retryEvery
			i.config.Logger.WithError(err).Debug("address blocks are not as they should be; trying again")
		}
		if err := i.occupy(ctx); err != nil && ctx.Err() == nil {
			i.config.Logger.WithError(err).Debug("the others cannot be told which addresses this host uses; trying again")
		}
		timer.Reset(again)
	}
}

func (i *IPAM) sweep(ctx context.Context) error {
	_, err := i.do(ctx, i.ledger.Sweep)
	return err
}

func (i *IPAM) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ledger.AnswerTime)
	defer cancel()
	_, err := i.do(ctx, i.ledger.Keep)
	return err
}
