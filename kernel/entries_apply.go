package kernel

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ipNet is a prefix as the library takes it, host bits kept.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (o addAddr) apply(s *scope) error {
	a, err := libraryAddr(s, Addr(o))
	if err != nil {
		return err
	}
	if o.Prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return s.space(o.NS).handle.AddrReplace(nil, a)
}

func (o delAddr) apply(s *scope) error {
	a, err := libraryAddr(s, Addr(o))
	if err != nil {
		return err
	}
	err = s.space(o.NS).handle.AddrDel(nil, a)
	if errors.Is(err, unix.EADDRNOTAVAIL) { // it went with the first address of its subnet
		return nil
	}
	return err
}

func libraryAddr(s *scope, a Addr) (*netlink.Addr, error) {
	index, err := s.indexOf(ref{a.NS, a.Dev})
	// The library would work out a broadcast address, which `ip addr add` does not.
	return &netlink.Addr{IPNet: ipNet(a.Prefix), LinkIndex: index, Broadcast: net.IPv4zero}, err
}

func (o addRoute) apply(s *scope) error {
	r, err := libraryRoute(s, Route(o))
	if err != nil {
		return err
	}
	return s.space(o.NS).handle.RouteReplace(r)
}

func (o delRoute) apply(s *scope) error {
	r, err := libraryRoute(s, Route(o))
	if err != nil {
		return err
	}
	err = s.space(o.NS).handle.RouteDel(r)
	if errors.Is(err, unix.ESRCH) { // it went with its address
		return nil
	}
	return err
}

func libraryRoute(s *scope, r Route) (*netlink.Route, error) {
	index, err := s.indexOf(ref{r.NS, r.Dev})
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.Dst.Masked())}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	} else if r.Dst.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	return route, err
}

// neighbour sends one request about a neighbour or forwarding entry.
func (s *scope) neighbour(kind, flags int, dev ref, m netlink.Ndmsg, mac *MAC, dst netip.Addr) error {
	index, err := s.indexOf(dev)
	if err != nil {
		return err
	}
	m.Index = uint32(index)
	data := []nl.NetlinkRequestData{&m}
	if mac != nil {
		data = append(data, attr(unix.NDA_LLADDR, mac[:]))
	}
	if dst.IsValid() {
		data = append(data, attr(unix.NDA_DST, dst.AsSlice()))
	}
	err = s.space(dev.ns).do(kind, flags, data...)
	if kind == unix.RTM_DELNEIGH && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (o addFDB) apply(s *scope) error {
	flags := unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	if o.MAC == (MAC{}) {
		flags = unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	return s.neighbour(unix.RTM_NEWNEIGH, flags, ref{o.NS, o.Dev}, selfEntry, &o.MAC, o.Dst)
}

func (o delFDB) apply(s *scope) error {
	return s.neighbour(unix.RTM_DELNEIGH, 0, ref{o.NS, o.Dev}, selfEntry, &o.MAC, o.Dst)
}

func (o addBridgeFDB) apply(s *scope) error {
	return s.neighbour(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, ref{o.NS, o.Dev}, masterEntry, &o.MAC, netip.Addr{})
}

func (o delBridgeFDB) apply(s *scope) error {
	return s.neighbour(unix.RTM_DELNEIGH, 0, ref{o.NS, o.Dev}, masterEntry, &o.MAC, netip.Addr{})
}

func (o addNeigh) apply(s *scope) error {
	return s.neighbour(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, ref{o.NS, o.Dev}, ipEntry(o.IP), &o.MAC, o.IP)
}

func (o delNeigh) apply(s *scope) error {
	return s.neighbour(unix.RTM_DELNEIGH, 0, ref{o.NS, o.Dev}, ipEntry(o.IP), nil, o.IP)
}

// The two forwarding entries of an address, as bridge(8) writes them: of the device itself, and of the bridge it is a
// port of ("static" there is NUD_NOARP).
var (
	selfEntry   = netlink.Ndmsg{Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
	masterEntry = netlink.Ndmsg{Family: unix.AF_BRIDGE, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER}
)

func ipEntry(ip netip.Addr) netlink.Ndmsg {
	return netlink.Ndmsg{Family: ipFamily(ip), State: unix.NUD_PERMANENT}
}

func ipFamily(ip netip.Addr) uint8 {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
