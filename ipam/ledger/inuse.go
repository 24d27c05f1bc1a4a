package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// maxInUse is how many prefixes of an entry of POOLS a host tells the others at most; more are made shorter until they are
	// that few. A prefix is some 20 bytes, and every node keeps those of all hosts.
	maxInUse = 64
	// inUseKept is how long a prefix is told of after it was seen last: routes that come and go are no news each time.
	inUseKept = 10 * time.Minute
	// inUseEvery is how often a host tells at most.
	inUseEvery = time.Minute
	// maxBlamed is how many prefixes of other hosts a refusal names.
	maxBlamed = 5
)

// occupied is what this host uses of POOLS, as it tells the others.
type occupied struct {
	seen map[netip.Prefix]time.Time // last
	told time.Time                  // when it was proposed last
}

// Occupy tells the others what this host uses where subnets are chosen from, if that is news.
func (l *Ledger) Occupy(at Moment, inUse []netip.Prefix) Move {
	if !at.Joined {
		return done(nil)
	}
	list := l.occupied.look(at.Now, l.ranges, inUse)
	plan := func(at Moment) (cluster.Txn, error) { return cluster.PlanInUse(at.View, at.Self, list) }
	if txn, err := plan(at); err != nil || len(txn.Then) == 0 || at.Now.Sub(l.occupied.told) < inUseEvery && !l.occupied.told.IsZero() {
		return done(err)
	}
	l.occupied.told = at.Now
	return agree(at, plan, func(_ Moment, err error) Move { return done(err) })
}

// look takes note of what is in use now, and returns what is to be told.
func (o *occupied) look(now time.Time, ranges, inUse []netip.Prefix) []netip.Prefix {
	if o.seen == nil {
		o.seen = map[netip.Prefix]time.Time{}
	}
	for _, entry := range ranges {
		for _, p := range within(entry, inUse) {
			o.seen[p] = now
		}
	}
	var all []netip.Prefix
	for p, at := range o.seen {
		if now.Sub(at) > inUseKept {
			delete(o.seen, p)
			continue
		}
		all = append(all, p)
	}
	var told []netip.Prefix
	for _, entry := range ranges {
		told = append(told, fewer(slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return !entry.Overlaps(p) }), maxInUse)...)
	}
	return fewer(told, len(told))
}

// within is what prefixes take of an entry of POOLS, in steps of the subnets that are chosen from it.
func within(entry netip.Prefix, prefixes []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range prefixes {
		switch bits := chosenBits(entry); {
		case p.Bits() <= 0 || !p.Overlaps(entry): // a default route is in nobody's way
		case p.Bits() <= entry.Bits():
			all = append(all, entry.Masked())
		default:
			all = append(all, netip.PrefixFrom(p.Addr(), min(p.Bits(), bits)).Masked())
		}
	}
	return fewer(all, len(all))
}

// fewer are prefixes that cover the same addresses, or more of them if there would be more than most; sorted, none overlaps another.
func fewer(prefixes []netip.Prefix, most int) []netip.Prefix {
	all := merged(prefixes)
	for len(all) > most && len(all) > 1 {
		longest := slices.MaxFunc(all, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() }).Bits()
		for n, p := range all {
			if p.Bits() == longest {
				all[n] = netip.PrefixFrom(p.Addr(), longest-1).Masked()
			}
		}
		all = merged(all)
	}
	return all
}

// merged leaves out what lies in another prefix, and makes one of two halves.
func merged(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.SortedFunc(slices.Values(prefixes), comparePrefixes)
	var all []netip.Prefix
	for _, p := range sorted {
		if len(all) > 0 && all[len(all)-1].Overlaps(p) {
			continue // the one before begins no later, and is no longer
		}
		all = append(all, p)
		for len(all) > 1 {
			a, b := all[len(all)-2], all[len(all)-1]
			if a.Bits() != b.Bits() || a.Bits() == 0 {
				break
			}
			whole := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
			if !whole.Contains(b.Addr()) {
				break
			}
			all = append(all[:len(all)-2], whole)
		}
	}
	return all
}

// elsewhere is what other hosts have told.
func (at Moment) elsewhere() []cluster.InUse {
	return slices.DeleteFunc(at.View.InUse(), func(u cluster.InUse) bool { return u.Node == at.Self })
}

// blame says which other hosts are in the way of subnets of a family.
func blame(ranges []netip.Prefix, v6 bool, hosts []cluster.InUse) string {
	var said []string
	for _, h := range hosts {
		for _, p := range h.Prefixes {
			if slices.ContainsFunc(ranges, func(entry netip.Prefix) bool { return entry.Addr().Is6() == v6 && entry.Overlaps(p) }) {
				said = append(said, fmt.Sprintf("%s on %s", p, h.Name))
			}
		}
	}
	if len(said) == 0 {
		return ""
	}
	if more := len(said) - maxBlamed; more > 0 {
		said = append(said[:maxBlamed], fmt.Sprintf("and %d more", more))
	}
	return "; routes, addresses or name servers of other hosts: " + strings.Join(said, ", ")
}
