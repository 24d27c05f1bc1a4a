package ledger

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

const (
	// QuietTime is how long a block has to have been empty before it is given back: longer than the restart of a host with its
	// containers, which ask for what they had by `--ip`.
	QuietTime = 5 * time.Minute
	// maxGiven is how many blocks are given back with one transaction.
	maxGiven = 64
)

var errGivenUp = errors.New("it is in a block that this host is giving back")

// givenUp says whether a block is one that this host has given up. One that was granted anew since is not.
func (p *pool) givenUp(b cluster.Block) bool {
	rec, ok := p.given[b.Prefix]
	return ok && p.ours(b) && b.Index <= rec.Index
}

// leaving are the blocks that were given up and are still there in the view.
func (p *pool) leaving() []cluster.Block {
	if len(p.given) == 0 || p.stale {
		return nil
	}
	var all []cluster.Block
	for _, b := range p.blocks.All() {
		if p.givenUp(b) {
			all = append(all, b)
		}
	}
	return all
}

// look notes which blocks of a pool stand empty, and since when they do. An address that is handed out or comes back in
// between begins it anew (space.stir).
func (p *pool) look(at Moment, asking map[question]int) {
	p.refresh(at)
	before := p.space.quiet
	p.space.quiet, p.looked = nil, true
	if p.Shared == "" || p.stale || p.Since == unsettled {
		return
	}
	busy := p.busy(at, asking)
	all := p.blocks.All()
	for n, b := range all {
		if !p.Prefix.Contains(b.Prefix.Addr()) || !p.ours(b) || p.frozen(b) || p.givenUp(b) {
			continue // the first: a network of several subnets has blocks of each
		}
		if n+1 < len(all) && b.Prefix.Contains(all[n+1].Prefix.Addr()) { // of nested prefixes the longer one comes right after
			continue
		}
		if n, _ := slices.BinarySearchFunc(busy, b.Prefix.Addr(), netip.Addr.Compare); n < len(busy) && b.Prefix.Contains(busy[n]) {
			continue
		}
		since, known := before[b.Prefix]
		if !known {
			since = at.Now
		}
		if p.space.quiet == nil {
			p.space.quiet = map[netip.Prefix]time.Time{}
		}
		p.space.quiet[b.Prefix] = since
	}
}

// busy are the addresses that are handed out, rest or are asked for, sorted.
func (p *pool) busy(at Moment, asking map[question]int) []netip.Addr {
	busy := slices.AppendSeq(make([]netip.Addr, 0, len(p.space.leases)+len(p.space.freed)), maps.Keys(p.space.leases))
	if !flawed(flawRestingIsHandedBack) {
		for addr := range p.space.resting(at.Now) {
			busy = append(busy, addr)
		}
	}
	busy = slices.AppendSeq(busy, maps.Keys(p.excluded))
	for _, w := range at.View.Wants(p.Shared) {
		busy = append(busy, w.Addr)
	}
	for q := range asking {
		if q.shared == p.Shared {
			busy = append(busy, q.addr)
		}
	}
	slices.SortFunc(busy, netip.Addr.Compare)
	return busy
}

// surplus are the blocks that this host does not need: they stood empty long enough, and without them there is still so much
// left that the next claim is far away. The highest go first, since addresses are given from the lowest on.
func (l *Ledger) surplus(at Moment, p *pool) []cluster.Block {
	p.refresh(at)
	p.look(at, l.asking)
	r := p.rest()
	var all []cluster.Block
	for _, b := range slices.Backward(p.blocks.All()) {
		since, empty := p.space.quiet[b.Prefix]
		if empty && at.Now.Sub(since) >= l.patience(p, b) && len(all) < maxGiven && r.without(p, b) {
			all = append(all, b)
		}
	}
	return all
}

// patience is how long a block has to have been empty. Of some addresses nobody notes that they rest: those wait at least as long.
func (l *Ledger) patience(p *pool, b cluster.Block) time.Duration {
	n := p.space.part(b.Prefix.Addr())
	if noted := n >= 0 && !p.space.parts[n].vast(); noted || flawed(flawRestingIsHandedBack) {
		return l.quiet
	}
	return max(l.quiet, cooldown)
}

// rest is what a host has of a pool to hand out: blocks as they are claimed, and addresses.
type rest struct {
	blocks      int
	total, free uint64
}

func (p *pool) rest() *rest {
	var r rest
	for _, part := range p.space.parts {
		if part.prefix.Bits() == p.Subnet.BlockBits() {
			r.blocks++
		}
	}
	r.total, r.free = p.space.counts()
	return &r
}

// without takes a block out of the rest, if it may be missing. A block is claimed when less than half is free, so one is given back
// only if at least three quarters of the others are; of single addresses, if twice as many are as are kept in reserve. A single
// address of a subnet with larger blocks was asked for by name: it goes as soon as it is not the last one.
func (r *rest) without(p *pool, b cluster.Block) bool {
	n := p.space.part(b.Prefix.Addr())
	if n < 0 || p.space.parts[n].prefix != b.Prefix {
		return true // outside the range, or inside another block of this host
	}
	total, free := p.space.count(b.Prefix)
	next := rest{r.blocks, r.total - min(total, r.total), r.free - min(free, r.free)}
	single := p.Subnet.BlockBits() == b.Prefix.Addr().BitLen()
	var enough bool
	switch {
	case b.Prefix.Bits() != p.Subnet.BlockBits():
		enough = next.total > 0 && next.free >= next.total-next.total/2
	case single:
		next.blocks--
		enough = next.free >= 2*p.spare()
	default:
		next.blocks--
		enough = next.free >= next.total-next.total/4
	}
	if next.blocks == 0 && r.blocks > 0 || !enough && !flawed(flawNeededIsHandedBack) {
		return false
	}
	*r = next
	return true
}

