package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A place is where a device is found again whatever it is called. Indexes are not used twice in the life of a namespace.
type place struct {
	ns    NS
	index int
	name  string // when it was last seen
}

// remember notes whose device each is. From then on a Set asks for the devices of its owner only: a dump of all costs 25
// microseconds each (Linux 6.18), 15 ms beside 300 containers. What else changes devices of ours than this Kernel is noticed
// by Owners, which looks at all of them.
func (k *Kernel) remember(devices []device) {
	k.known = make(map[string][]place)
	for _, d := range devices {
		if owner, ours := strings.CutPrefix(d.alias, aliasPrefix); ours {
			k.known[owner] = append(k.known[owner], place{d.NS, d.index, d.Name})
		}
	}
}

// forget makes the next Set look at all devices again.
func (k *Kernel) forget() { k.known = nil }

// settled notes what owners have after a Set that succeeded.
func (k *Kernel) settled(s *scope, want State, owners []string) {
	for _, owner := range owners {
		delete(k.known, owner)
	}
	for _, l := range want.Links { // then there is one owner
		k.known[s.owner] = append(k.known[s.owner], place{l.NS, s.index[ref{l.NS, l.Name}], l.Name})
	}
}

// othersShare says whether some owner is known to have a bridge or a VXLAN device in our namespace. Pairs do not count: they
// die with a container and nobody says so.
func (k *Kernel) othersShare() bool {
	for _, places := range k.known {
		for _, p := range places {
			if p.ns == Shared && (strings.HasPrefix(p.name, KindBridge) || strings.HasPrefix(p.name, KindVXLAN)) {
				return true
			}
		}
	}
	return false
}

// fewOwners is up to how many it is quicker to ask for the devices of each than for all.
const fewOwners = 8

// relevant are the devices that a Set must know of: the owners', those with a wanted name, and the masters and other ends
// of all of them.
func (k *Kernel) relevant(want State, owners []string) ([]device, error) {
	if k.known == nil || len(owners) > fewOwners || slices.Contains(owners, Unclaimed) {
		devices, err := k.devices()
		if err == nil {
			k.remember(devices)
		}
		return devices, err
	}
	l := lookup{k: k, seen: make(map[place]bool)}
	for _, owner := range owners {
		for _, p := range k.known[owner] {
			l.byIndex(p.ns, p.index)
		}
	}
	for _, w := range want.Links {
		l.byName(Host, w.Name) // also where it should not be: a crash may have left it there
		l.byName(Shared, w.Name)
		if w.Master != "" {
			l.byName(w.NS, w.Master)
		}
	}
	for i := 0; i < len(l.found); i++ { // found grows meanwhile
		d := l.found[i]
		if d.master != 0 {
			l.byIndex(d.NS, d.master)
		}
		if d.Veth != nil && isOurs(d.Name) {
			l.byIndex(d.otherNS(), d.other)
		}
	}
	if l.err != nil {
		return nil, l.err
	}
	nameMasters(l.found)
	pairUp(l.found)
	return l.found, nil
}

// A lookup gathers devices, each once.
type lookup struct {
	k     *Kernel
	seen  map[place]bool
	found []device
	err   error
}

func (l *lookup) byIndex(ns NS, index int) {
	if l.seen[place{ns: ns, index: index}] {
		return
	}
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	l.ask(ns, fmt.Sprintf("%s link show (index %d)", in("ip", ns), index), head)
}

func (l *lookup) byName(ns NS, name string) {
	for _, d := range l.found {
		if d.NS == ns && d.Name == name {
			return
		}
	}
	l.ask(ns, fmt.Sprintf("%s link show %s", in("ip", ns), name), nl.NewIfInfomsg(unix.AF_UNSPEC),
		attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

func (l *lookup) ask(ns NS, command string, data ...nl.NetlinkRequestData) {
	sp := l.k.space(ns)
	if sp == nil || l.err != nil {
		return
	}
	d, err := sp.one(data...)
	switch {
	case errors.Is(err, unix.ENODEV):
	case err != nil:
		l.err = fmt.Errorf("%s: %w", command, err)
	case !l.seen[place{ns: ns, index: d.index}]:
		l.seen[place{ns: ns, index: d.index}] = true
		l.found = append(l.found, d)
	}
}

// one asks for one link.
func (sp *space) one(data ...nl.NetlinkRequestData) (device, error) {
	msgs, err := sp.request(unix.RTM_GETLINK, 0, data...).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return device{}, err
	}
	if len(msgs) == 0 {
		return device{}, unix.ENODEV
	}
	return parseDevice(sp.ns, msgs[0])
}

// find asks for one link by name.
func (sp *space) find(name string) (device, error) {
	return sp.one(nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
}

// nameMasters fills in the names of masters.
func nameMasters(devices []device) {
	names := make(map[place]string, len(devices))
	for _, d := range devices {
		names[place{ns: d.NS, index: d.index}] = d.Name
	}
	for i := range devices {
		devices[i].Master = names[place{ns: devices[i].NS, index: devices[i].master}]
	}
}
