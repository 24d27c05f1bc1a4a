package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
	"github.com/carricknet/carrick/store"
)

// breaks says that a promise is broken. The history ends there.
func (w *world) breaks(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf("after %.3f s: %s", w.now.Seconds(), fmt.Sprintf(format, args...))
		w.say("BROKEN: %v", w.broken)
	}
}

// given takes note of an address that was answered: nobody else may have it, it must be on disk, and one that may be had.
func (w *world) given(c *container) {
	w.figures.Given++
	s, n := c.nw.def.of(c.addr)
	if n > 0 && !c.explicit {
		w.figures.Second++
	}
	w.say("%s gets %s", c, c.addr)
	switch {
	case !s.Usable(c.addr):
		w.breaks("%s got %s, which is not for endpoints in %s", c, c.addr, s.Prefix)
	case !c.explicit && !s.Range.Contains(c.addr):
		w.breaks("%s got %s, which is not in --ip-range %s", c, c.addr, s.Range)
	}
	w.holds(c)
}

func (w *world) holds(c *container) {
	if _, fenced := w.newest().Fenced(c.h.id); fenced {
		return // the others do not listen to it any more
	}
	if other := w.holders[c.place()]; other != nil {
		w.breaks("%s and %s both have %s of %s", other, c, c.addr, c.nw.def)
		return
	}
	c.holds, c.lease = true, "lease/"+c.nw.pool(c.addr)+"/"+c.addr.String()
	w.holders[c.place()] = c
	w.owned(c)
	if !c.leased() {
		w.breaks("%s has %s, and nothing on disk says so", c, c.addr)
	}
}

func (c *container) leased() bool { return c.h.disk[c.lease] != nil }

// recorded says whether the lease on disk is this container's own.
func (c *container) recorded() bool {
	var lease struct{ Endpoint string }
	return json.Unmarshal(c.h.disk[c.lease], &lease) == nil && lease.Endpoint == c.endpoint
}

// lets takes note that a container has no address any more.
func (w *world) lets(c *container) {
	if c.holds {
		delete(w.holders, c.place())
		c.holds = false
	}
}

// regains is a container whose host became another node, and has its address again or not. Who was not taken over before is promised
// nothing any more.
func (w *world) regains(c *container) {
	if !c.holds && c.used && !c.lost && w.owner(c.nw.def.shared, c.addr) == c.h.id {
		w.holds(c)
	}
}

// owned checks that an address in use lies in its host's own block.
func (w *world) owned(c *container) {
	if owner := w.owner(c.nw.def.shared, c.addr); owner != c.h.id {
		w.breaks("%s has %s, which is in a block of %q", c, c.addr, owner)
	}
}

// check looks at all that the last event may have changed.
func (w *world) check() {
	if w.checked < w.head() {
		w.fences()
		for _, shared := range w.shared {
			if v := w.newest(); max(v.Changed("block/"+shared), v.Changed("attend/"+shared)) > uint64(w.checked) {
				w.blocks(shared)
			}
		}
		w.checked = w.head()
	}
	if w.disksChanged {
		w.disksChanged = false
		for at, c := range w.holders {
			if c.h.changed && !c.leased() && !c.lost {
				w.breaks("%s has %s, and the lease is gone", c, at.addr)
			}
		}
		for _, h := range w.hosts {
			h.changed = false
		}
	}
}

func comparePlaces(a, b place) int {
	if c := strings.Compare(a.shared, b.shared); c != 0 {
		return c
	}
	return a.addr.Compare(b.addr)
}

// fences ends what forgotten hosts had: the others keep their frames out.
func (w *world) fences() {
	if w.newest().Changed("forgotten") <= uint64(w.checked) {
		return
	}
	for _, at := range slices.SortedFunc(maps.Keys(w.holders), comparePlaces) {
		c := w.holders[at]
		if _, fenced := w.newest().Fenced(c.h.id); fenced {
			w.lets(c)
		}
	}
}

