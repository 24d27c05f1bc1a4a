package bridge

import (
	"context"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

// defaultMTU is Ethernet's payload in bytes (IEEE 802.3): what Docker's own bridge has by default.
const defaultMTU = 1500

// Open returns the plan of a bridge network.
func Open(_ context.Context, n *driver.Network) (driver.Plan, error) {
	if err := driver.CheckOptions(n, driver.OptionMTU); err != nil {
		return nil, err
	}
	if n.MTU == 0 {
		n.MTU = defaultMTU
	}
	return plan{
		bridge:   Device(kernel.Name("ckb", n.ID), n.MTU),
		subnets:  n.Prefixes(),
		internal: n.Internal,
	}, nil
}

type plan struct {
	bridge   kernel.Link
	subnets  []netip.Prefix
	internal bool
}

func (p plan) Network(driver.Remote) kernel.State {
	return kernel.State{Links: []kernel.Link{p.bridge}}
}

func (p plan) Endpoint(e driver.Endpoint) (kernel.State, driver.Attachment) {
	return Port(p.bridge, e, p.subnets, p.internal)
}

// Device is the bridge of a network. It forwards multicast to every port: without a querier on the network, snooping
// would only add state.
func Device(name string, mtu int) kernel.Link {
	return kernel.Link{Name: name, NS: kernel.Shared, MTU: mtu, Up: true, Bridge: &kernel.Bridge{}}
}

// Port is a container's place on a bridge: a veth pair whose far end waits in the host's namespace for the engine. The other
// containers are told of its addresses, which may have been another's. The bridge learns nothing at the port: it knows the
// container's MAC, and a container that sends with another's would otherwise take that one's place, also if the entry is a
// static one (br_fdb_update, Linux 6.18). A network that is not internal gets its way outwards from docker_gwbridge, and none to
// its other subnets: those are on the same wire, and the container has routes that say so.
func Port(bridge kernel.Link, e driver.Endpoint, subnets []netip.Prefix, internal bool) (kernel.State, driver.Attachment) {
	host, container := kernel.Name("ckh", e.ID), kernel.Name("ckc", e.ID)
	veth := kernel.Veth{Peer: container, PeerNS: kernel.Host, PeerMAC: e.MAC, PeerMTU: bridge.MTU}
	for _, a := range e.Addrs {
		veth.Announce = append(veth.Announce, a.Addr())
	}
	state := kernel.State{
		Links: []kernel.Link{{
			Name: host, NS: kernel.Shared, MTU: bridge.MTU, Master: bridge.Name, Up: true, NoLearning: true, Veth: &veth,
		}},
		FDB: []kernel.FDB{{NS: kernel.Shared, Dev: host, MAC: e.MAC, Bridge: true}},
	}
	return state, driver.Attachment{Link: container, Prefix: "eth", Routes: beside(e, subnets), NoGatewayService: internal}
}

// beside are routes to the subnets of a network in which a container has no address, for the families that it has.
func beside(e driver.Endpoint, subnets []netip.Prefix) []kernel.Route {
	var all []kernel.Route
	for _, s := range subnets {
		within := func(a netip.Prefix) bool { return s.Contains(a.Addr()) }
		family := func(a netip.Prefix) bool { return s.Addr().Is4() == a.Addr().Is4() }
		if slices.ContainsFunc(e.Addrs, family) && !slices.ContainsFunc(e.Addrs, within) {
			all = append(all, kernel.Route{Dst: s})
		}
	}
	return all
}
