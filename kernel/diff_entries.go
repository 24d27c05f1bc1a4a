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
