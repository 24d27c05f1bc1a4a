package bridge

import (
	"context"

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
		internal: n.Internal,
	}, nil
}

type plan struct {
	bridge   kernel.Link
	internal bool
}

func (p plan) Network(driver.Remote) kernel.State {
	return kernel.State{Links: []kernel.Link{p.bridge}}
}

func (p plan) Endpoint(e driver.Endpoint) (kernel.State, driver.Attachment) {
	return Port(p.bridge, e, p.internal)
}

// Device is the bridge of a network. It forwards multicast to every port: without a querier on the network, snooping
// would only add state.
func Device(name string, mtu int) kernel.Link {
	return kernel.Link{Name: name, NS: kernel.Shared, MTU: mtu, Up: true, Bridge: &kernel.Bridge{}}
}

// Port is a container's place on a bridge: a veth pair whose far end waits in the host's namespace for the engine. The other
// containers are told of its addresses, which may have been another's. The bridge learns nothing at the port: it knows the
// container's MAC, and a container that sends with another's would otherwise take that one's place, also if the entry is a
// static one (br_fdb_update, Linux 6.18). A network that is not internal gets its way outwards from docker_gwbridge.
func Port(bridge kernel.Link, e driver.Endpoint, internal bool) (kernel.State, driver.Attachment) {
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
	return state, driver.Attachment{Link: container, Prefix: "eth", NoGatewayService: internal}
}
