package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// readEntries adds to s what is on the owned links of one namespace.
func (sp *space) readEntries(s *State, owned []device) error {
	names := make(map[int]string)
	for _, d := range owned {
		if d.NS == sp.ns {
			names[d.index] = d.Name
		}
	}
	if len(names) == 0 {
		return nil
	}
	if err := sp.readAddrs(s, names); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	if err := sp.readRoutes(s, names); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	for _, d := range owned {
		if d.NS != sp.ns {
			continue
		}
		if d.VXLAN != nil {
			if err := sp.readFDB(s, d); err != nil {
				return fmt.Errorf("forwarding entries of %s: %w", d.Name, err)
			}
		}
		if d.master == 0 { // a port has no use for neighbours
			if err := sp.readNeighs(s, d); err != nil {
				return fmt.Errorf("neighbours of %s: %w", d.Name, err)
			}
		}
	}
	return nil
}

func (sp *space) readAddrs(s *State, names map[int]string) error {
	addrs, err := dump(func() ([]netlink.Addr, error) { return sp.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range addrs {
		name, ours := names[a.LinkIndex]
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ours || !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		s.Addrs = append(s.Addrs, Addr{NS: sp.ns, Dev: name, Prefix: netip.PrefixFrom(ip.Unmap(), bits)})
	}
	return nil
}

func (sp *space) readRoutes(s *State, names map[int]string) error {
	routes, err := dump(func() ([]netlink.Route, error) { return sp.handle.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, r := range routes {
		name, ours := names[r.LinkIndex]
		if !ours || r.Protocol == unix.RTPROT_KERNEL || r.Type != unix.RTN_UNICAST {
			continue // those of the kernel come and go with the addresses
		}
		dst, ok := prefixOf(r)
		if !ok {
			continue
		}
		via, _ := netip.AddrFromSlice(r.Gw)
		s.Routes = append(s.Routes, Route{NS: sp.ns, Dev: name, Dst: dst, Via: via.Unmap()})
	}
	return nil
}

// prefixOf is the destination of a route of the library's, for which some versions leave out the one that is everything.
func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	ip, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, total := r.Dst.Mask.Size()
	if total == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits), ok
}

// A neighbour is an entry of a forwarding or neighbour table.
type neighbour struct {
	netlink.Ndmsg
	mac    MAC
	dst    netip.Addr
	master bool // the entry is the bridge's
}

func (sp *space) neighbours(family uint8, index int) ([]neighbour, error) {
	head := &netlink.Ndmsg{Family: family}
	// Strict kernels filter by this attribute; it is the same for both tables, where the header is not.
	msgs, err := sp.list(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, head, attr(unix.NDA_IFINDEX, nl.Uint32Attr(uint32(index))))
	if err != nil {
		return nil, err
	}
	list := make([]neighbour, 0, len(msgs))
	for _, m := range msgs {
		n, ok := parseNeighbour(m)
		if ok && int(n.Index) == index && n.Family == family {
			list = append(list, n)
		}
	}
	return list, nil
}

// parseNeighbour reads struct ndmsg (12 bytes, rtnetlink(7)) and its attributes. The library's own reader asks the kernel
// for the link of every entry whose address has 16 bytes.
func parseNeighbour(m []byte) (neighbour, bool) {
	if len(m) < unix.SizeofNdMsg {
		return neighbour{}, false
	}
	n := neighbour{Ndmsg: netlink.Ndmsg{
		Family: m[0],
		Index:  binary.NativeEndian.Uint32(m[4:]),
		State:  binary.NativeEndian.Uint16(m[8:]),
		Flags:  m[10],
		Type:   m[11],
	}}
	for rest := m[unix.SizeofNdMsg:]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return n, false
		}
		value := rest[unix.SizeofRtAttr:size]
		switch binary.NativeEndian.Uint16(rest[2:]) {
		case unix.NDA_LLADDR:
			copy(n.mac[:], value)
		case unix.NDA_DST:
			n.dst, _ = netip.AddrFromSlice(value)
		case unix.NDA_MASTER:
			n.master = true
		}
		rest = rest[min((size+3)&^3, len(rest)):] // RTA_ALIGNTO
	}
	return n, true
}

// readFDB takes of the bridge's entries the static ones. The others are the port's own address, and what was learned.
func (sp *space) readFDB(s *State, d device) error {
	list, err := sp.neighbours(unix.AF_BRIDGE, d.index)
	if err != nil {
		return err
	}
	static := make(map[MAC]bool, len(list)/2)
	for _, n := range list {
		if n.Flags&unix.NTF_SELF == 0 && n.State&unix.NUD_NOARP != 0 {
			static[n.mac] = true
		}
	}
	for _, n := range list {
		if n.Flags&unix.NTF_SELF == 0 || !n.dst.IsValid() {
			continue
		}
		s.FDB = append(s.FDB, FDB{NS: sp.ns, Dev: d.Name, MAC: n.mac, Dst: n.dst.Unmap(), Bridge: static[n.mac]})
		delete(static, n.mac)
	}
	for mac := range static {
		s.FDB = append(s.FDB, FDB{NS: sp.ns, Dev: d.Name, MAC: mac, Bridge: true})
	}
	return nil
}

func (sp *space) readNeighs(s *State, d device) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := sp.neighbours(family, d.index)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.State&unix.NUD_PERMANENT != 0 && n.dst.IsValid() {
				s.Neighs = append(s.Neighs, Neigh{NS: sp.ns, Dev: d.Name, IP: n.dst, MAC: n.mac})
			}
		}
	}
	return nil
}
