package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// What stands here is done for each of some hundred thousand entries: keys are numbers, and nothing is allocated for one.

// trim leaves out what two lists have in common at their beginnings and ends: of a network where one endpoint has changed
// nearly everything.
func trim[T comparable](a, b []T) ([]T, []T) {
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	a, b, n = a[i:], b[i:], n-i
	i = 0
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return a[:len(a)-i], b[:len(b)-i]
}

// numbers gives each link a number and remembers the last one asked for, since entries of one link follow one another.
type numbers struct {
	of   map[ref]uint64
	last ref
	n    uint64
}

func (n *numbers) get(r ref) uint64 {
	if r == n.last && n.n != 0 {
		return n.n
	}
	number, ok := n.of[r]
	if !ok {
		number = uint64(len(n.of)) + 1
		n.of[r] = number
	}
	n.last, n.n = r, number
	return number
}

// number is that of a MAC, below 1<<48.
func (m MAC) number() uint64 {
	return uint64(binary.BigEndian.Uint16(m[:]))<<32 | uint64(binary.BigEndian.Uint32(m[2:]))
}

func macOf(number uint64) MAC {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], number)
	return MAC(b[2:])
}

// An fdbKey says what one entry replaces: there is one destination for a MAC, and any number for the zero MAC
// (vxlan_fdb_update_existing).
type fdbKey struct {
	mac uint64 // and the number of the link above it
	dst netip.Addr
}

func (n *numbers) fdbKey(f *FDB) fdbKey {
	key := fdbKey{mac: n.get(ref{f.NS, f.Dev})<<48 | f.MAC.number()}
	if f.MAC == (MAC{}) {
		key.dst = f.Dst
	}
	return key
}

// What is known of a wanted entry when all that there are have been looked at.
const (
	selfDone   = 1 << iota // the device's entry is there
	masterDone             // the bridge's
)

// fdb compares the device's entries and the bridge's apart: either may be there without the other after a crash.
func (d *differ) fdb() []entry {
	have, want := d.have.FDB, d.want.FDB
	if d.have.remembered && len(d.dead) == 0 {
		have, want = trim(have, want)
	}
	known := make([]uint8, len(want))
	ops := d.matchFDB(have, want, known)
	ops = slices.Grow(ops, lacking(known, selfDone))
	for i, f := range want {
		e := entry{do: replaceSelf, mac: f.MAC, dev: ref{f.NS, f.Dev}, ip: f.Dst}
		self, master := f.Dst.IsValid() && known[i]&selfDone == 0, f.Bridge && known[i]&masterDone == 0
		switch {
		case !self && !master:
			continue
		case self && master:
			e.do = replaceBoth
		case master:
			e.do = replaceMaster
		case f.MAC == (MAC{}):
			e.do = appendSelf
		}
		ops = append(ops, e)
	}
	return ops
}

// matchFDB notes which wanted entries are there, and deletes the others.
func (d *differ) matchFDB(have, want []FDB, known []uint8) (ops []entry) {
	if len(have) == 0 {
		return nil
	}
	links := numbers{of: make(map[ref]uint64)}
	index := make(map[fdbKey]int, len(want))
	for i := range want {
		index[links.fdbKey(&want[i])] = i
	}
	fate := fates{d: d, kept: d.kept()}
	for i := range have {
		f := &have[i]
		dev := ref{f.NS, f.Dev}
		kept, dead := fate.of(dev)
		if !kept {
			continue
		}
		w, wanted := index[links.fdbKey(f)]
		switch {
		case !f.Dst.IsValid():
		case !wanted:
			ops = append(ops, entry{do: deleteSelf, mac: f.MAC, dev: dev, ip: f.Dst})
		case f.Dst == want[w].Dst: // another is replaced
			known[w] |= selfDone
		}
		if f.Bridge && !dead.bridge {
			if wanted && want[w].Bridge {
				known[w] |= masterDone
			} else {
				ops = append(ops, entry{do: deleteMaster, mac: f.MAC, dev: dev})
			}
		}
	}
	return ops
}

// lacking counts those that lack something.
func lacking(known []uint8, what uint8) int {
	n := 0
	for _, k := range known {
		if k&what == 0 {
			n++
		}
	}
	return n
}

// fates tell what becomes of the entries of a link, and remember the last one asked for.
type fates struct {
	d     *differ
	kept  map[ref]bool
	last  ref
	stays bool
	dead  deaths
}

func (f *fates) of(r ref) (kept bool, dead deaths) {
	if r != f.last {
		f.last, f.stays, f.dead = r, f.kept[r], f.d.dead[r]
	}
	return f.stays, f.dead
}

// neighs also says what is to be announced, once the entries are written.
func (d *differ) neighs() (ops []entry, said []op) {
	type key struct {
		dev uint64
		ip  netip.Addr
	}
	have, want := d.have.Neighs, d.want.Neighs
	if d.have.remembered && len(d.dead) == 0 {
		have, want = trim(have, want)
	}
	links := numbers{of: make(map[ref]uint64)}
	index := make(map[key]int, min(len(have), 1)*len(want))
	if len(have) != 0 {
		for i, n := range want {
			index[key{links.get(ref{n.NS, n.Dev}), n.IP}] = i
		}
	}
	const same, alive = 1, 2 // is there with this MAC, and stays
	known := make([]uint8, len(want))
	fate := fates{d: d, kept: d.kept()}
	for _, n := range have {
		dev := ref{n.NS, n.Dev}
		kept, dead := fate.of(dev)
		if !kept {
			continue
		}
		lives := !dead.neighs && !(dead.v6 && n.IP.Is6())
		i, wanted := index[key{links.get(dev), n.IP}]
		switch {
		case wanted && n.MAC == want[i].MAC && lives:
			known[i] = same | alive
		case wanted && n.MAC == want[i].MAC:
			known[i] = same
		case !wanted && lives:
			ops = append(ops, entry{do: deleteNeigh, dev: dev, ip: n.IP})
		}
	}
	ops = slices.Grow(ops, lacking(known, alive))
	for i, n := range want {
		dev := ref{n.NS, n.Dev}
		if known[i]&alive == 0 {
			ops = append(ops, entry{do: replaceNeigh, announce: n.Announce, mac: n.MAC, dev: dev, ip: n.IP})
		}
		if n.Announce && known[i]&same == 0 {
			said = append(said, d.announce(dev, n.IP, n.MAC)...)
		}
	}
	return ops, said
}