// blocks checks that addresses in use lie in blocks of their hosts, that no block overlaps another, but for single addresses that
// were carved out, and that each belongs to a node that has the network.
func (w *world) blocks(shared string) {
	v := w.newest()
	owners := v.Owners(shared)
	var strays []place
	for at, c := range w.holders {
		if node, _ := owners.Of(at.addr); at.shared == shared && node != c.h.id {
			strays = append(strays, at)
		}
	}
	if len(strays) > 0 {
		w.owned(w.holders[slices.MinFunc(strays, comparePlaces)])
	}
	var last cluster.Block
	for _, b := range owners.All() {
		if last.Prefix.IsValid() && last.Prefix.Overlaps(b.Prefix) && !b.Prefix.IsSingleIP() {
			w.breaks("blocks %s and %s overlap", last.Prefix, b.Prefix)
		}
		if !b.Prefix.IsSingleIP() {
			last = b
		}
		if _, there := v.Get("attend/" + shared + "/" + b.Node); !there {
			w.breaks("block %s is that of %s, which does not have the network", b.Prefix, b.Node)
		}
	}
}

// oldest checks that of the addresses that came back to this process, the one that came first is given first.
func (w *world) oldest(p *process, move ledger.Move) {
	if !w.calm() {
		return
	}
	for _, wr := range move.Writes {
		if strings.HasPrefix(wr.Key, "block/") {
			p.follow(wr) // it has come with this very request
		}
	}
	for _, wr := range move.Writes {
		if wr.Value == nil || !p.isFreed[wr.Key] || bytes.Contains(wr.Value, []byte(`"explicit"`)) || p.remembered(wr) == wr.Key {
			continue
		}
		n := slices.Index(p.freed, wr.Key)
		at := strings.LastIndexByte(wr.Key, '/')
		for _, earlier := range p.freed[:n] {
			if addr, same := strings.CutPrefix(earlier, wr.Key[:at+1]); same && p.mayGive(wr.Key[:at], netip.MustParseAddr(addr)) {
				w.breaks("%s gives %s, although %s was released before it", p.h.name, wr.Key, addr)
			}
		}
	}
}

// remembered is the lease that the container had which is given one now, by its name; "" if that is not known.
func (p *process) remembered(wr store.Write) string {
	pool, _, _ := strings.Cut(strings.TrimPrefix(wr.Key, "lease/"), "|/")
	var lease struct{ Name string }
	if json.Unmarshal(wr.Value, &lease) != nil || lease.Name == "" {
		return ""
	}
	for key, value := range p.h.read("name/" + pool + "|/") {
		var had struct{ Name string }
		if json.Unmarshal(value, &had) == nil && had.Name == lease.Name {
			return "lease/" + strings.TrimPrefix(key, "name/")
		}
	}
	return ""
}

// sameName checks that a container whose name had an address is given that one, if it is free.
func (w *world) sameName(p *process, move ledger.Move) {
	for _, wr := range move.Writes {
		if !strings.HasPrefix(wr.Key, "lease/") || wr.Value == nil || p.h.disk[wr.Key] != nil || !w.calm() || bytes.Contains(wr.Value, []byte(`"explicit"`)) {
			continue
		}
		had := p.remembered(wr)
		at := strings.LastIndexByte(had, '/')
		if had != "" && had != wr.Key && p.h.disk[had] == nil && p.mayGive(had[:at], netip.MustParseAddr(had[at+1:])) {
			w.breaks("%s gives %s to a container whose name had %s", p.h.name, wr.Key, had)
		}
	}
}

// mayGive says whether a dynamic address of a pool is this host's, as far as it knows, and free.
func (p *process) mayGive(lease string, addr netip.Addr) bool {
	pool := strings.TrimPrefix(lease, "lease/")
	for _, nw := range p.h.engine.nets {
		s, n := nw.def.of(addr)
		if len(nw.pools) <= n || nw.pools[n] != pool || !s.Range.Contains(addr) || p.h.disk["carve/"+pool+"/"+addr.String()] != nil {
			continue
		}
		owner, found := p.h.w.log[p.h.at].Owner(nw.def.shared, addr)
		return found && owner.Node == p.h.id && !p.h.frozen(pool, nw.def.shared, addr) && !p.h.gaveUp(pool, owner)
	}
	return false
}

