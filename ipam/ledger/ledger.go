package ledger

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// Address spaces. Docker's engine asks in the local one; a Swarm manager asks in the global one.
const (
	LocalSpace  = "carrick"
	GlobalSpace = "carrick-global"
)

// AnswerTime bounds what waits for the cluster. The engine waits up to 30 s, and is told sooner.
const AnswerTime = 8 * time.Second

// Ledger is what this host has handed out and what it may hand out. It is to be used by one goroutine at a time.
type Ledger struct {
	ranges  []netip.Prefix // POOLS
	quiet   time.Duration  // how long a block has to have been empty before it is given back
	damaged bool           // the store was found damaged once
	began   time.Time

	pools  map[string]*pool
	order  []*pool           // the same by their identifiers; nil: to be made
	serial uint64            // of RequestPool, so that the newest of two provisional pools is known
	alarms map[string]string // pool id and kind -> sentence
	asking map[question]int  // requests that wait for its answer
	notes  []Note

	occupied occupied
}

// Note is a line for the log.
type Note struct {
	Text   string
	Fields map[string]any
	Err    error // it is a warning, for this reason; nil: it is worth knowing
}

// New reads what the store has, which read yields by the beginnings of keys. ranges are where subnets are chosen from, quiet is how
// long a block has to have been empty before it is given back (QuietTime). It fails only if a newer version has written the store.
func New(read func(prefix string) iter.Seq2[string, []byte], ranges []netip.Prefix, quiet time.Duration, at Moment) (*Ledger, error) {
	l := &Ledger{ranges: ranges, quiet: quiet, began: at.Now, pools: map[string]*pool{}, alarms: map[string]string{}, asking: map[question]int{}}
	for range read(KeyDamaged) {
		l.damaged = true
	}
	if err := l.load(read, at); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	return l, nil
}

func (l *Ledger) load(read func(prefix string) iter.Seq2[string, []byte], at Moment) error {
	var leases []leaseRecord
	var rests []restRecord
	nexts := map[string]map[netip.Prefix]netip.Addr{}
	err := errors.Join(
		each(read(belowPool), func(rec poolRecord) {
			l.set(rec.ID, newPool(rec))
			nexts[rec.ID] = map[netip.Prefix]netip.Addr{}
		}),
		each(read(belowLease), func(rec leaseRecord) { leases = append(leases, rec) }),
		each(read(belowRest), func(rec restRecord) { rests = append(rests, rec) }),
		each(read(belowName), func(rec nameRecord) {
			if p := l.pools[rec.Pool]; p != nil {
				p.names.load(rec)
			}
		}),
		each(read(belowNext), func(rec nextRecord) {
			if nexts[rec.Pool] != nil {
				nexts[rec.Pool][rec.Part] = rec.Next
			}
		}),
		each(read(belowCarve), func(rec carveRecord) {
			if p := l.pools[rec.Pool]; p != nil && !flawed(flawLoadsNoCarves) {
				p.excluded[rec.Addr] = rec
			}
		}),
		each(read(belowBlock), func(rec blockRecord) {
			if p := l.pools[rec.Pool]; p != nil {
				p.receipts[rec.Prefix] = rec
			}
		}),
		each(read(belowGiven), func(rec givenRecord) {
			if p := l.pools[rec.Pool]; p != nil {
				p.given[rec.Prefix] = rec
			}
		}))
	if err != nil {
		return err
	}
	for _, rec := range leases {
		if p := l.pools[rec.Pool]; p != nil && (rec.Endpoint != "" || !flawed(flawLoadsNoLeases)) {
			p.space.take(rec.Addr, &lease{leaseRecord: rec, idle: at.Now, doubt: rec.Endpoint == "" && !rec.Gone})
			p.space.before[rec.Addr] = true
		}
	}
	for _, p := range l.ordered() {
		p.made = at.Now
		p.space.resume(nexts[p.ID], at.Now)
		p.refresh(at)
		for prefix := range p.receipts { // of a block of one address no mark says that it was given once
			if _, free := p.space.freed[prefix.Addr()]; free && prefix.IsSingleIP() {
				p.space.before[prefix.Addr()] = true
			}
		}
	}
	for _, rec := range rests {
		if p := l.pools[rec.Pool]; p != nil && p.space.leases[rec.Addr] == nil {
			p.rests[rec.Addr] = true
			p.space.remember(rec.Addr, at.Now)
		}
	}
	return nil
}

func (l *Ledger) get(id string) (*pool, error) {
	p, ok := l.pools[id]
	if !ok {
		return nil, fmt.Errorf("pool %s: %w", id, errUnknownPool)
	}
	return p, nil
}

var errUnknownPool = errors.New("is not known")

// set makes a pool known; nil: no longer.
func (l *Ledger) set(id string, p *pool) {
	if l.order = nil; p == nil {
		delete(l.pools, id)
		return
	}
	l.pools[id] = p
}

// ordered are the pools by their identifiers. The slice is not to be changed.
func (l *Ledger) ordered() []*pool {
	if l.order == nil {
		for _, id := range slices.Sorted(maps.Keys(l.pools)) {
			l.order = append(l.order, l.pools[id])
		}
	}
	return l.order
}

// bound is the pool of a network that an address lies in.
func (l *Ledger) bound(network string, addr netip.Addr) *pool {
	for _, p := range l.ordered() {
		if p.Network == network && network != "" && p.Prefix.Contains(addr) {
			return p
		}
	}
	return nil
}

// change replaces a pool's record, on disk first.
func (l *Ledger) change(p *pool, rec poolRecord, after func(Moment) Move) Move {
	return write(writes(putPool(rec)), func(at Moment) Move {
		p.adopt(rec, at)
		return after(at)
	})
}

// drop forgets pools and all that belongs to them.
func (l *Ledger) drop(pools ...*pool) Move {
	var m Move
	for _, p := range pools {
		m.Writes = append(m.Writes, deletion(belowPool+p.ID))
		for _, below := range []string{belowLease, belowRest, belowName, belowNext, belowCarve, belowBlock, belowGiven} {
			if below != belowLease || !flawed(flawLeasesStay) {
				m.Drop = append(m.Drop, below+p.ID+"/")
			}
		}
	}
	m.Kind, m.next = Write, func(_ Moment, err error) Move {
		for _, p := range pools {
			if err == nil {
				l.set(p.ID, nil)
				l.clearAlarms(p.ID)
			}
		}
		return done(err)
	}
	return m
}

func (l *Ledger) note(text string, err error, fields map[string]any) {
	l.notes = append(l.notes, Note{text, fields, err})
}

// Notes returns what is to be logged since it was called last.
func (l *Ledger) Notes() []Note {
	notes := l.notes
	l.notes = nil
	return notes
}

func isNoQuorum(err error) bool {
	return errors.Is(err, cluster.ErrNoQuorum) || errors.Is(err, cluster.ErrNotMember)
}

// noQuorum is the answer to what needs the cluster and did not get it in time.
func noQuorum(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), cluster.ErrNoQuorum)
}
