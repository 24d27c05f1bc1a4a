package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// AddressStatus is who has an address of one pool.
type AddressStatus struct {
	Addr    netip.Addr   `json:"addr"`
	Subnet  netip.Prefix `json:"subnet"`
	Name    string       `json:"name,omitempty"`    // of the network
	Network string       `json:"network,omitempty"` // Docker's id
	Shared  string       `json:"shared,omitempty"`  // the cluster's id
	Mode    string       `json:"mode,omitempty"`
	State   AddressState `json:"state"`

	// Of a network of the cluster: who gives the address. The zero Block: nobody.
	Block     netip.Prefix `json:"block,omitzero"`
	Host      string       `json:"host,omitempty"`
	HostState string       `json:"host_state,omitempty"`
	Silent    time.Time    `json:"silent,omitzero"` // since when the host does not answer

	// Of what is handed out.
	Here     bool      `json:"here,omitempty"` // on this host
	Endpoint string    `json:"endpoint,omitempty"`
	MAC      string    `json:"mac,omitempty"`
	Holder   string    `json:"holder,omitempty"` // name of the container, or of --aux-address, if it is known
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"` // resting

	Note string `json:"note,omitempty"` // why it is so, or cannot be said
}

// ParseAddress reads an address as people write it, with the length of its subnet or without.
func ParseAddress(s string) (netip.Addr, error) { return parseAddress(s) }

// Who says who has an address, by a Survey: one answer for each pool around it.
func Who(pools []PoolStatus, addr netip.Addr, e Elsewhere) ([]AddressStatus, error) {
	var all []AddressStatus
	for _, p := range pools {
		if p.Subnet.Contains(addr) {
			all = append(all, p.who(addr, e))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("address %s is outside every pool; %s", addr, known(pools))
	}
	return all, nil
}

func (p PoolStatus) who(addr netip.Addr, e Elsewhere) AddressStatus {
	a := AddressStatus{Addr: addr, Subnet: p.Subnet, Name: p.Name, Network: p.Network, Shared: p.Shared, Mode: p.Mode}
	if p.Network != "" {
		a.Mode = e.Modes[p.Network]
	}
	block, owned := longest(p.Blocks)(addr)
	if owned && p.subnet.Usable(addr) {
		a.Block, a.Host, a.HostState, a.Silent = block.Prefix, block.Host, block.State, block.Silent
	}
	taken := p.Taken()
	n := slices.IndexFunc(taken, func(l LeaseStatus) bool { return l.Addr == addr })
	switch {
	case n >= 0:
		l := taken[n]
		a.State, a.Endpoint, a.MAC, a.Holder, a.Since, a.Until = l.State, l.Endpoint, l.MAC, l.Name, l.Since, l.Until
		a.Here = l.State == StateUsed || l.State == StateIdle || l.State == StateResting
	case !p.subnet.Usable(addr):
		a.State = StateUnusable
	case p.Shared == "":
		a.State = StateFree
	case p.Stale && !(owned && block.Mine):
		a.State, a.Note = StateUnknown, "what this host knows of the cluster is older than its part in the network, or it is in no cluster any more"
	case !owned:
		a.State, a.Note = StateFree, "in a block that no host has"
	case block.Mine:
		a.State, a.Note = p.ours(addr, *block)
	default:
		a.heard(*block, e)
	}
	return a
}

// ours says what is the matter with an address of a block of ours that is not handed out.
func (p PoolStatus) ours(addr netip.Addr, block BlockStatus) (AddressState, string) {
	_, given := p.excluded[addr]
	switch {
	case p.Absent():
		return StateUnknown, "the network is not on this host any more"
	case block.Frozen:
		return StateUnknown, "the block is frozen: what was handed out of it was lost with a damaged or older store"
	case block.GivenUp:
		return StateUnknown, "this host is giving the block back"
	case given:
		return StateUnknown, "it is being given to another host, which asked for it"
	}
	return StateFree, "on this host"
}

// heard says what the host that has the block tells of an address.
func (a *AddressStatus) heard(block BlockStatus, e Elsewhere) {
	told, heard := e.Told(a.Shared)
	for _, t := range told {
		if t.Node == block.node && slices.Contains(t.Addrs, a.Addr) {
			a.State, a.Endpoint, a.MAC = StateUsed, t.Endpoint, t.MAC
			return
		}
	}
	switch {
	case block.Stranded:
		a.State, a.Note = StateUnknown, "its host does not answer"
	case !heard:
		a.State, a.Note = StateUnknown, "this host has no container in the network, and does not hear of others: ask on "+block.Host
	default:
		a.State, a.Note = StateUnused, "as "+block.Host+" tells; ask there whether it rests"
	}
}
