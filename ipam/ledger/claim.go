package ledger

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// fullFor is how long no block is claimed ahead after there was none.
	fullFor = 60 * time.Second
	// maxSpare is how many unused addresses a host keeps where blocks are single addresses, and spareShare bounds it to a
	// part of all, for the other hosts want some too.
	maxSpare   = 4
	spareShare = 8
)

// claim makes one more block of a network ours. At most one claim per pool is under way; who comes second finds what the first
// has claimed.
func (l *Ledger) claim(at Moment, p *pool, after func(Moment, error) Move) Move {
	if p.claiming {
		return wait(func(at Moment, err error) Move {
			if err != nil {
				return after(at, fmt.Errorf("waiting for a block to be claimed: %w", err))
			}
			p.refresh(at)
			if _, there := p.space.pick(at.Now, at.Seed); there || l.pools[p.ID] != p || p.Shared == "" {
				return after(at, nil)
			}
			return l.claim(at, p, after)
		})
	}
	p.claiming = true
	finish := func(at Moment, err error) Move {
		p.claiming = err != nil && flawed(flawClaimsForEver)
		return after(at, err)
	}
	if b, ok := p.reclaimable(at); ok {
		return p.reclaim(at, b, finish)
	}
	shared, subnet := p.Shared, p.Subnet
	return agree(at, func(at Moment) (cluster.Txn, error) {
		_, txn, err := cluster.PlanClaim(at.View, shared, subnet, at.Self)
		return txn, err
	}, finish)
}

// claimOf makes the block around an address ours, if it is still nobody's.
func (p *pool) claimOf(at Moment, addr netip.Addr, after func(Moment, error) Move) Move {
	shared, subnet := p.Shared, p.Subnet
	return agree(at, func(at Moment) (cluster.Txn, error) {
		_, txn, err := cluster.PlanClaimOf(at.View, shared, subnet, addr, at.Self)
		return txn, err
	}, after)
}

// claimAhead keeps a spare block for a network, so that containers start when nobody can be asked.
func (l *Ledger) claimAhead(at Moment, p *pool) Move {
	if p.refresh(at); !p.mayClaim(at) {
		return done(nil)
	}
	return l.claim(at, p, func(at Moment, err error) Move {
		if isNoQuorum(err) {
			return done(err)
		}
		p.fullAt = time.Time{}
		if err != nil {
			p.fullAt = at.Now
		}
		l.setAlarm(p.ID, "full", err)
		return done(nil)
	})
}

// mayClaim says whether it is time to claim ahead. The pool is refreshed.
func (p *pool) mayClaim(at Moment) bool {
	full := !p.fullAt.IsZero() && at.Now.Sub(p.fullAt) < fullFor
	return p.Shared != "" && !p.stale && !full && !p.claiming && p.needsBlock()
}

// needsBlock says whether less than half of what is ours is free; of single addresses, whether less than a few are.
func (p *pool) needsBlock() bool {
	total, free := p.space.counts()
	if p.Subnet.BlockBits() < p.Prefix.Addr().BitLen() {
		return 2*free < total || total == 0
	}
	return free < p.spare()
}

// spare is how many single addresses a host keeps in reserve.
func (p *pool) spare() uint64 {
	return min(maxSpare, max(1, usable(p.space.subnet, p.rangeOf())/spareShare))
}
