package sim

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// cooldown is how long an address that came back is nobody else's.
const cooldown = 60 * time.Second

// spares are the fewest and the most single addresses that a host keeps in reserve.
func spares(s cluster.Subnet) (fewest, most uint64) {
	usable := uint64(0)
	for a := s.Range.Addr(); s.Range.Contains(a); a = a.Next() {
		if s.Usable(a) {
			usable++
		}
	}
	fewest = min(4, max(1, usable/8))
	return fewest, 2 * fewest
}

// cameBack notes when the lease of an address ended; with the network the host forgets what rests.
func (h *host) cameBack(wr store.Write) {
	if wr.Value == nil && strings.HasPrefix(wr.Key, "lease/") && h.disk[wr.Key] != nil {
		h.came[wr.Key] = h.w.now
	}
}

// handsBack says whether a transaction gives blocks back. It is seldom that a host needs what it has just given back; so the answer is
// lost more often, for whoever does not wait for it.
func handsBack(txn cluster.Txn) bool {
	return len(txn.Then) > 0 && txn.Then[0].Value == nil && strings.HasPrefix(txn.Then[0].Key, "block/")
}

// givesUp checks a block that a host will use no more: nothing of it is in use or rests, and what is left is enough.
func (h *host) givesUp(wr store.Write) {
	rest, is := strings.CutPrefix(wr.Key, "given/")
	if !is || wr.Value == nil {
		return
	}
	h.w.figures.HandedBack++
	pool, text, _ := strings.Cut(rest, "|/")
	pool += "|"
	block := netip.MustParsePrefix(text)
	for key := range h.disk {
		if addr, same := strings.CutPrefix(key, "lease/"+pool+"/"); same && block.Contains(netip.MustParseAddr(addr)) {
			h.w.breaks("%s gives %s up, and has %s in it", h.name, block, addr)
		}
	}
	for key, when := range h.came {
		addr, same := strings.CutPrefix(key, "lease/"+pool+"/")
		if same && block.Contains(netip.MustParseAddr(addr)) && h.w.now-when < cooldown {
			h.w.breaks("%s gives %s up, and %s came back only %s ago", h.name, block, addr, h.w.now-when)
		}
	}
	for _, nw := range h.engine.nets {
		for n, s := range nw.def.subnets {
			if len(nw.pools) > n && nw.pools[n] == pool && block.Bits() == s.BlockBits() && s.Range.Contains(block.Addr()) {
				h.remains(nw, s, pool, block)
			}
			if len(nw.pools) > n && nw.pools[n] == pool && h.w.faulty && h.w.chance(0.3) {
				h.w.after(h.w.within(0, 12*time.Second), func() { h.wants(nw, block) })
			}
		}
	}
}

// wants starts a container with an address of a block that the host has just given up.
func (h *host) wants(nw *network, block netip.Prefix) {
	if h.w.faulty && h.engine.nets[nw.def.shared] == nw && nw.made {
		h.w.start(func(t *task) { h.engine.lives(t, nw, h.w.someAddress(block), 20*time.Second) })
	}
}

// mayForget has the plugin die, sometimes, after it has told the cluster which blocks it gives back, and somebody want an address of one
// when it starts.
func (h *host) mayForget(txn cluster.Txn) {
	if !handsBack(txn) || !h.w.faulty || !h.w.chance(0.3) {
		return
	}
	shared, text, _ := strings.Cut(strings.TrimPrefix(txn.Then[0].Key, "block/"), "/")
	block, nw := netip.MustParsePrefix(text), h.engine.nets[shared]
	if nw == nil {
		return
	}
	h.w.after(h.w.within(0, 6*time.Second), func() {
		h.kill()
		h.w.after(h.w.within(100*time.Millisecond, time.Second), func() {
			h.boot()
			for range 3 {
				h.w.after(h.w.within(0, 20*time.Millisecond), func() { h.wants(nw, block) })
			}
		})
	})
}

// remains checks that a host does not need another block at once.
func (h *host) remains(nw *network, s cluster.Subnet, pool string, but netip.Prefix) {
	v := h.w.log[h.at]
	if _, fenced := v.Fenced(h.id); fenced {
		return // it has heard so while the disk was slow, and has no block
	}
	owners := v.Owners(nw.def.shared)
	blocks, total, free := 0, uint64(0), uint64(0)
	for _, b := range v.Blocks(nw.def.shared) {
		if b.Node != h.id || b.Prefix == but || !s.Range.Contains(b.Prefix.Addr()) || h.gaveUp(pool, b) || h.froze(pool, b) {
			continue
		}
		if b.Prefix.Bits() == s.BlockBits() {
			blocks++
		}
		if b.Prefix.Addr().BitLen()-b.Prefix.Bits() > 8 {
			return // there is always enough
		}
		for a := b.Prefix.Addr(); b.Prefix.Contains(a); a = a.Next() {
			if node, _ := owners.Of(a); node != h.id || !s.Usable(a) || h.disk["carve/"+pool+"/"+a.String()] != nil {
				continue
			}
			total++
			if h.disk["lease/"+pool+"/"+a.String()] == nil {
				free++
			}
		}
	}
	fewest, _ := spares(s)
	single := s.BlockBits() == s.Prefix.Addr().BitLen()
	if blocks == 0 || single && free < fewest || !single && 2*free < total {
		h.w.breaks("%s gives %s up, and has %d blocks left with %d of %d addresses free", h.name, but, blocks, free, total)
	}
}

// gaveUp says whether a host has given a block up.
func (h *host) gaveUp(pool string, b cluster.Block) bool {
	var given struct{ Index uint64 }
	raw := h.disk["given/"+pool+"/"+b.Prefix.String()]
	return raw != nil && json.Unmarshal(raw, &given) == nil && b.Index <= given.Index
}

// keeps checks one subnet. Who has no block of it, since it became another node meanwhile, may keep one address. A block out of which
// another host has an address stays.
func (h *host) keeps(v cluster.View, shared, pool string, s cluster.Subnet) {
	blocks, most := uint64(0), uint64(1)
	if s.BlockBits() == s.Prefix.Addr().BitLen() {
		_, most = spares(s)
	}
	var asked []netip.Prefix
	for _, b := range v.Blocks(shared) {
		switch {
		case b.Node != h.id || !s.Prefix.Contains(b.Prefix.Addr()) || h.froze(pool, b):
		case b.Prefix.Bits() == s.BlockBits() && s.Range.Contains(b.Prefix.Addr()):
			carved := slices.ContainsFunc(v.Blocks(shared), func(o cluster.Block) bool { return o.Node != h.id && b.Prefix.Contains(o.Prefix.Addr()) })
			if !carved {
				blocks++
			}
		default:
			asked = append(asked, b.Prefix)
		}
	}
	if blocks > most {
		h.w.breaks("%s keeps %d blocks of %s and has no container, want %d at most", h.name, blocks, s.Prefix, most)
	}
	if len(asked) > 1 || len(asked) > 0 && blocks > 0 {
		h.w.breaks("%s keeps %v, which it once asked for", h.name, asked)
	}
}

// unneeded checks, when nobody has had a container for minutes, that hosts keep no more than one block of each subnet, or a few
// single addresses, and none that was asked for by name.
func (w *world) unneeded() {
	v := w.newest()
	for _, h := range w.hosts {
		for _, shared := range w.shared {
			nw := h.engine.nets[shared]
			if nw == nil || !nw.made || len(nw.containers) > 0 {
				continue
			}
			for _, s := range nw.def.subnets {
				h.keeps(v, shared, nw.pool(s.Prefix.Addr()), s)
			}
		}
	}
}