func (w *world) calm() bool { return !w.faulty && w.now-max(w.calmed, w.shaken) > 20*time.Second }

// refused takes note of a refusal. Once all is well, it has to be deserved.
func (w *world) refused(c *container, asked string, err error) {
	w.figures.Refused++
	w.say("%s is refused %q: %v", c, asked, err)
	if !w.calm() {
		return
	}
	if asked != "" {
		addr := netip.MustParseAddr(asked)
		s, _ := c.nw.def.of(addr)
		if strings.Contains(err.Error(), "is being given to") || strings.Contains(err.Error(), "is asking for it") {
			return // by who asked a moment before; that it comes to an end is checked in waiting
		}
		ended, once := w.ended["lease/"+c.nw.pool(netip.MustParseAddr(asked))+"/"+asked]
		if once && ended >= c.began {
			return // somebody had it when it was asked for
		}
		if _, held := w.holders[place{c.nw.def.shared, addr}]; !held && s.Usable(addr) && !w.leasedAnywhere(c.nw.def.shared, addr) && !w.frozenAnywhere(c.nw.def.shared, addr) {
			w.breaks("%s is refused %s, which nobody has: %v", c, asked, err)
		}
		return
	}
	if !strings.Contains(err.Error(), "no address left") {
		w.breaks("%s is refused an address: %v", c, err)
		return
	}
	if addr, is := w.free(c.h, c.nw.def); is {
		w.breaks("%s is refused an address, and %s is free: %v", c, addr, err)
	}
}

// leasedAnywhere says whether a host has an address handed out, or is giving it to another.
func (w *world) leasedAnywhere(shared string, addr netip.Addr) bool {
	return slices.ContainsFunc(w.hosts, func(h *host) bool {
		for key := range h.disk {
			if (strings.HasPrefix(key, "lease/") || strings.HasPrefix(key, "carve/")) && strings.HasSuffix(key, "/"+addr.String()) {
				return true
			}
		}
		return false
	})
}

// empty checks that nothing is left when every container and network was removed.
func (w *world) empty() {
	for _, below := range []string{"attend/", "block/", "want/", "network/", "reserve/"} {
		for f := range w.newest().Prefix(below) {
			w.breaks("left behind in the cluster: %s %s", f.Key, f.Value)
		}
	}
	for _, h := range w.hosts {
		for _, key := range slices.Sorted(maps.Keys(h.disk)) {
			// A pool that was asked for, and of which nobody here will ever know what became: another driver may have it.
			if strings.HasPrefix(key, "pool/") && !bytes.Contains(h.disk[key], []byte(`"network"`)) {
				continue
			}
			if key == ledger.KeyDamaged || key == "regress" { // that the disk went back once
				continue
			}
			w.breaks("left behind on %s: %s %s", h.name, key, h.disk[key])
		}
	}
}

// waiting checks that nobody waits for an answer any more, and that what is leased is what containers have.
func (w *world) waiting() {
	for _, shared := range w.shared {
		for _, want := range w.newest().Wants(shared) {
			w.breaks("a question is still there: %+v", want)
		}
	}
	for _, h := range w.hosts {
		for key, value := range h.read("carve/") {
			addr := netip.MustParseAddr(key[strings.LastIndexByte(key, '/')+1:])
			for _, n := range w.nets {
				if s, _ := n.of(addr); s.Prefix.Contains(addr) && w.owner(n.shared, addr) == h.id {
					w.breaks("%s keeps %s for others, and it is its own: %s", h.name, addr, value)
				}
			}
		}
		for _, pool := range h.process.ledger.Status(h.process.moment()) {
			w.leases(h, pool)
		}
	}
}

// leases checks that each lease of a network is a container's.
func (w *world) leases(h *host, pool ledger.PoolStatus) {
	for _, lease := range pool.Leases {
		held := w.holders[place{pool.Shared, lease.Addr}]
		if pool.Network != "" && (held == nil || held.h != h) {
			w.breaks("%s still has %s, which no container has", h.name, lease.Addr)
		}
	}
}
