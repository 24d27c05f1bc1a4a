package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// image is a copy of a host's disk.
type image struct {
	disk    map[string][]byte
	commits int
}

// past is how far a host's disk has come, as package cluster keeps it.
type past struct {
	commits int           // that were done
	told    int           // that another host has heard of, and remembers
	at      time.Duration // when it was told
	image   *image        // nil: there is none
	number  int           // of times that the disk went back
}

// tells: whatever a host exchanges with others says how many commits are on its disk, the one under way not included.
func (h *host) tells() {
	if !h.cut && h.w.now-h.past.at >= time.Second {
		h.past.told, h.past.at = max(h.past.told, h.past.commits), h.w.now
	}
	h.past.commits++
}

// copied makes a copy of the disk.
func (h *host) copied() {
	if h.w.chance(0.5) {
		h.past.image = &image{maps.Clone(h.disk), h.past.commits}
	}
}

// goesBack puts the old copy in the place of the disk while the plugin is off. Where somebody remembers more, the ledger is told before
// anything else. What nobody was told nobody can remember, and who reaches nobody at its start goes on: that is not promised.
func (h *host) goesBack() {
	old := h.past.image
	reached := !h.cut && slices.ContainsFunc(h.w.hosts, func(o *host) bool { return o != h && o.process != nil && !o.cut })
	if old == nil || !h.w.faulty || !reached || old.commits >= h.past.told || !h.w.chance(0.3) {
		return
	}
	h.w.say("%s: the disk goes back from commit %d to %d", h.name, h.past.commits, old.commits)
	h.w.figures.OldDisks++
	h.disk = maps.Clone(old.disk)
	clear(h.came) // what rested since the copy is not known; its blocks are frozen, unless the host is forgotten
	h.past = past{commits: old.commits, image: old, number: h.past.number + 1}
	h.changed, h.w.disksChanged = true, true
	for _, nw := range h.engine.nets {
		for _, c := range nw.containers {
			c.lost = true // until it is taken over
		}
	}
	if h.w.plan.Flaw == FlawOldDisk {
		return
	}
	writes, err := ledger.Regressed(h.read, fmt.Sprint(h.past.number))
	if err != nil {
		h.w.breaks("%s does not start with an older disk: %v", h.name, err)
	}
	for _, wr := range writes {
		if wr.Value == nil {
			delete(h.disk, wr.Key)
		} else {
			h.disk[wr.Key] = wr.Value
		}
	}
	h.past.commits++
}

// disowns: a host whose disk went back was forgotten before its containers were taken over. What they have is not promised to them:
// see docs/addresses.md.
func (h *host) disowns() {
	for _, shared := range h.w.shared {
		nw := h.engine.nets[shared]
		if nw == nil {
			continue
		}
		for _, c := range nw.containers {
			switch {
			case !c.lost || !c.addr.IsValid():
			case c.recorded(): // it has been, and the plugin died before it was said
				c.lost = false
			default:
				h.w.lets(c)
				c.used, c.addr = false, netip.Addr{}
			}
		}
	}
}

// purge is what an operator does about networks that an older disk has and the engine has not: `carrick network rm`.
func (p *process) purge(t *task) {
	for again := true; again && !p.dead; {
		again = false
		for _, pool := range p.ledger.Status(p.moment()) {
			if pool.Network == "" || p.h.engine.has(pool.Network) {
				continue
			}
			_, err := t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Unbind(at, pool.Network) })
			if again = again || errors.Is(err, errDisk); p.dead {
				return
			}
		}
	}
}

func (e *engine) has(network string) bool {
	for _, nw := range e.nets {
		if nw.id == network {
			return true
		}
	}
	return false
}

// froze says whether a host gives nothing of a block but to whom it was given already.
func (h *host) froze(pool string, b cluster.Block) bool {
	var rec struct{ Frozen uint64 }
	return json.Unmarshal(h.disk["pool/"+pool], &rec) == nil && b.Node == h.id && b.Index <= rec.Frozen
}

// frozen is the same for an address.
func (h *host) frozen(pool, shared string, addr netip.Addr) bool {
	owner, found := h.w.newest().Owner(shared, addr)
	return found && h.froze(pool, owner)
}

// frozenAnywhere is the same for all hosts.
func (w *world) frozenAnywhere(shared string, addr netip.Addr) bool {
	return slices.ContainsFunc(w.hosts, func(h *host) bool {
		nw := h.engine.nets[shared]
		return nw != nil && h.frozen(nw.pool(addr), shared, addr)
	})
}
