package kernel

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
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
	sp := s.space(o.NS)
	return sp.step(o, func() error { return sp.handle.AddrReplace(nil, a) })
}

func (o delAddr) apply(s *scope) error {
	a, err := libraryAddr(s, Addr(o))
	if err != nil {
		return err
	}
	sp := s.space(o.NS)
	err = sp.step(o, func() error { return sp.handle.AddrDel(nil, a) })
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
	sp := s.space(o.NS)
	return sp.step(o, func() error { return sp.handle.RouteReplace(r) })
}

func (o delRoute) apply(s *scope) error {
	r, err := libraryRoute(s, Route(o))
	if err != nil {
		return err
	}
	sp := s.space(o.NS)
	err = sp.step(o, func() error { return sp.handle.RouteDel(r) })
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
