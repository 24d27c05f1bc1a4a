package driver

import (
	"cmp"
	"maps"
	"slices"
)

// contents are what there is now, for those who only look: they wait for nobody, and nobody for them.
func (d *Driver) contents() []content {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]content, 0, len(d.networks))
	for _, nw := range d.networks {
		c := nw.content
		c.endpoints = maps.Clone(c.endpoints)
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b content) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Networks is what `carrick networks` shows, sorted by identifier.
func (d *Driver) Networks() []NetworkStatus {
	all := []NetworkStatus{}
	for _, c := range d.contents() {
		remote := d.remote(c)
		s := NetworkStatus{
			ID: c.ID, Mode: c.Mode, Shared: c.Shared, Name: c.Name, VNI: c.VNI, MTU: c.MTU, Internal: c.Internal,
			Local: len(c.endpoints), Remote: len(remote.Endpoints), Refused: remote.count,
		}
		for _, p := range c.Network.Prefixes() {
			s.Subnets = append(s.Subnets, p.String())
		}
		if problems := d.problems(c); len(problems) > 0 {
			s.Problem = problems[0]
		}
		all = append(all, s)
	}
	return all
}

// MTUs are the networks of a mode with nothing but what they are known by and their MTU.
func (d *Driver) MTUs(mode string) []NetworkStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []NetworkStatus
	for _, nw := range d.networks {
		if nw.Mode == mode {
			all = append(all, NetworkStatus{ID: short(nw.ID), Name: nw.Name, MTU: nw.MTU})
		}
	}
	slices.SortFunc(all, func(a, b NetworkStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Endpoints is what `carrick endpoints` shows: those here first, then by network, node and identifier.
func (d *Driver) Endpoints() []EndpointStatus {
	nodes := map[string]string{}
	if d.Records != nil {
		for _, n := range d.Records.Nodes() {
			nodes[n.Addr.String()] = n.Name
		}
	}
	all := []EndpointStatus{}
	for _, c := range d.contents() {
		for _, e := range c.endpoints {
			all = append(all, statusOf(e, ""))
		}
		remote := d.remote(c)
		for _, e := range remote.Endpoints {
			all = append(all, statusOf(e, nodes[e.VTEP.String()]))
		}
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int {
		return cmp.Or(cmp.Compare(a.VTEP, b.VTEP), cmp.Compare(a.Network, b.Network), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Heard is an endpoint as another node tells of it.
type Heard struct {
	Node string // id
	Endpoint
}

// Heard is what the other nodes tell of a network of the cluster, believed or not; what cannot be read is left out. It is
// false where this host does not listen, since it has no endpoint in that network.
func (d *Driver) Heard(shared string) ([]Heard, bool) {
	listens := slices.ContainsFunc(d.contents(), func(c content) bool { return c.Shared == shared && len(c.endpoints) > 0 })
	if shared == "" || d.Records == nil || !listens {
		return nil, false
	}
	var all []Heard
	for _, row := range d.Records.Remote(shared) {
		for _, id := range sortedKeys(row.Records) {
			if e, err := decodeRecord(row.Records[id]); err == nil {
				e.ID = id
				all = append(all, Heard{row.Node.ID, e})
			}
		}
	}
	return all, true
}

// ModeOf are the modes of the networks by Docker's identifiers.
func (d *Driver) ModeOf() map[string]string {
	modes := map[string]string{}
	for _, c := range d.contents() {
		modes[c.ID] = c.Mode
	}
	return modes
}

// Alarms are sentences about what is not as it should be.
func (d *Driver) Alarms() []string {
	var all []string
	for _, c := range d.contents() {
		for _, problem := range d.problems(c) {
			all = append(all, "network "+short(c.ID)+": "+problem)
		}
	}
	d.mu.Lock()
	broken := d.guard.err
	d.mu.Unlock()
	if broken != nil {
		all = append(all, unguarded+": "+broken.Error())
	}
	for _, shared := range d.leaving() {
		all = append(all, "network "+shared+" left this host, and the cluster has not heard of it yet")
	}
	return all
}

// problems are what is wrong with a network, the worst first.
func (d *Driver) problems(c content) []string {
	var all []string
	if c.problem != nil {
		all = append(all, c.problem.Error())
	}
	for _, problem := range []string{d.disowned(c.Network), c.refused} {
		if problem != "" {
			all = append(all, problem)
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
