package kernel

import (
	"fmt"
	"strings"
)

// read is what the owner has now, and what a Set of want needs to know of the rest.
func (k *Kernel) read(owner string, want State) (*scope, snapshot, error) {
	s := &scope{k: k, owner: owner, index: make(map[ref]int), rules: make(map[NS]int)}
	var have snapshot
	devices, err := k.relevant(owner, want)
	if err != nil {
		return nil, have, err
	}
	for _, d := range devices {
		s.index[ref{d.NS, d.Name}] = d.index
	}
	owned, err := claim(devices, owner, want)
	if err != nil {
		return nil, have, err
	}
	have.unmarked = make(map[ref]bool)
	for _, d := range owned {
		have.Links = append(have.Links, d.Link)
		have.unmarked[ref{d.NS, d.Name}] = d.alias == ""
	}
	for _, sp := range k.spaces() {
		if err := sp.readEntries(&have.State, owned); err != nil {
			return nil, have, fmt.Errorf("namespace %s: %w", nsName(sp.ns), err)
		}
		rules, err := sp.readRules()
		if err != nil {
			return nil, have, err
		}
		s.rules[sp.ns] = len(rules)
		for _, r := range rules {
			if r.owner == owner {
				have.rules = append(have.rules, r.heldRule)
			}
		}
	}
	have.Sysctls, err = k.readSysctls(want.Sysctls)
	return s, have, err
}

// devices are all links of all namespaces.
func (k *Kernel) devices() ([]device, error) {
	var all []device
	for _, sp := range k.spaces() {
		devices, err := sp.devices()
		if err != nil {
			return nil, fmt.Errorf("%s link show: %w", in("ip", sp.ns), err)
		}
		all = append(all, devices...)
	}
	pairUp(all)
	return all, nil
}

// claim picks the devices of an owner: those that carry its alias, and those without an alias whose name is one of ours
// and wanted, wherever they are. It is an error when a wanted name is taken by anybody else.
func claim(devices []device, owner string, want State) ([]device, error) {
	names := make(map[string]bool, len(want.Links))
	places := make(map[ref]bool, len(want.Links))
	for _, l := range want.Links {
		names[l.Name] = true
		places[ref{l.NS, l.Name}] = true
	}
	var owned []device
	for _, d := range devices {
		claimed, marked := strings.CutPrefix(d.alias, aliasPrefix)
		switch {
		case marked && claimed == owner:
			owned = append(owned, d)
		case d.alias == "" && isOurs(d.Name) && names[d.Name], owner == Unclaimed && d.unclaimed(devices):
			owned = append(owned, d)
		case !places[ref{d.NS, d.Name}]:
		case marked:
			return nil, fmt.Errorf("link %s: belongs to %s already", ref{d.NS, d.Name}, claimed)
		default:
			return nil, fmt.Errorf("link %s: exists and is not ours", ref{d.NS, d.Name})
		}
	}
	return owned, nil
}

// unclaimed says whether a device with a name of ours is nobody's. The container end of a pair is never marked, for it
// would take the mark into the container: it belongs to whom the host's end belongs to, and so does an end that a crash
// left unmarked.
func (d device) unclaimed(devices []device) bool {
	if d.alias != "" || !isOurs(d.Name) {
		return false
	}
	if d.Veth == nil || d.Veth.Peer == "" {
		return true
	}
	for _, o := range devices {
		if o.Name == d.Veth.Peer && o.NS == d.Veth.PeerNS && o.alias != "" {
			return false
		}
	}
	return !strings.HasPrefix(d.Name, KindContainerEnd)
}
