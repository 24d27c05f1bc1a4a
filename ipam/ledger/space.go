package ledger

import (
	"encoding/binary"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// cooldown is how long a released address rests if there is another: as long as a neighbour entry of Linux stays in use
	// without confirmation (base_reachable_time 30 s, at most 1.5 times that) and some more.
	cooldown = 60 * time.Second
	// vastBits is the number of host bits beyond which addresses of an IPv6 part are drawn at random rather than counted:
	// with 2^17 or more of them a second draw is hardly ever needed, and scanning them finds nothing (RFC 7707).
	vastBits = 16
	// draws is how often a random address is drawn before giving up; each fails with a chance of used/2^17 at most.
	draws = 64
	// manyFreed is how many released addresses may rest before they go before those never used: it bounds memory in a /8.
	manyFreed = 1 << 16
)

// space is what of one subnet is handed out, and what is free: plain state, without clock, disk or cluster.
type space struct {
	subnet cluster.Subnet
	parts  []part
	leases map[netip.Addr]*lease
	barred map[netip.Addr]bool // not ours to give although they lie in a part
	nexts  map[netip.Prefix]netip.Addr
	freed  map[netip.Addr]uint64 // serial of the entry in queue that counts
	before map[netip.Addr]bool   // given before this process began, whoever has had them since; until releaseGrace is over
	queue  []freedAddr           // oldest first
	serial uint64
	quiet  map[netip.Prefix]time.Time // blocks that were empty when last looked at, and since when
	// What counts said last, until something of it changes.
	counted     bool
	total, free uint64
}

// part is a range of addresses that are all ours to give.
type part struct {
	prefix netip.Prefix
	next   netip.Addr // its mark, as it is on disk: none from here on was given but by name; zero: there is none
	look   netip.Addr // from where on to look for one that was never given; zero: there is none
}

type freedAddr struct {
	addr   netip.Addr
	at     time.Time
	serial uint64
}

// lease is an address that is handed out.
type lease struct {
	leaseRecord
	idle    time.Time // since when no endpoint uses it
	suspect bool      // it was idle for too long when last looked at
	doubt   bool      // a release of it may be the repetition of one from before this process began
}

func newSpace(subnet cluster.Subnet) *space {
	return &space{
		subnet: subnet, leases: map[netip.Addr]*lease{}, freed: map[netip.Addr]uint64{}, before: map[netip.Addr]bool{},
		nexts: map[netip.Prefix]netip.Addr{},
	}
}

func (p part) vast() bool { return p.prefix.Addr().Is6() && 128-p.prefix.Bits() > vastBits }

// setParts says what is ours now. What was barred and is not any more was in use elsewhere, so it rests. So does a part of one
// address that is new here: where blocks are that small, they go from host to host.
func (s *space) setParts(prefixes []netip.Prefix, barred map[netip.Addr]bool, now time.Time) {
	s.counted = false
	for _, p := range s.parts {
		s.nexts[p.prefix] = p.next
		if p.prefix.IsSingleIP() && !slices.ContainsFunc(prefixes, func(other netip.Prefix) bool { return other.Contains(p.prefix.Addr()) }) {
			delete(s.nexts, p.prefix) // should it come again it is new
			delete(s.freed, p.prefix.Addr())
		}
	}
	s.parts = nil
	for _, prefix := range prefixes {
		next, ok := s.nexts[prefix]
		switch {
		case ok:
		case prefix.IsSingleIP():
			s.nexts[prefix] = netip.Addr{}
			if s.leases[prefix.Addr()] == nil && !barred[prefix.Addr()] {
				s.push(prefix.Addr(), now)
			}
		default:
			next = prefix.Addr()
		}
		s.parts = append(s.parts, part{prefix, next, next})
	}
	before := s.barred
	if s.barred = barred; len(before) == 0 {
		return
	}
	for _, addr := range slices.SortedFunc(maps.Keys(before), netip.Addr.Compare) {
		if !barred[addr] && s.leases[addr] == nil {
			s.rest(addr, now)
		}
	}
}

