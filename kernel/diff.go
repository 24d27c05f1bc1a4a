package kernel

import (
	"strings"
)

// A snapshot is what the kernel has of one owner.
type snapshot struct {
	State                 // Rules stays empty
	unmarked map[ref]bool // links recognised by their name alone
	renamed  []renameLink // links that stand here by the name they are to have again
	rules    []heldRule
	unguided map[NS]bool // where signposts are missing, to whosever rules
	// remembered says that FDB and Neighs are what the last Set wanted, in its order, and not what was read.
	remembered bool
}

// String is the State as commands, one a line: those Set would run where there is nothing. A link is created together with
// its mark (`ip link set … alias "carrick OWNER"`) and with addrgenmode none, which are the same for all and not printed.
// For an announcement there is no command; it is a comment.
func (s State) String() string {
	var b strings.Builder
	for _, o := range diff(snapshot{}, s) {
		if _, mark := o.(adoptLink); mark {
			continue
		}
		all, many := o.(setEntries)
		if !many {
			b.WriteString(o.String() + "\n")
		}
		for _, e := range all {
			b.WriteString(e.String())
			if e.announce {
				b.WriteString(" # changes are announced")
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Empty says whether s is the zero State.
func (s State) Empty() bool {
	return len(s.Links)+len(s.Addrs)+len(s.Routes)+len(s.FDB)+len(s.Neighs)+len(s.Sysctls)+len(s.Rules) == 0
}

// diff is what must be done, in this order, to make have into want.
func diff(have snapshot, want State) []op {
	d := differ{have: have, want: want, dead: make(map[ref]deaths), shaken: make(map[ref]bool)}
	d.links()
	before, after := diffRules(have.rules, want.Rules, have.unguided, len(d.delete) != 0)
	ops := append(before, together(d.delete)...)
	for _, o := range have.renamed {
		ops = append(ops, o)
	}
	ops = append(ops, d.create...)
	ops = append(ops, d.sysctls()...)
	ops = append(ops, d.change...)
	ops = append(ops, d.addrs()...)
	ops = append(ops, d.routes()...)
	neighs, said := d.neighs()
	if entries := append(d.fdb(), neighs...); len(entries) != 0 {
		ops = append(ops, setEntries(entries))
	}
	return append(append(ops, said...), after...)
}

// deaths are the entries of a link that the kernel drops by itself when the link is changed, seen on Linux 6.18.
type deaths struct {
	all     bool // the link is new
	sysctls bool
	v6      bool // all of IPv6: addresses, routes and neighbours
	routes  bool
	neighs  bool
	bridge  bool // the bridge's entries that lead to this port
}

type differ struct {
	have           snapshot
	want           State
	dead           map[ref]deaths
	shaken         map[ref]bool // links that lose addresses
	wanted         map[ref]Link
	announced      int // how many announcements there are
	delete         []ref
	create, change []op
}

func (d *differ) links() {
	want := make(map[ref]Link, len(d.want.Links))
	for _, l := range d.want.Links {
		want[ref{l.NS, l.Name}] = l
	}
	d.wanted = want
	gone := make(map[ref]bool)
	have := make(map[ref]Link, len(d.have.Links))
	for _, l := range d.have.Links {
		r := ref{l.NS, l.Name}
		have[r] = l
		w, ok := want[r]
		lost := ok && w.Veth != nil && l.Veth != nil && l.Veth.Peer == "" && wantsBoth(want, w)
		if (!ok || lost || !compatible(l, w)) && !gone[r] {
			d.delete = append(d.delete, r)
			gone[r] = true
			if l.Veth != nil { // a pair dies together
				gone[ref{l.Veth.PeerNS, l.Veth.Peer}] = true
			}
		}
	}
	born := make(map[ref]Link)
	for _, w := range d.want.Links {
		r := ref{w.NS, w.Name}
		h, ok := have[r]
		other, twin := born[r]
		switch {
		case ok && !gone[r]:
			if d.have.unmarked[r] {
				d.create = append(d.create, adoptLink{r})
			}
		case twin: // made as the other end of a pair
			d.create = append(d.create, adoptLink{r})
			d.dead[r] = deaths{all: true, sysctls: true}
			h = other
		default:
			d.create = append(d.create, addLink{w})
			d.dead[r] = deaths{all: true, sysctls: true}
			h = Link{MAC: w.MAC, MTU: w.MTU, Bridge: w.Bridge}
			if w.Veth != nil {
				born[ref{w.Veth.PeerNS, w.Veth.Peer}] = Link{MAC: w.Veth.PeerMAC, MTU: w.Veth.PeerMTU}
			}
		}
		if gone[ref{h.NS, h.Master}] { // released by the kernel
			h.Master = ""
			d.kill(r, deaths{bridge: true})
		}
		if regainsIPv6(h, w) {
			h = d.revive(r, h, w)
		}
		d.attributes(r, h, w)
	}
}

// wantsBoth says whether the other end of a pair is wanted as a link as well, and so must stay in sight.
func wantsBoth(want map[ref]Link, l Link) bool {
	_, both := want[ref{l.Veth.PeerNS, l.Veth.Peer}]
	return both
}

// compatible says whether have can be made into want without being made anew.
func compatible(have, want Link) bool {
	switch {
	case want.Bridge != nil:
		return have.Bridge != nil
	case want.VXLAN != nil:
		return have.VXLAN != nil && *have.VXLAN == *want.VXLAN
	default:
		// The other end is out of sight once the engine has it: its name is then empty.
		return have.Veth != nil && (have.Veth.Peer == "" ||
			have.Veth.Peer == want.Veth.Peer && have.Veth.PeerNS == want.Veth.PeerNS)
	}
}

// attributes brings a link to what is wanted, down before and up after the rest.
func (d *differ) attributes(r ref, have, want Link) {
	add := func(o op) { d.change = append(d.change, o) }
	if have.Up && !want.Up {
		add(setUp{r, false})
		d.kill(r, deaths{v6: true, routes: true, neighs: true})
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		add(setMTU{r, want.MTU})
		if want.MTU < minIPv6MTU {
			d.kill(r, deaths{v6: true})
		}
	}
	if want.MAC != (MAC{}) && have.MAC != want.MAC {
		add(setMAC{r, want.MAC})
		d.kill(r, deaths{neighs: true})
	}
	if want.Bridge != nil && have.Bridge.MulticastSnooping != want.Bridge.MulticastSnooping {
		add(setSnooping{r, want.Bridge.MulticastSnooping})
	}
	if have.Master != want.Master {
		add(setMaster{r, want.Master})
		d.kill(r, deaths{bridge: true})
		have.NoLearning, have.NeighSuppress, have.Isolated = false, false, false
	}
	if want.Master != "" {
		if flags := portFlags(have, want); len(flags) != 0 {
			add(setPort{r, flags})
		}
	}
	if !have.Up && want.Up {
		add(setUp{r, true})
	}
	d.change = append(d.change, d.newcomer(have, want)...)
}

// minIPv6MTU is the least MTU of IPv6 (RFC 8200 section 5). The kernel takes IPv6 off a device that gets less: addresses,
// routes, neighbours and the directory of its sysctls (seen on Linux 6.18).
const minIPv6MTU = 1280

func regainsIPv6(have, want Link) bool {
	return have.MTU != 0 && have.MTU < minIPv6MTU && want.MTU >= minIPv6MTU
}

// revive raises an MTU to where the device has IPv6 again. That begins at the defaults, with a link-local address at once if
// the device is up, so it is down until addrgenmode and the sysctls are written.
func (d *differ) revive(r ref, have, want Link) Link {
	if have.Up {
		d.create = append(d.create, setUp{r, false})
		d.kill(r, deaths{routes: true, neighs: true})
	}
	d.create = append(d.create, setMTU{r, want.MTU}, adoptLink{r})
	d.kill(r, deaths{sysctls: true, v6: true})
	have.Up, have.MTU = false, want.MTU
	return have
}

func portFlags(have, want Link) []portFlag {
	var flags []portFlag
	if have.NoLearning != want.NoLearning {
		flags = append(flags, portFlag{"learning", !want.NoLearning})
	}
	if have.NeighSuppress != want.NeighSuppress {
		flags = append(flags, portFlag{"neigh_suppress", want.NeighSuppress})
	}
	if have.Isolated != want.Isolated {
		flags = append(flags, portFlag{"isolated", want.Isolated})
	}
	return flags
}

func (d *differ) kill(r ref, more deaths) {
	old := d.dead[r]
	d.dead[r] = deaths{
		all:     old.all || more.all,
		sysctls: old.sysctls || more.sysctls,
		v6:      old.v6 || more.v6,
		routes:  old.routes || more.routes,
		neighs:  old.neighs || more.neighs,
		bridge:  old.bridge || more.bridge,
	}
}

// kept says whether a link that the kernel has is still the same after the changes. Entries of others died with them.
func (d *differ) kept() map[ref]bool {
	kept := make(map[ref]bool)
	for _, l := range d.want.Links {
		if r := (ref{l.NS, l.Name}); !d.dead[r].all {
			kept[r] = true
		}
	}
	return kept
}
