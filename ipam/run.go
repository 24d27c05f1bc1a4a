package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// sweepEvery is how often leases that nobody uses are looked for, and everything is done that nobody woke us for.
	sweepEvery = 15 * time.Second
	// sweepGrace is how long a lease may wait for its endpoint. Docker creates it within seconds.
	sweepGrace = 60 * time.Second
	// retryEvery is after how long what the cluster refused, or the disk, is tried again.
	retryEvery = time.Second
	// fullFor is how long no block is claimed ahead after there was none.
	fullFor = 60 * time.Second
	// maxSpare is how many unused addresses a host keeps where blocks are single addresses, and spareShare bounds it to a
	// part of all, for the other hosts want some too.
	maxSpare   = 4
	spareShare = 8
)

// Run claims blocks ahead, answers other hosts, and releases what was never used, until ctx ends.
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
		again := sweepEvery
		if i.now().Sub(swept) >= sweepEvery {
			swept = i.now()
			if err := i.sweep(); err != nil {
				i.config.Logger.WithError(err).Error("leases that nobody uses cannot be released")
			}
		}
		if err := i.keep(ctx); err != nil && ctx.Err() == nil {
			again = retryEvery
			i.config.Logger.WithError(err).Debug("address blocks are not as they should be; trying again")
		}
		timer.Reset(again)
	}
}

// keep does everything that is due between this host and the others.
func (i *IPAM) keep(ctx context.Context) error {
	if i.config.Cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return errors.Join(i.takeBack(), i.answerWants(ctx), i.claimAhead(ctx))
}

// claimAhead keeps a spare block for every network, so that containers start when nobody can be asked.
func (i *IPAM) claimAhead(ctx context.Context) error {
	i.mu.Lock()
	var short []*pool
	var records []poolRecord
	for _, p := range i.ordered() {
		i.refresh(p)
		full := !p.fullAt.IsZero() && i.now().Sub(p.fullAt) < fullFor
		if p.Shared != "" && !p.stale && !full && p.needsBlock() {
			short, records = append(short, p), append(records, p.poolRecord)
		}
	}
	i.mu.Unlock()
	for n, p := range short {
		select {
		case p.claims <- struct{}{}:
		default:
			continue // a request is claiming one
		}
		_, err := cluster.ClaimBlock(ctx, i.config.Cluster, records[n].Shared, records[n].Subnet)
		<-p.claims
		if errors.Is(err, cluster.ErrNoQuorum) {
			return err
		}
		i.mu.Lock()
		p.fullAt = time.Time{}
		if err != nil {
			p.fullAt = i.now()
		}
		i.setAlarm(p.ID, "full", err)
		i.mu.Unlock()
	}
	return nil
}

// needsBlock says whether less than half of what is ours is free; of single addresses, whether less than a few are.
func (p *pool) needsBlock() bool {
	total, free := p.space.counts()
	if p.Subnet.BlockBits() < p.Prefix.Addr().BitLen() {
		return 2*free < total || total == 0
	}
	usable, _ := p.space.count(p.rangeOf())
	return free < min(maxSpare, max(1, usable/spareShare))
}

// sweep releases leases of networks whose endpoint never came, or went without a release: when they were idle for too long
// at two looks. In pools of other drivers nobody says what is in use, so there nothing is swept.
func (i *IPAM) sweep() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.ordered() {
		var idle []netip.Addr
		for addr, l := range p.space.leases {
			switch {
			case p.Network == "" || l.Endpoint != "" || i.now().Sub(l.idle) < sweepGrace:
				l.suspect = false
			case !l.suspect:
				l.suspect = true
			default:
				idle = append(idle, addr)
			}
		}
		if len(idle) == 0 {
			continue
		}
		if err := i.free(p, idle...); err != nil {
			return fmt.Errorf("%s: %w", p.label(), err)
		}
		i.config.Logger.WithField("subnet", p.Prefix).WithField("addresses", idle).
			Info("released addresses whose containers never came, or are gone without a word")
	}
	return nil
}
