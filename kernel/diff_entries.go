package kernel

import "net/netip"

func (d *differ) sysctls() []op {
	have := make(map[Sysctl]bool, len(d.have.Sysctls))
	for _, s := range d.have.Sysctls {
		have[s] = true
	}
	var ops []op
	for _, s := range d.want.Sysctls {
		if !have[s] || d.fresh(s) {
			ops = append(ops, writeSysctl(s))
		}
	}
	return ops
}

// fresh says whether the key is one of a link that begins again with all of them at their defaults.
func (d *differ) fresh(s Sysctl) bool {
	for r, dead := range d.dead {
		if dead.sysctls && r.ns == s.NS && hasPart(s.Key, r.name) {
			return true
		}
	}
	return false
}

// addrs deletes before it adds. Taking the first address of a subnet takes the others of that subnet as well (unless
// promote_secondaries is set) and the routes through it, so that whatever is wanted beside it is written again.
func (d *differ) addrs() []op {
	want := make(map[Addr]bool, len(d.want.Addrs))
	for _, a := range d.want.Addrs {
		want[a] = true
	}
	kept := d.kept()
	have := make(map[Addr]bool, len(d.have.Addrs))
	var ops []op
	for _, a := range d.have.Addrs {
		r := ref{a.NS, a.Dev}
		if !kept[r] || d.dead[r].v6 && a.Prefix.Addr().Is6() {
			continue
		}
		if want[a] {
			have[a] = true
			continue
		}
		ops = append(ops, delAddr(a))
		d.shaken[r] = true
	}
	for _, a := range d.want.Addrs {
		if !have[a] || d.shaken[ref{a.NS, a.Dev}] {
			ops = append(ops, addAddr(a))
		}
	}
	return ops
}

func (d *differ) routes() []op {
	type key struct {
		ref
		dst netip.Prefix
	}
	want := make(map[key]bool, len(d.want.Routes))
	for _, r := range d.want.Routes {
		want[key{ref{r.NS, r.Dev}, r.Dst}] = true
	}
	kept := d.kept()
	have := make(map[Route]bool, len(d.have.Routes))
	var ops []op
	for _, r := range d.have.Routes {
		dev := ref{r.NS, r.Dev}
		if !kept[dev] || d.dead[dev].routes || d.dead[dev].v6 && r.Dst.Addr().Is6() {
			continue
		}
		have[r] = !d.shaken[dev]
		if !want[key{dev, r.Dst}] {
			ops = append(ops, delRoute(r))
		}
	}
	for _, r := range d.want.Routes {
		if !have[r] {
			ops = append(ops, addRoute(r))
		}
	}
	return ops
}

// fdb compares destinations and the bridge's entries apart: either may be there without the other after a crash.
func (d *differ) fdb() []op {
	want := newEntries(d.want.FDB)
	have := newEntries(nil)
	kept := d.kept()
	var ops []op
	for _, f := range d.have.FDB {
		dev := ref{f.NS, f.Dev}
		if !kept[dev] {
			continue
		}
		if f.Dst.IsValid() {
			have.add(f)
			if !want.hasSelf(f) {
				ops = append(ops, delFDB(f))
			}
		}
		if f.Bridge && !d.dead[dev].bridge {
			have.bridge[fdbKey{dev, f.MAC}] = true
			if !want.bridge[fdbKey{dev, f.MAC}] {
				ops = append(ops, delBridgeFDB(f))
			}
		}
	}
	for _, f := range d.want.FDB {
		key := fdbKey{ref{f.NS, f.Dev}, f.MAC}
		if !have.matches(f) {
			ops = append(ops, addFDB(f))
		}
		if f.Bridge && !have.bridge[key] {
			ops = append(ops, addBridgeFDB(f))
		}
	}
	return ops
}

type fdbKey struct {
	dev ref
	mac MAC
}

type floodKey struct {
	dev ref
	dst netip.Addr
}

// entries indexes forwarding entries: one destination for a MAC, any number for the zero MAC.
type entries struct {
	self   map[fdbKey]netip.Addr
	flood  map[floodKey]bool
	bridge map[fdbKey]bool
}

func newEntries(list []FDB) entries {
	e := entries{make(map[fdbKey]netip.Addr, len(list)), make(map[floodKey]bool), make(map[fdbKey]bool, len(list))}
	for _, f := range list {
		e.add(f)
		if f.Bridge {
			e.bridge[fdbKey{ref{f.NS, f.Dev}, f.MAC}] = true
		}
	}
	return e
}

func (e entries) add(f FDB) {
	dev := ref{f.NS, f.Dev}
	if f.MAC == (MAC{}) {
		e.flood[floodKey{dev, f.Dst}] = true
	} else {
		e.self[fdbKey{dev, f.MAC}] = f.Dst
	}
}

// hasSelf says whether there is an entry that f either is or is replaced by.
func (e entries) hasSelf(f FDB) bool {
	dev := ref{f.NS, f.Dev}
	if f.MAC == (MAC{}) {
		return e.flood[floodKey{dev, f.Dst}]
	}
	_, ok := e.self[fdbKey{dev, f.MAC}]
	return ok
}

func (e entries) matches(f FDB) bool {
	dev := ref{f.NS, f.Dev}
	if f.MAC == (MAC{}) {
		return e.flood[floodKey{dev, f.Dst}]
	}
	return e.self[fdbKey{dev, f.MAC}] == f.Dst
}

func (d *differ) neighs() []op {
	type key struct {
		dev ref
		ip  netip.Addr
	}
	want := make(map[key]bool, len(d.want.Neighs))
	for _, n := range d.want.Neighs {
		want[key{ref{n.NS, n.Dev}, n.IP}] = true
	}
	kept := d.kept()
	have := make(map[Neigh]bool, len(d.have.Neighs)) // false for one that dies
	var ops []op
	for _, n := range d.have.Neighs {
		dev := ref{n.NS, n.Dev}
		if !kept[dev] {
			continue
		}
		have[n] = !d.dead[dev].neighs && !(d.dead[dev].v6 && n.IP.Is6())
		if have[n] && !want[key{dev, n.IP}] {
			ops = append(ops, delNeigh(n))
		}
	}
	for _, n := range d.want.Neighs {
		entry := n
		entry.Announce = false // which the kernel does not keep
		lives, known := have[entry]
		if !lives {
			ops = append(ops, addNeigh(n))
		}
		if n.Announce && !known {
			ops = append(ops, d.announce(ref{n.NS, n.Dev}, n.IP, n.MAC)...)
		}
	}
	return ops
}