// resume takes over, after a restart, how far each part was used: what is free below that was given once, and rests.
func (s *space) resume(nexts map[netip.Prefix]netip.Addr, now time.Time) {
	for _, prefix := range slices.SortedFunc(maps.Keys(nexts), comparePrefixes) {
		next := nexts[prefix]
		s.nexts[prefix] = next
		left := 2 * manyFreed // more there cannot be, but for a bound against foreign numbers
		for a := prefix.Addr(); prefix.Contains(a) && a != next && left > 0; a = a.Next() {
			if s.leases[a] == nil {
				s.remember(a, now)
				left--
			}
		}
	}
	for n, p := range s.parts {
		if next, ok := nexts[p.prefix]; ok {
			s.parts[n].next, s.parts[n].look = next, next
		}
	}
}

// mine says whether a dynamic address may be given: whatever else is asked, this is asked last.
func (s *space) mine(addr netip.Addr) bool {
	return s.part(addr) >= 0 && (s.subnet.Usable(addr) || flawed(flawGatewayIsGiven)) && !s.barred[addr] && s.leases[addr] == nil
}

// part is the index of the part an address lies in, or -1. Parts are in order, and do not overlap.
func (s *space) part(addr netip.Addr) int {
	n, there := slices.BinarySearchFunc(s.parts, addr, func(p part, addr netip.Addr) int { return p.prefix.Addr().Compare(addr) })
	if there {
		return n
	}
	if n > 0 && s.parts[n-1].prefix.Contains(addr) {
		return n - 1
	}
	return -1
}

// pick finds an address for an endpoint that wants any: one never given, the lowest first; else the one that was released
// first, rested or not. It changes nothing that matters: take does.
func (s *space) pick(now time.Time, seed uint64) (netip.Addr, bool) {
	oldest, rested, found := s.oldest(now)
	if found && rested && len(s.freed) > manyFreed {
		return oldest, true
	}
	for n := range s.parts {
		p := &s.parts[n]
		if p.vast() {
			if addr, ok := s.draw(*p, rand.New(rand.NewPCG(seed, uint64(n)))); ok {
				return addr, true
			}
			continue
		}
		for p.look.IsValid() && p.prefix.Contains(p.look) {
			if _, resting := s.freed[p.look]; !resting && s.mine(p.look) {
				return p.look, true
			}
			p.look = p.look.Next()
		}
		p.look = netip.Addr{}
	}
	return oldest, found
}

// oldest is the address that was released first and may be given.
func (s *space) oldest(now time.Time) (addr netip.Addr, rested, ok bool) {
	queue := s.queue
	if flawed(flawNewestFirst) {
		queue = slices.Clone(queue)
		slices.Reverse(queue)
	}
	for _, f := range queue {
		if s.freed[f.addr] != f.serial {
			continue
		}
		if s.mine(f.addr) {
			s.queue = s.queue[s.dead():]
			return f.addr, now.Sub(f.at) >= cooldown, true
		}
	}
	return netip.Addr{}, false, false
}

// dead is how many entries at the front of the queue do not count any more.
func (s *space) dead() int {
	n := slices.IndexFunc(s.queue, func(f freedAddr) bool { return s.freed[f.addr] == f.serial })
	if n < 0 {
		return len(s.queue)
	}
	return n
}

// draw draws an address of a vast part.
func (s *space) draw(p part, random *rand.Rand) (netip.Addr, bool) {
	base := p.prefix.Addr().As16()
	host := 128 - p.prefix.Bits()
	for range draws {
		hi, lo := random.Uint64(), random.Uint64()
		if host < 64 {
			hi, lo = 0, lo&(1<<host-1)
		} else if host < 128 {
			hi &= 1<<(host-64) - 1
		}
		b := base
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])|hi)
		binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])|lo)
		addr := netip.AddrFrom16(b)
		if _, resting := s.freed[addr]; !resting && s.mine(addr) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// take hands an address out.
func (s *space) take(addr netip.Addr, l *lease) {
	s.leases[addr], s.counted = l, false
	s.stir(addr)
	delete(s.freed, addr)
	if n := s.part(addr); n >= 0 && s.parts[n].look == addr {
		s.parts[n].next, s.parts[n].look = addr.Next(), addr.Next()
	}
}

