package driver

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
)

// remote is what a network has behind other VTEPs, the same for the same records on every host. nw.mu is held.
func (d *Driver) remote(nw *network) Remote {
	if nw.Shared == "" || d.Records == nil {
		return Remote{}
	}
	var r Remote
	for _, n := range d.Records.Nodes() {
		r.Nodes = append(r.Nodes, n.Addr)
	}
	slices.SortFunc(r.Nodes, netip.Addr.Compare)
	r.Nodes = slices.Compact(r.Nodes)
	if len(nw.endpoints) == 0 {
		return r
	}
	seen := taken{macs: map[kernel.MAC]string{}, addrs: map[netip.Addr]string{}}
	for _, e := range nw.endpoints {
		seen.take(e)
	}
	rows := d.Records.Remote(nw.Shared)
	slices.SortFunc(rows, func(a, b cluster.Row) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	for _, row := range rows {
		r.VTEPs = append(r.VTEPs, row.Node.Addr)
		for _, id := range slices.Sorted(maps.Keys(row.Records)) {
			e, err := decodeRecord(row.Records[id])
			if err != nil {
				d.log(nw.ID).WithError(err).WithField("node", row.Node.Name).Warn("record of a remote endpoint refused")
				continue
			}
			e.ID, e.Network, e.VTEP = id, nw.ID, row.Node.Addr
			if other, clash := seen.take(e); clash {
				d.log(nw.ID).WithField("node", row.Node.Name).WithField("mac", e.MAC).
					Errorf("remote endpoint %s claims what endpoint %s has; it is not reachable from here", short(id), short(other))
				continue
			}
			r.Endpoints = append(r.Endpoints, e)
		}
	}
	slices.SortFunc(r.VTEPs, netip.Addr.Compare)
	r.VTEPs = slices.Compact(r.VTEPs)
	return r
}

// taken finds two endpoints that claim one MAC or address. The first wins; the order of the nodes' identifiers makes it
// the same one on all hosts that have neither.
type taken struct {
	macs  map[kernel.MAC]string
	addrs map[netip.Addr]string
}

func (t taken) take(e Endpoint) (other string, clash bool) {
	if other, clash = t.macs[e.MAC]; clash {
		return other, true
	}
	for _, a := range e.Addrs {
		if other, clash = t.addrs[a.Addr()]; clash {
			return other, true
		}
	}
	t.macs[e.MAC] = e.ID
	for _, a := range e.Addrs {
		t.addrs[a.Addr()] = e.ID
	}
	return "", false
}