// handBack gives back what a pool does not need, after a look at it: once the cluster has confirmed that it is there and nothing
// else has become of the blocks, it is on disk that nothing is given out of them any more, and only then the cluster is told.
// Whatever becomes of that proposal, they are not used again before the facts show a newer grant; until then it is repeated.
func (l *Ledger) handBack(at Moment, p *pool) Move {
	p.refresh(at)
	switch {
	case p.Shared == "" || p.Since == unsettled || p.stale || flawed(flawNeverHandedBack):
		return done(nil)
	case len(p.leaving()) > 0:
		return l.tellOff(at, p)
	case !p.looked || p.claiming:
		return done(nil)
	}
	blocks, shared := l.surplus(at, p), p.Shared
	p.looked = false
	if len(blocks) == 0 {
		return done(nil)
	}
	return Move{Kind: Ask, next: func(at Moment, disputed error) Move {
		if disputed != nil {
			return done(nil)
		}
		txn := cluster.PlanHandBack(at.View, shared, blocks)
		txn.Then = nil
		return propose(txn, func(at Moment, err error) Move {
			if err != nil || l.pools[p.ID] != p || p.Shared != shared {
				return done(nil) // the next look is soon enough
			}
			return l.giveUp(at, p, blocks)
		})
	}}
}

// giveUp writes down which of some blocks this host will not use any more: those that are still not needed.
func (l *Ledger) giveUp(at Moment, p *pool, blocks []cluster.Block) Move {
	still := slices.DeleteFunc(l.surplus(at, p), func(b cluster.Block) bool { return !slices.Contains(blocks, b) })
	p.looked = false
	if len(still) == 0 || p.stale || p.claiming {
		return done(nil)
	}
	given := maps.Clone(p.given)
	var all []store.Write
	for _, b := range still {
		rec := givenRecord{Version: recordVersion, Pool: p.ID, Prefix: b.Prefix, Index: b.Index}
		given[b.Prefix] = rec
		if !flawed(flawGivenUpNotOnDisk) {
			all = append(all, putGiven(rec))
		}
	}
	return write(all, func(at Moment) Move {
		p.given, p.known = given, false
		p.refresh(at)
		return l.tellOff(at, p)
	})
}

// tellOff tells the cluster which blocks were given up.
func (l *Ledger) tellOff(at Moment, p *pool) Move {
	shared, blocks := p.Shared, p.leaving()
	return agree(at, func(at Moment) (cluster.Txn, error) {
		return cluster.PlanHandBack(at.View, shared, blocks), nil
	}, func(at Moment, err error) Move {
		if err != nil {
			return done(fmt.Errorf("%s: give back blocks: %w", p.label(), err))
		}
		var back []string
		for _, b := range blocks {
			if now, there := at.View.Owner(shared, b.Prefix.Addr()); !there || now.Node != at.Self { // else it was reclaimed
				back = append(back, b.Prefix.String())
			}
		}
		l.note("gave back blocks that are not needed here", nil, map[string]any{"subnet": p.Prefix, "blocks": back})
		return done(nil)
	})
}

// reclaim has blocks granted anew that were given up, and are still there because the answer was lost.
func (p *pool) reclaim(at Moment, b cluster.Block, after func(Moment, error) Move) Move {
	shared := p.Shared
	if flawed(flawReclaimedByItself) {
		delete(p.given, b.Prefix)
		p.known = false
		return after(at, nil)
	}
	return agree(at, func(at Moment) (cluster.Txn, error) { return cluster.PlanReclaim(at.View, shared, b) }, after)
}

// reclaimable is a block that was given up, would be claimed if it were nobody's, and is still there.
func (p *pool) reclaimable(at Moment) (cluster.Block, bool) {
	p.refresh(at)
	for _, b := range p.leaving() {
		if b.Prefix.Bits() == p.Subnet.BlockBits() && p.rangeOf().Contains(b.Prefix.Addr()) {
			return b, true
		}
	}
	return cluster.Block{}, false
}

// keepReceipts forgets that blocks were given up which this host has had granted anew. For others it has to be remembered
// as long as the host has the network: the facts may be older after a start.
func (p *pool) keepReceipts(Moment) Move {
	var again []netip.Prefix
	var all []store.Write
	for _, prefix := range slices.SortedFunc(maps.Keys(p.given), comparePrefixes) {
		if r, ok := p.receipts[prefix]; ok && r.Index > p.given[prefix].Index {
			again, all = append(again, prefix), append(all, deletion(givenKey(p.ID, prefix)))
		}
	}
	if len(again) == 0 {
		return done(nil)
	}
	return write(all, func(Moment) Move {
		for _, prefix := range again {
			delete(p.given, prefix)
		}
		return done(nil)
	})
}
