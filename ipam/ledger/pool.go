package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// pool is one pool with what is handed out of it.
type pool struct {
	poolRecord
	space    *space
	serial   uint64
	made     time.Time
	asked    int  // times that a chosen subnet was asked for again
	claiming bool // a block is being claimed
	rests    map[netip.Addr]bool
	names    names // of containers that are gone

	// What the facts say of a network of the cluster, as of the view with this index.
	viewed uint64
	stale  bool // the view is older than the binding
	known  bool // there was a view
	noted  bool // the receipts are as it says
	joined bool
	self   string
	blocks cluster.Owners
	// excluded are addresses of ours that are given, or being given, to other hosts.
	excluded map[netip.Addr]carveRecord
	receipts map[netip.Prefix]blockRecord
	given    map[netip.Prefix]givenRecord // blocks that were given up
	looked   bool                         // for blocks that are not needed, and nothing was done about it yet
	fullAt   time.Time                    // when no block could be claimed ahead
}

func newPool(rec poolRecord) *pool {
	p := &pool{
		poolRecord: rec, names: newNames(), rests: map[netip.Addr]bool{}, excluded: map[netip.Addr]carveRecord{},
		receipts: map[netip.Prefix]blockRecord{}, given: map[netip.Prefix]givenRecord{},
	}
	p.space = newSpace(p.subnet())
	return p
}

// adopt takes over a record that is on disk.
func (p *pool) adopt(rec poolRecord, at Moment) {
	p.poolRecord = rec
	p.space.subnet = p.subnet()
	p.known = false
	p.refresh(at)
}

// refresh brings what a pool knows of its blocks up to the facts.
func (p *pool) refresh(at Moment) {
	switch {
	case p.known && (p.Shared == "" || p.joined == at.Joined && p.self == at.Self && p.viewed == at.View.Index()):
		return
	case p.Shared == "":
		p.known = true
		p.space.setParts([]netip.Prefix{p.rangeOf()}, nil, at.Now)
		return
	case p.known && at.Joined && p.joined && p.self == at.Self && !p.stale && p.viewed <= at.View.Index() &&
		at.View.Changed("block/"+p.Shared) <= p.viewed:
		p.viewed = at.View.Index() // others have changed something
		return
	}
	p.known, p.noted, p.joined, p.viewed, p.self = true, false, at.Joined, at.View.Index(), at.Self
	if !at.Joined { // SECRET was taken away: whose addresses are whose is not known
		p.stale, p.blocks = true, cluster.Owners{}
		p.space.setParts(nil, nil, at.Now)
		return
	}
	p.stale = at.View.Index() < p.Since && !flawed(flawStaleIsFresh)
	p.blocks = p.believed(at.View)
	var parts []netip.Prefix
	for _, b := range p.blocks.All() {
		inRange := p.rangeOf().Contains(b.Prefix.Addr()) && b.Prefix.Bits() >= p.rangeOf().Bits()
		ours := p.ours(b) && !p.frozen(b) && (!p.givenUp(b) || flawed(flawGivenUpIsUsed))
		if (inRange || flawed(flawRangeIsIgnored)) && ours && (len(parts) == 0 || !parts[len(parts)-1].Overlaps(b.Prefix)) {
			parts = append(parts, b.Prefix)
		}
	}
	p.space.setParts(parts, p.barred(), at.Now)
}

// believed are the blocks that a view shows, and those of ours that it is too old to show. A view from before the binding
// shows nothing that counts.
func (p *pool) believed(view cluster.View) cluster.Owners {
	var shown cluster.Owners
	if !p.stale {
		shown = view.Owners(p.Shared)
	}
	more := map[netip.Prefix]cluster.Block{}
	for _, prefix := range slices.SortedFunc(maps.Keys(p.receipts), comparePrefixes) {
		r := p.receipts[prefix]
		if !p.stale && r.Index <= view.Index() || r.Node != "" && r.Node != p.self && !flawed(flawOldIdentity) {
			continue
		}
		more[prefix] = cluster.Block{Prefix: prefix, Node: p.self, Index: r.Index}
		for _, addr := range r.Carved {
			single := netip.PrefixFrom(addr, addr.BitLen())
			if have, ok := shown.Block(addr); !ok || have.Prefix != single {
				more[single] = cluster.Block{Prefix: single}
			}
		}
	}
	if len(more) == 0 {
		return shown
	}
	for _, b := range shown.All() {
		if _, there := more[b.Prefix]; !there {
			more[b.Prefix] = b
		}
	}
	return cluster.OwnersOf(slices.Collect(maps.Values(more)))
}

