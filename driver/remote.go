package driver

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
)

// behind is what a network has behind other VTEPs.
type behind struct {
	Remote
	refused string                // a sentence about the records that are not believed
	count   int                   // of them
	macs    map[kernel.MAC]holder // who has which MAC
}

// holder is an endpoint as one node tells of it.
type holder struct{ node, id string }

// remoteClaim is an endpoint that a node says it has.
type remoteClaim struct {
	row int // of the node
	Endpoint
}

// sortedKeys makes room for all at once: there may be thousands.
func sortedKeys(records map[string][]byte) []string {
	keys := slices.AppendSeq(make([]string, 0, len(records)), maps.Keys(records))
	slices.Sort(keys)
	return keys
}

// remote is what a network has behind other VTEPs, the same for the same facts and records on every host, but for MACs that
// two claim. A record that is not believed is left out: it must not keep the others from the kernel.
func (d *Driver) remote(n content) (b behind) {
	if n.Shared == "" || d.Records == nil {
		return b
	}
	for _, node := range d.Records.Nodes() {
		if node.Addr.IsValid() {
			b.Nodes = append(b.Nodes, node.Addr)
		}
	}
	b.Nodes = sorted(b.Nodes)
	if len(n.endpoints) == 0 {
		return b
	}
	rows := d.Records.Remote(n.Shared)
	slices.SortFunc(rows, func(a, b cluster.Row) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	owners, judge := d.owners(n.Shared)
	about := len(n.endpoints)
	for _, row := range rows {
		about += len(row.Records)
	}
	seen := taken{macs: make(map[kernel.MAC]holder, about), addrs: make(map[netip.Addr]string, about)}
	for _, e := range n.endpoints {
		seen.take(e, holder{id: e.ID})
	}
	b.Endpoints = make([]Endpoint, 0, about)
	var fresh []remoteClaim // those that had their MACs when they were looked at last go first
	refuse := func(row cluster.Row, id string, err error) {
		if b.count++; b.count == 1 {
			b.refused = fmt.Sprintf("what node %s says of endpoint %.12q is not believed: %v", row.Node.Name, id, err)
		}
	}
	take := func(row cluster.Row, e Endpoint) {
		if err := seen.take(e, holder{row.Node.ID, e.ID}); err != nil {
			refuse(row, e.ID, err)
			return
		}
		b.Endpoints = append(b.Endpoints, e)
	}
	for i, row := range rows {
		b.VTEPs = append(b.VTEPs, row.Node.Addr)
		for _, id := range sortedKeys(row.Records) {
			e, err := n.admit(id, row)
			if err == nil && judge {
				err = owns(owners, row.Node.ID, e)
			}
			switch {
			case err != nil:
				refuse(row, id, err)
			case n.macs[e.MAC] == holder{row.Node.ID, id}:
				take(row, e)
			default:
				fresh = append(fresh, remoteClaim{i, e})
			}
		}
	}
	for _, c := range fresh {
		take(rows[c.row], c.Endpoint)
	}
	if b.count > 1 {
		b.refused += fmt.Sprintf(" (and %d more)", b.count-1)
	}
	b.VTEPs, b.macs = sorted(b.VTEPs), seen.macs
	return b
}

// owners says which node may have which address of a network, by the facts of the cluster. It cannot be judged by facts
// that do not have the network: this host has lost its copy, and waits for another.
func (d *Driver) owners(shared string) (cluster.Owners, bool) {
	if d.Facts == nil || d.credulous {
		return cluster.Owners{}, false
	}
	view := d.Facts.View()
	_, ok := view.Network(shared)
	return view.Owners(shared), ok
}

// owns says why an endpoint cannot be its node's: a host gives its containers addresses of its own blocks only.
func owns(owners cluster.Owners, node string, e Endpoint) error {
	for _, a := range e.Addrs {
		if owner, ok := owners.Of(a.Addr()); !ok || owner != node && owner != "" { // "": a newer version's, not understood
			return fmt.Errorf("address %s is in no block that the cluster has given to that node", a.Addr())
		}
	}
	return nil
}

func sorted(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// admit reads a record of another host, and says why it cannot be one of an endpoint of this network.
func (n content) admit(id string, row cluster.Row) (Endpoint, error) {
	if strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" { // Docker's, to be shown on terminals
		return Endpoint{}, errors.New("it is no identifier of Docker's")
	}
	e, err := decodeRecord(row.Records[id])
	if err != nil {
		return e, err
	}
	for _, a := range e.Addrs {
		if !slices.ContainsFunc(n.Subnets, func(s cluster.Subnet) bool { return s.Usable(a.Addr()) }) {
			return e, fmt.Errorf("address %s is none for endpoints in %v", a.Addr(), n.Network.Prefixes())
		}
	}
	e.ID, e.Network, e.VTEP = id, n.ID, row.Node.Addr
	return e, nil
}

// taken finds two endpoints that claim one MAC or address. The first wins: those of this host, those that had the MAC when
// it was looked at last, then by the order of the nodes' identifiers.
type taken struct {
	macs  map[kernel.MAC]holder
	addrs map[netip.Addr]string
}

func (t taken) take(e Endpoint, by holder) error {
	if other, clash := t.macs[e.MAC]; clash {
		return fmt.Errorf("MAC address %s is that of endpoint %.12q", e.MAC, other.id)
	}
	for _, a := range e.Addrs {
		if other, clash := t.addrs[a.Addr()]; clash {
			return fmt.Errorf("address %s is that of endpoint %.12q", a.Addr(), other)
		}
	}
	t.macs[e.MAC] = by
	for _, a := range e.Addrs {
		t.addrs[a.Addr()] = e.ID
	}
	return nil
}
