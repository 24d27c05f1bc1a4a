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

// remote is what a network has behind other VTEPs, the same for the same records on every host, and a sentence about the
// records that are not believed. One that cannot be is left out: it must not keep the others from the kernel.
func (d *Driver) remote(n content) (r Remote, refused string) {
	if n.Shared == "" || d.Records == nil {
		return r, ""
	}
	for _, node := range d.Records.Nodes() {
		if node.Addr.IsValid() {
			r.Nodes = append(r.Nodes, node.Addr)
		}
	}
	r.Nodes = sorted(r.Nodes)
	if len(n.endpoints) == 0 {
		return r, ""
	}
	seen := taken{macs: map[kernel.MAC]string{}, addrs: map[netip.Addr]string{}}
	for _, e := range n.endpoints {
		seen.take(e)
	}
	rows := d.Records.Remote(n.Shared)
	slices.SortFunc(rows, func(a, b cluster.Row) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	count := 0
	for _, row := range rows {
		r.VTEPs = append(r.VTEPs, row.Node.Addr)
		for _, id := range slices.Sorted(maps.Keys(row.Records)) {
			e, err := n.admit(id, row)
			if err == nil {
				err = seen.take(e)
			}
			if err == nil {
				r.Endpoints = append(r.Endpoints, e)
			} else if count++; count == 1 {
				refused = fmt.Sprintf("what node %s says of endpoint %.12q is not believed: %v", row.Node.Name, id, err)
			}
		}
	}
	if count > 1 {
		refused += fmt.Sprintf(" (and %d more)", count-1)
	}
	r.VTEPs = sorted(r.VTEPs)
	return r, refused
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
			return e, fmt.Errorf("address %s is none for endpoints in %v", a.Addr(), prefixesOf(n.Network))
		}
	}
	e.ID, e.Network, e.VTEP = id, n.ID, row.Node.Addr
	return e, nil
}

// taken finds two endpoints that claim one MAC or address. The first wins; the order of the nodes' identifiers makes it
// the same one on all hosts that have neither.
type taken struct {
	macs  map[kernel.MAC]string
	addrs map[netip.Addr]string
}

func (t taken) take(e Endpoint) error {
	if other, clash := t.macs[e.MAC]; clash {
		return fmt.Errorf("MAC address %s is that of endpoint %.12q", e.MAC, other)
	}
	for _, a := range e.Addrs {
		if other, clash := t.addrs[a.Addr()]; clash {
			return fmt.Errorf("address %s is that of endpoint %.12q", a.Addr(), other)
		}
	}
	t.macs[e.MAC] = e.ID
	for _, a := range e.Addrs {
		t.addrs[a.Addr()] = e.ID
	}
	return nil
}
