package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readEntries adds to s what is on the owned links of one namespace, entries of forwarding and neighbour tables only if they are
// asked for.
func (sp *space) readEntries(s *State, owned []device, want State, tables bool) error {
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
		if d.NS != sp.ns || !tables {
			continue
		}
		if d.VXLAN != nil || d.master != 0 {
			if err := sp.readFDB(s, d, len(want.FDB)); err != nil {
				return fmt.Errorf("forwarding entries of %s: %w", d.Name, err)
			}
		}
		if d.master == 0 { // a port has no use for neighbours
			if err := sp.readNeighs(s, d, len(want.Neighs)); err != nil {
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

// neighbours reads a table of a device. It begins again when somebody changes it meanwhile.
func (sp *space) neighbours(family uint8, index int, begin func(), each func(neighbour)) error {
	_, err := dump(func() (struct{}, error) {
		b, err := sp.openBulk()
		if err != nil {
			return struct{}{}, err
		}
		begin()
		return struct{}{}, b.neighbours(family, index, each)
	})
	return err
}

// readFDB takes of the bridge's entries the static ones. The others are the port's own address, and what was learned.
// expected is about how many entries there are.
func (sp *space) readFDB(s *State, d device, expected int) error {
	var self []FDB
	var static map[uint64]struct{}
	begin := func() {
		self, static = make([]FDB, 0, expected), make(map[uint64]struct{}, expected)
	}
	err := sp.neighbours(unix.AF_BRIDGE, d.index, begin, func(n neighbour) {
		switch {
		case n.Flags&unix.NTF_SELF != 0 && n.dst.IsValid():
			self = append(self, FDB{NS: sp.ns, Dev: d.Name, MAC: n.mac, Dst: n.dst.Unmap()})
		case n.Flags&unix.NTF_SELF == 0 && n.State&unix.NUD_NOARP != 0:
			static[n.mac.number()] = struct{}{}
		}
	})
	if err != nil {
		return err
	}
	for i := range self {
		mac := self[i].MAC.number()
		if _, self[i].Bridge = static[mac]; self[i].Bridge {
			delete(static, mac)
		}
	}
	for mac := range static {
		self = append(self, FDB{NS: sp.ns, Dev: d.Name, MAC: macOf(mac), Bridge: true})
	}
	s.FDB = append(s.FDB, self...)
	return nil
}

func (sp *space) readNeighs(s *State, d device, expected int) error {
	s.Neighs = slices.Grow(s.Neighs, expected)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		had := len(s.Neighs)
		err := sp.neighbours(family, d.index, func() { s.Neighs = s.Neighs[:had] }, func(n neighbour) {
			if n.State&unix.NUD_PERMANENT != 0 && n.dst.IsValid() {
				s.Neighs = append(s.Neighs, Neigh{NS: sp.ns, Dev: d.Name, IP: n.dst, MAC: n.mac})
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
