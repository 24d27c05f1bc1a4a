package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/bridge"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

// What encapsulation adds to a frame, in bytes: outer IP header (20, RFC 791; 40, RFC 8200), UDP header (8), VXLAN header
// (8) and the inner Ethernet header (14), RFC 7348 section 5.
const (
	overhead4 = 20 + 8 + 8 + 14
	overhead6 = 40 + 8 + 8 + 14
)

// minMTU is the least that carries IPv6 (RFC 8200 section 5), in bytes.
const minMTU = 1280

// Underlay is what carries the encapsulated frames.
type Underlay struct {
	VTEP netip.Addr // our address, the outer source
	Link string     // the device that has it
	MTU  int        // of that device, in bytes
	Port uint16     // UDP destination port
}

// room is the MTU that remains for containers, in bytes.
func (u Underlay) room() int {
	if u.VTEP.Is6() {
		return u.MTU - overhead6
	}
	return u.MTU - overhead4
}

// Carries says why packets of a network's MTU do not fit, if they do not, and what to do.
func (u Underlay) Carries(mtu int) error {
	if mtu <= u.room() {
		return nil
	}
	return fmt.Errorf("MTU %d does not fit: %s has %d bytes, of which %d remain for containers: large packets are lost; "+
		"raise the MTU of %s to %d, or create the network with -o %s=%d on every host",
		mtu, u.Link, u.MTU, u.room(), u.Link, mtu+u.MTU-u.room(), driver.OptionMTU, u.room())
}

// Open returns the Open of overlay networks over what find finds; find is asked anew for each network, since an address
// may not be there yet when the plugin starts.
func Open(find func() (Underlay, error)) driver.Open {
	return func(_ context.Context, n *driver.Network) (driver.Plan, error) {
		if err := driver.CheckOptions(n, driver.OptionMTU); err != nil {
			return nil, err
		}
		u, err := find()
		if err != nil {
			return nil, err
		}
		if n.MTU == 0 {
			n.MTU = u.room()
		}
		// One that is there goes on when the underlay becomes smaller: its small packets pass.
		if err := u.Carries(n.MTU); err != nil && n.Half {
			return nil, fmt.Errorf("%w: %w", err, driver.ErrInvalid)
		}
		if n.IPv6 && n.MTU < minMTU {
			return nil, fmt.Errorf("MTU %d is too small for --ipv6, which needs %d bytes: %s has %d: %w",
				n.MTU, minMTU, u.Link, u.MTU, driver.ErrInvalid)
		}
		return plan{
			bridge:   bridge.Device(kernel.Name("ckb", n.ID), n.MTU),
			vxlan:    kernel.Name("ckx", n.ID),
			vni:      n.VNI,
			underlay: u,
			subnets:  n.Prefixes(),
			internal: n.Internal,
		}, nil
	}
}

type plan struct {
	bridge   kernel.Link
	vxlan    string
	vni      uint32
	underlay Underlay
	subnets  []netip.Prefix
	internal bool
}

func (p plan) Network(remote driver.Remote) kernel.State {
	s := kernel.State{
		Links: []kernel.Link{p.bridge, {
			Name: p.vxlan, NS: kernel.Shared, MTU: p.bridge.MTU, Master: p.bridge.Name, Up: true,
			NoLearning: true, NeighSuppress: true,
			VXLAN: &kernel.VXLAN{VNI: p.vni, Local: p.underlay.VTEP, Port: p.underlay.Port},
		}},
		Rules: p.rules(remote.Nodes),
	}
	for _, vtep := range remote.VTEPs {
		if !p.reaches(vtep) {
			continue
		}
		s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: p.vxlan, Dst: vtep})
	}
	for _, e := range remote.Endpoints {
		if !p.reaches(e.VTEP) {
			continue
		}
		s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: p.vxlan, MAC: e.MAC, Dst: e.VTEP, Bridge: true})
		for _, a := range e.Addrs {
			s.Neighs = append(s.Neighs, kernel.Neigh{
				NS: kernel.Shared, Dev: p.bridge.Name, IP: a.Addr(), MAC: e.MAC, Announce: true,
			})
		}
	}
	return s
}

// reaches says whether frames can go to a VTEP. Not to our own: a host that had our address before us would have its
// frames delivered here twice. And a device is of one family; the kernel refuses the other, and all that follows it.
func (p plan) reaches(vtep netip.Addr) bool {
	return vtep != p.underlay.VTEP && vtep.BitLen() == p.underlay.VTEP.BitLen()
}

// rules keep strangers out: frames of our VNI are taken from nodes of the cluster only, and from nobody while none is known.
// Each rule names the VNI, so that Docker's own overlay on the same port is left alone. The second is for those who write a
// node's address into their packets: a container of this host can, and its packets come in by another device than that node's.
//
// Frames between hosts are kept from conntrack, which has no use for them: the outer source port is a hash of the inner
// connection, so that each of these would be two entries in the tables of both hosts, none of which is ever answered, and
// would go through all of Docker's NAT rules.
func (p plan) rules(nodes []netip.Addr) []kernel.Rule {
	if !slices.Contains(nodes, p.underlay.VTEP) {
		nodes = append(slices.Clone(nodes), p.underlay.VTEP)
	}
	return []kernel.Rule{
		{NS: kernel.Host, Chain: kernel.Prerouting, UDPPort: p.underlay.Port, VNI: p.vni, NotFrom: nodes, Verdict: kernel.Drop},
		{NS: kernel.Host, Chain: kernel.Prerouting, UDPPort: p.underlay.Port, VNI: p.vni, Astray: true, Verdict: kernel.Drop},
		{NS: kernel.Host, Chain: kernel.Prerouting, UDPPort: p.underlay.Port, VNI: p.vni, To: []netip.Addr{p.underlay.VTEP}, Verdict: kernel.NoTrack},
		{NS: kernel.Host, Chain: kernel.Output, UDPPort: p.underlay.Port, VNI: p.vni, Verdict: kernel.NoTrack},
	}
}

func (p plan) Endpoint(e driver.Endpoint) (kernel.State, driver.Attachment) {
	return bridge.Port(p.bridge, e, p.subnets, p.internal)
}
