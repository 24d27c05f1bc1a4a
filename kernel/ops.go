package kernel

import (
	"fmt"
	"net/netip"
	"strings"
)

// An op is one request to the kernel. String is the command that does the same by hand.
type op interface {
	String() string
	apply(*scope) error
}

type (
	addLink struct{ Link }
	// adoptLink marks a link as ours. It follows addLink within that op and stands alone for a link that a crash left
	// without its mark, and for the other end of a pair of which both ends are wanted.
	adoptLink struct{ ref }

	renameLink struct {
		ref // as it is to be called
		was string
	}
	setMTU struct {
		ref
		mtu int
	}
	setMAC struct {
		ref
		mac MAC
	}
	setMaster struct {
		ref
		master string // "" releases it
	}
	setUp struct {
		ref
		up bool
	}
	setSnooping struct {
		ref
		on bool
	}
	setPort struct {
		ref
		flags []portFlag
	}

	addAddr  Addr
	delAddr  Addr
	addRoute Route
	delRoute Route

	writeSysctl Sysctl
)

// portFlag is one setting of a bridge port, named as in bridge(8).
type portFlag struct {
	name string // learning, neigh_suppress or isolated
	on   bool
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// in is a command's name with the option that chooses the namespace.
func in(command string, ns NS) string {
	if ns == Host {
		return command
	}
	return command + " -n " + string(ns)
}

// nsName is a namespace where ip(8) wants the name of one.
func nsName(ns NS) string {
	if ns == Host {
		return "host"
	}
	return string(ns)
}

func (o addLink) String() string {
	var b strings.Builder
	where := o.NS
	if o.VXLAN != nil {
		where = Host // see createLink
	}
	fmt.Fprintf(&b, "%s link add %s", in("ip", where), o.Name)
	if o.VXLAN != nil && o.NS != Host {
		fmt.Fprintf(&b, " netns %s", o.NS)
	}
	if o.MAC != (MAC{}) {
		fmt.Fprintf(&b, " address %s", o.MAC)
	}
	if o.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", o.MTU)
	}
	switch {
	case o.Bridge != nil:
		snooping := 0
		if o.Bridge.MulticastSnooping {
			snooping = 1
		}
		fmt.Fprintf(&b, " type bridge mcast_snooping %d", snooping)
	case o.VXLAN != nil:
		fmt.Fprintf(&b, " type vxlan id %d local %s dstport %d nolearning", o.VXLAN.VNI, o.VXLAN.Local, o.VXLAN.Port)
	case o.Veth != nil:
		b.WriteString(" type veth peer name " + o.Veth.Peer)
		if o.Veth.PeerMAC != (MAC{}) {
			fmt.Fprintf(&b, " address %s", o.Veth.PeerMAC)
		}
		if o.Veth.PeerMTU != 0 {
			fmt.Fprintf(&b, " mtu %d", o.Veth.PeerMTU)
		}
		if o.Veth.PeerNS != o.NS {
			fmt.Fprintf(&b, " netns %s", nsName(o.Veth.PeerNS))
		}
	}
	return b.String()
}

func (o adoptLink) String() string {
	return fmt.Sprintf("%s link set %s addrgenmode none alias carrick", in("ip", o.ns), o.name)
}

func (o renameLink) String() string {
	return fmt.Sprintf("%s link set %s name %s", in("ip", o.ns), o.was, o.name)
}

func (o setMTU) String() string {
	return fmt.Sprintf("%s link set %s mtu %d", in("ip", o.ns), o.name, o.mtu)
}

func (o setMAC) String() string {
	return fmt.Sprintf("%s link set %s address %s", in("ip", o.ns), o.name, o.mac)
}

func (o setMaster) String() string {
	if o.master == "" {
		return fmt.Sprintf("%s link set %s nomaster", in("ip", o.ns), o.name)
	}
	return fmt.Sprintf("%s link set %s master %s", in("ip", o.ns), o.name, o.master)
}

func (o setUp) String() string {
	if o.up {
		return fmt.Sprintf("%s link set %s up", in("ip", o.ns), o.name)
	}
	return fmt.Sprintf("%s link set %s down", in("ip", o.ns), o.name)
}

func (o setSnooping) String() string {
	snooping := 0
	if o.on {
		snooping = 1
	}
	return fmt.Sprintf("%s link set %s type bridge mcast_snooping %d", in("ip", o.ns), o.name, snooping)
}

func (o setPort) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s link set dev %s", in("bridge", o.ns), o.name)
	for _, f := range o.flags {
		fmt.Fprintf(&b, " %s %s", f.name, onOff(f.on))
	}
	return b.String()
}

func (o addAddr) String() string {
	return fmt.Sprintf("%s addr replace %s dev %s%s", in("ip", o.NS), o.Prefix, o.Dev, nodad(o.Prefix))
}

// nodad: an address of ours is given to nobody else by construction, and one that is tentative (RFC 4862 section 5.4)
// answers nothing for a second.
func nodad(p netip.Prefix) string {
	if p.Addr().Is4() {
		return ""
	}
	return " nodad"
}

func (o delAddr) String() string {
	return fmt.Sprintf("%s addr del %s dev %s", in("ip", o.NS), o.Prefix, o.Dev)
}

func (o addRoute) String() string { return routeCommand("replace", Route(o)) }
func (o delRoute) String() string { return routeCommand("del", Route(o)) }

func routeCommand(verb string, r Route) string {
	via := ""
	if r.Via.IsValid() {
		via = fmt.Sprintf(" via %s", r.Via)
	}
	return fmt.Sprintf("%s route %s %s%s dev %s", in("ip", r.NS), verb, r.Dst, via, r.Dev)
}

func (o writeSysctl) String() string {
	command := "sysctl"
	if o.NS != Host {
		command = "ip netns exec " + string(o.NS) + " sysctl"
	}
	return fmt.Sprintf("%s -w %s=%s", command, o.Key, o.Value)
}
