package driver

import (
	"cmp"
	"slices"
)

// Networks is what `carrick networks` shows, sorted by identifier.
func (d *Driver) Networks() []NetworkStatus {
	all := []NetworkStatus{}
	for _, nw := range d.all() {
		nw.mu.Lock()
		s := NetworkStatus{
			ID: nw.ID, Mode: nw.Mode, Shared: nw.Shared, Name: nw.Name, VNI: nw.VNI, MTU: nw.MTU, Internal: nw.Internal,
			Local: len(nw.endpoints), Remote: len(d.remote(nw).Endpoints),
		}
		for _, p := range prefixesOf(nw.Network) {
			s.Subnets = append(s.Subnets, p.String())
		}
		if nw.problem != nil {
			s.Problem = nw.problem.Error()
		}
		nw.mu.Unlock()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b NetworkStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Endpoints is what `carrick endpoints` shows: those here first, then by network, node and identifier.
func (d *Driver) Endpoints() []EndpointStatus {
	all := []EndpointStatus{}
	for _, nw := range d.all() {
		nw.mu.Lock()
		for _, e := range nw.endpoints {
			all = append(all, statusOf(e, ""))
		}
		remote := d.remote(nw).Endpoints
		nw.mu.Unlock()
		nodes := map[string]string{}
		if d.Records != nil {
			for _, n := range d.Records.Nodes() {
				nodes[n.Addr.String()] = n.Name
			}
		}
		for _, e := range remote {
			all = append(all, statusOf(e, nodes[e.VTEP.String()]))
		}
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int {
		return cmp.Or(cmp.Compare(a.VTEP, b.VTEP), cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Alarms are sentences about networks that are not as they should be.
func (d *Driver) Alarms() []string {
	var all []string
	for _, n := range d.Networks() {
		if n.Problem != "" {
			all = append(all, "network "+short(n.ID)+": "+n.Problem)
		}
	}
	return all
}

func statusOf(e Endpoint, node string) EndpointStatus {
	s := EndpointStatus{Network: e.Network, ID: e.ID, MAC: e.MAC.String(), Node: node}
	for _, a := range e.Addrs {
		s.Addrs = append(s.Addrs, a.String())
	}
	if e.VTEP.IsValid() {
		s.VTEP = e.VTEP.String()
	}
	return s
}
