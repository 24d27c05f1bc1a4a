package kernel

import (
	"fmt"
	"slices"
	"strings"
)

// read is what the owners have now, and what a Set of want needs to know of the rest. recall, if any, may know the tables without
// reading them.
func (k *Kernel) read(want State, owners []string, recall func(owner string, owned []device) *memory) (*scope, snapshot, error) {
	s := &scope{k: k, owner: owners[0], index: make(map[ref]int), rules: make(map[NS][]markedRule)}
	var have snapshot
	devices, err := k.relevant(want, owners)
	if err != nil {
		return nil, have, err
	}
	for _, d := range devices {
		s.index[ref{d.NS, d.Name}] = d.index
	}
	owned, err := claim(devices, want, owners)
	if err != nil {
		return nil, have, err
	}
	have.renamed = s.renamed(owned, want)
	have.unmarked, have.unguided = make(map[ref]bool), make(map[NS]bool)
	for _, d := range owned {
		have.Links = append(have.Links, d.Link)
		have.unmarked[ref{d.NS, d.Name}] = d.alias == ""
	}
	if recall != nil && len(owners) == 1 {
		if m := recall(owners[0], owned); m != nil {
			have.FDB, have.Neighs, have.remembered = m.want.FDB, m.want.Neighs, true
		}
	}
	staying := slices.DeleteFunc(owned, func(d device) bool { return !want.has(d.NS, d.Name) }) // entries die with their link
	for _, sp := range k.spaces() {
		if err := sp.readEntries(&have.State, staying, want, !have.remembered); err != nil {
			return nil, have, fmt.Errorf("namespace %s: %w", nsName(sp.ns), err)
		}
		rules, err := sp.readRules()
		if err != nil {
			return nil, have, err
		}
		s.rules[sp.ns] = rules
		if !guided(rules) {
			have.unguided[sp.ns] = true
		}
		for _, r := range rules {
			if slices.Contains(owners, r.owner) {
				have.rules = append(have.rules, r.heldRule)
			}
		}
	}
	have.Sysctls, err = k.readSysctls(want.Sysctls)
	return s, have, err
}

// has says whether a State has a link.
func (s State) has(ns NS, name string) bool {
	return slices.ContainsFunc(s.Links, func(l Link) bool { return l.NS == ns && l.Name == name })
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

// claim picks the devices of owners: those that carry their aliases, and those without an alias whose name is one of ours
// and wanted, wherever they are. It is an error when a wanted name is taken by anybody else.
func claim(devices []device, want State, owners []string) ([]device, error) {
	mine := make(map[string]bool, len(owners))
	for _, owner := range owners {
		mine[owner] = true
	}
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
		case marked && mine[claimed]:
			owned = append(owned, d)
		case d.alias == "" && isOurs(d.Name) && names[d.Name], mine[Unclaimed] && d.unclaimed(devices):
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

// renamed finds devices that have another name than they were given, and calls them by that one again.
func (s *scope) renamed(owned []device, want State) (ops []renameLink) {
	taken := make(map[ref]bool, len(owned))
	for _, d := range owned {
		taken[ref{d.NS, d.Name}] = true
	}
	for i := range owned {
		d := &owned[i]
		if want.has(d.NS, d.Name) {
			continue
		}
		for _, w := range want.Links {
			now := ref{w.NS, w.Name}
			if w.NS != d.NS || taken[now] || !compatible(d.Link, w) {
				continue
			}
			ops = append(ops, renameLink{now, d.Name})
			for j := range owned {
				if owned[j].NS == d.NS && owned[j].Master == d.Name {
					owned[j].Master = w.Name
				}
			}
			taken[now], s.index[now], d.Name = true, d.index, w.Name
			break
		}
	}
	return ops
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