// receipts is how a pool's receipts change: what is new or another, and what is no longer ours.
type receipts struct {
	put  []blockRecord
	gone []netip.Prefix
}

// receipt is how a pool's receipts have to change, by the facts, and the writes that make them so.
func (p *pool) receipt() ([]store.Write, receipts) {
	var change receipts
	if p.stale || p.Shared == "" || !p.known || p.noted {
		return nil, change
	}
	var all []store.Write
	blocks, there := p.blocks.All(), 0
	for n, b := range blocks {
		if !p.ours(b) {
			continue
		}
		rec := blockRecord{Version: recordVersion, Pool: p.ID, Prefix: b.Prefix, Node: p.self, Index: b.Index}
		for _, inside := range blocks[n+1:] { // what lies in a block follows it
			if !b.Prefix.Contains(inside.Prefix.Addr()) {
				break
			}
			if inside.Prefix.IsSingleIP() && !p.ours(inside) {
				rec.Carved = append(rec.Carved, inside.Prefix.Addr())
			}
		}
		have, ok := p.receipts[b.Prefix]
		if ok {
			there++
		}
		if !ok || have.Index != rec.Index || have.Node != rec.Node || !slices.Equal(have.Carved, rec.Carved) {
			all, change.put = append(all, putBlock(rec)), append(change.put, rec)
		}
	}
	if there == len(p.receipts) {
		return all, change
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(p.receipts), comparePrefixes) {
		if b, ok := p.blocks.Get(prefix); !ok || !p.ours(b) {
			all, change.gone = append(all, deletion(blockKey(p.ID, prefix))), append(change.gone, prefix)
		}
	}
	return all, change
}

// note takes over what has been written of a pool's receipts.
func (p *pool) note(change receipts) {
	for _, rec := range change.put {
		p.receipts[rec.Prefix] = rec
	}
	for _, prefix := range change.gone {
		delete(p.receipts, prefix)
	}
	p.noted = p.known
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits())
}

func (p *pool) ours(b cluster.Block) bool   { return b.Node == p.self && p.self != "" }
func (p *pool) frozen(b cluster.Block) bool { return b.Index <= p.Frozen }

// barred are the addresses that lie in blocks of ours and are not ours to give.
func (p *pool) barred() map[netip.Addr]bool {
	var barred map[netip.Addr]bool
	bar := func(addr netip.Addr, is bool) {
		if barred == nil {
			barred = map[netip.Addr]bool{}
		}
		barred[addr] = is
	}
	for _, b := range p.blocks.All() {
		if b.Prefix.IsSingleIP() && (!p.ours(b) || p.frozen(b) || p.givenUp(b)) && !flawed(flawCarvedIsGiven) {
			bar(b.Prefix.Addr(), true)
		}
	}
	for addr := range p.excluded {
		bar(addr, !flawed(flawExcludedIsGiven))
	}
	return barred
}

// owner is the longest block around an address.
func (p *pool) owner(addr netip.Addr) (cluster.Block, bool) { return p.blocks.Block(addr) }

// mayGive says why an address that is asked for is not ours to give; nil: it is. The pool is refreshed.
func (p *pool) mayGive(addr netip.Addr) error {
	if p.Shared == "" {
		return nil
	}
	owner, found := p.owner(addr)
	_, excluded := p.excluded[addr]
	switch {
	case p.stale && (!found || !p.ours(owner)):
		return p.staleError()
	case !found:
		return errNobodys
	case !p.ours(owner) && !flawed(flawExplicitIsOthers):
		return errOthers
	case p.givenUp(owner) && !flawed(flawGivenUpIsUsed):
		return errGivenUp
	case excluded:
		return fmt.Errorf("address %s is being given to another host that asked for it", addr)
	case p.frozen(owner):
		return fmt.Errorf("address %s is in block %s, which is frozen: what was handed out of it was lost with a damaged or older store. "+
			"Remove the network from this host and create it again", addr, owner.Prefix)
	}
	return nil
}

func (p *pool) staleError() error {
	if !p.joined {
		return fmt.Errorf("%s belongs to a network of a cluster, and this host is in none: SECRET is not set", p.label())
	}
	if p.Since == unsettled {
		return noQuorum("%s: it is not known yet what of it is this host's: waiting for the cluster", p.label())
	}
	return noQuorum("%s: what this host knows of the cluster (log entry %d) is older than its own part in the network (%d): "+
		"waiting for the cluster", p.label(), p.viewed, p.Since)
}

// usedHere is how many addresses of a pool are handed out on this host.
func (p *pool) usedHere() int { return len(p.space.leases) }
