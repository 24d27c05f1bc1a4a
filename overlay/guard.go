package overlay

import (
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/kernel"
)

// Guard is what a node of the cluster owes the others, whether it has a network of theirs or not: nothing that it forwards
// may be VXLAN of theirs for a node, firstVNI being where their identifiers begin. Behind masquerading, an ordinary
// container's packet would otherwise arrive with this host's trusted address; and without, with that of any node it likes,
// which is told by the device it comes in by. What one node sends to another through this host passes. So does all else: a
// host that wants to be a node may be behind this one, and what it says then is not for us to judge but for the nodes,
// which ask for a key.
func Guard(port uint16, firstVNI uint32, self netip.Addr, nodes []netip.Addr) kernel.State {
	others := slices.DeleteFunc(slices.Clone(nodes), func(a netip.Addr) bool { return a == self })
	if len(others) == 0 {
		return kernel.State{}
	}
	frames := kernel.Rule{NS: kernel.Host, UDPPort: port, VNIFrom: firstVNI, To: others, Verdict: kernel.Drop}
	strange, astray := frames, frames
	strange.Chain, strange.NotFrom = kernel.Forward, nodes
	astray.Chain, astray.Astray = kernel.Prerouting, true
	return kernel.State{Rules: []kernel.Rule{astray, strange}}
}