// after is what the part of an address has left after it was taken, if that is worth noting.
func (s *space) after(addr netip.Addr) (netip.Prefix, netip.Addr, bool) {
	n := s.part(addr)
	if n < 0 || s.parts[n].vast() || s.parts[n].look != addr {
		return netip.Prefix{}, netip.Addr{}, false
	}
	return s.parts[n].prefix, addr.Next(), true
}

// release takes an address back.
func (s *space) release(addr netip.Addr, now time.Time) {
	delete(s.leases, addr)
	s.counted = false
	s.stir(addr)
	s.rest(addr, now)
}

// stir notes that something has happened about an address.
func (s *space) stir(addr netip.Addr) {
	maps.DeleteFunc(s.quiet, func(block netip.Prefix, _ time.Time) bool { return block.Contains(addr) })
}

// rest lets a free address wait for its turn. Of a vast part it is not needed: it is drawn again in a million years. One that lies in
// no part may come back with one.
func (s *space) rest(addr netip.Addr, now time.Time) {
	if n := s.part(addr); n < 0 || !s.parts[n].vast() {
		s.push(addr, now)
	}
}

// remember is what was released before this process began: the order is lost, so it rests anew.
func (s *space) remember(addr netip.Addr, now time.Time) {
	s.push(addr, now)
	s.before[addr] = true
}

// given says whether a part's mark shows that an address was handed out once. Of a vast part nothing does, and nothing has to. What
// lies in no part may come back with one that has no mark yet.
func (s *space) given(addr netip.Addr) bool {
	n := s.part(addr)
	return n >= 0 && (s.parts[n].vast() || !s.parts[n].next.IsValid() || addr.Less(s.parts[n].next))
}

func (s *space) push(addr netip.Addr, now time.Time) {
	s.serial++
	s.freed[addr] = s.serial
	s.queue = append(s.queue, freedAddr{addr, now, s.serial})
	if len(s.queue) > 2*len(s.freed)+64 { // most of it does not count any more
		s.queue = slices.DeleteFunc(s.queue, func(f freedAddr) bool { return s.freed[f.addr] != f.serial })
	}
}

// resting are the addresses that were released a moment ago, and until when each rests.
func (s *space) resting(now time.Time) iter.Seq2[netip.Addr, time.Time] {
	return func(yield func(netip.Addr, time.Time) bool) {
		for _, f := range s.queue {
			until := f.at.Add(cooldown)
			if now.Before(until) && s.freed[f.addr] == f.serial && s.mine(f.addr) && !yield(f.addr, until.UTC().Truncate(time.Second)) {
				return
			}
		}
	}
}

// count is how many addresses of a prefix may be endpoints', and how many are free. Beyond 2^62 it says 2^62.
func (s *space) count(p netip.Prefix) (total, free uint64) {
	total = usable(s.subnet, p)
	used := uint64(0)
	for a := range s.leases {
		if p.Contains(a) && s.subnet.Usable(a) {
			used++
		}
	}
	for a := range s.barred {
		if p.Contains(a) && s.subnet.Usable(a) && s.leases[a] == nil {
			used++
		}
	}
	return total, total - min(used, total)
}

// counts are the sums over all parts.
func (s *space) counts() (total, free uint64) {
	if s.counted {
		return s.total, s.free
	}
	for _, p := range s.parts {
		total = min(total+usable(s.subnet, p.prefix), 1<<62)
	}
	used := uint64(0)
	for a := range s.leases {
		if s.part(a) >= 0 && s.subnet.Usable(a) {
			used++
		}
	}
	for a := range s.barred {
		if s.part(a) >= 0 && s.subnet.Usable(a) && s.leases[a] == nil {
			used++
		}
	}
	s.counted, s.total, s.free = true, total, total-min(used, total)
	return s.total, s.free
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for n := p.Bits(); n < len(b)*8; n++ {
		b[n/8] |= 0x80 >> (n % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
