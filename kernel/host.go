package kernel

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A hostAddr is an address of the host's namespace.
type hostAddr struct {
	index int
	netip.Prefix
	flags int // IFA_F_…, if_addr.h
}

// usable says whether others can reach the host by the address.
func (a hostAddr) usable() bool {
	const never = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	return a.Addr().IsGlobalUnicast() && a.flags&never == 0
}

// lasting says whether the address is meant to stay: not one of IPv6 that is changed daily (RFC 8981) or is going out.
func (a hostAddr) lasting() bool {
	return a.flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_DEPRECATED) == 0 || a.Addr().Is4()
}

func (k *Kernel) hostAddrs() ([]hostAddr, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return k.host.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("ip addr show: %w", err)
	}
	addrs := make([]hostAddr, 0, len(list))
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			addrs = append(addrs, hostAddr{a.LinkIndex, netip.PrefixFrom(ip.Unmap(), bits), a.Flags})
		}
	}
	return addrs, nil
}

// hostRoutes are the routes of all tables, for a VPN often has one of its own.
func (k *Kernel) hostRoutes() ([]netlink.Route, error) {
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	routes, err := dump(func() ([]netlink.Route, error) {
		return k.host.handle.RouteListFiltered(netlink.FAMILY_ALL, all, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("ip route show table all: %w", err)
	}
	return routes, nil
}

// Underlay is the device that has an address of the host, and its MTU in bytes.
func (k *Kernel) Underlay(addr netip.Addr) (link string, mtu int, err error) {
	addrs, err := k.hostAddrs()
	if err != nil {
		return "", 0, err
	}
	for _, a := range addrs {
		if a.Addr() != addr.Unmap().WithZone("") {
			continue
		}
		devices, err := k.host.devices()
		if err != nil {
			return "", 0, fmt.Errorf("ip link show: %w", err)
		}
		for _, d := range devices {
			if d.index == a.index {
				return d.Name, d.MTU, nil
			}
		}
	}
	return "", 0, fmt.Errorf("address %s: is not of this host, which has %s", addr, listUsable(addrs))
}

// Address is the address by which others are to reach this host. spec is one of its addresses; or the name of an interface,
// whose first global address is taken; or empty, which stands for the interface of the default route. IPv4 goes first.
func (k *Kernel) Address(spec string) (netip.Addr, error) {
	addrs, err := k.hostAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	if spec == "" {
		return k.defaultAddress(addrs)
	}
	if addr, err := netip.ParseAddr(spec); err == nil {
		for _, a := range addrs {
			if a.Addr() == addr.Unmap() && a.usable() {
				return a.Addr(), nil
			}
		}
		return netip.Addr{}, fmt.Errorf("address %s: is not of this host, which has %s", spec, listUsable(addrs))
	}
	devices, err := k.host.devices()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ip link show: %w", err)
	}
	var names []string
	for _, d := range devices {
		if d.Name == spec {
			if addr, ok := firstAddress(addrs, d.index, ipv4, ipv6); ok {
				return addr, nil
			}
			return netip.Addr{}, fmt.Errorf("interface %s: has no global address; this host has %s", spec, listUsable(addrs))
		}
		if !isOurs(d.Name) {
			names = append(names, d.Name)
		}
	}
	return netip.Addr{}, fmt.Errorf("%q: is neither an address of this host (%s) nor an interface (%s)",
		spec, listUsable(addrs), strings.Join(names, ", "))
}

// defaultAddress looks for the default route of least metric, of IPv4 before IPv6.
func (k *Kernel) defaultAddress(addrs []hostAddr) (netip.Addr, error) {
	routes, err := k.hostRoutes()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, f := range []family{ipv4, ipv6} {
		best, found := math.MaxInt, netip.Addr{}
		for _, r := range routes {
			dst, ok := prefixOf(r)
			if !ok || dst.Bits() != 0 || dst.Addr().Is4() != (f == ipv4) || r.Table != unix.RT_TABLE_MAIN || r.Priority >= best {
				continue
			}
			index := r.LinkIndex
			if len(r.MultiPath) != 0 {
				index = r.MultiPath[0].LinkIndex
			}
			addr, ok := netip.AddrFromSlice(r.Src)
			if addr = addr.Unmap(); !ok {
				addr, ok = firstAddress(addrs, index, f)
			}
			if ok {
				best, found = r.Priority, addr
			}
		}
		if found.IsValid() {
			return found, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no default route tells which address to use: name one of %s", listUsable(addrs))
}

// firstAddress is the first that can be used of an interface, by family in this order, those that last before others.
func firstAddress(addrs []hostAddr, index int, families ...family) (netip.Addr, bool) {
	for _, f := range families {
		for _, lasting := range []bool{true, false} {
			for _, a := range addrs {
				if a.index == index && a.usable() && a.Addr().Is4() == (f == ipv4) && a.lasting() == lasting {
					return a.Addr(), true
				}
			}
		}
	}
	return netip.Addr{}, false
}

func listUsable(addrs []hostAddr) string {
	var list []string
	for _, a := range addrs {
		if a.usable() {
			list = append(list, a.Addr().String())
		}
	}
	if len(list) == 0 {
		return "no address that others can reach"
	}
	return strings.Join(list, ", ")
}

// InUse are the prefixes that the host's namespace has routes or addresses of, each once and in order: a pool that overlaps
// one would cut the host off from it. Default routes do not count, nor do the two halves of everything that VPNs set
// beside it (0.0.0.0/1 and 128.0.0.0/1).
func (k *Kernel) InUse() ([]netip.Prefix, error) {
	addrs, err := k.hostAddrs()
	if err != nil {
		return nil, err
	}
	routes, err := k.hostRoutes()
	if err != nil {
		return nil, err
	}
	var used []netip.Prefix
	for _, a := range addrs {
		used = append(used, a.Masked())
	}
	for _, r := range routes {
		if dst, ok := prefixOf(r); ok && dst.Bits() > 1 {
			used = append(used, dst.Masked())
		}
	}
	slices.SortFunc(used, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(used), nil
}
