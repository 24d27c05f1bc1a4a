package kernel

import (
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// attr is one attribute of a request.
func attr(kind int, value []byte) *nl.RtAttr { return nl.NewRtAttr(kind, value) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func flag(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}

// apply makes a link, and marks it as ours by a second request: Linux 6.18 ignores an alias in the first.
//
// A VXLAN device is asked for by a socket in the host's namespace, to be born in the other one. Its UDP socket then is in
// the host's, as with Docker's way (make it there and move it, which waits for RCU grace periods and may be interrupted
// half way), and there is no half way.
func (o addLink) apply(s *scope) error {
	from := s.space(o.NS)
	if o.VXLAN != nil {
		from = s.space(Host)
	}
	data := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_IFNAME, nl.ZeroTerminated(o.Name))}
	if o.NS != from.ns {
		data = append(data, attr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(s.space(o.NS).fd))))
	}
	if o.MTU != 0 {
		data = append(data, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(o.MTU))))
	}
	mac := o.MAC
	if mac == (MAC{}) && o.Bridge != nil {
		mac = randomMAC()
	}
	if mac != (MAC{}) {
		data = append(data, attr(unix.IFLA_ADDRESS, mac[:]))
	}
	info := attr(unix.IFLA_LINKINFO, nil)
	switch {
	case o.Bridge != nil:
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		inner := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		inner.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, flag(o.Bridge.MulticastSnooping))
	case o.VXLAN != nil:
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
		o.VXLAN.encode(info.AddRtAttr(nl.IFLA_INFO_DATA, nil))
	case o.Veth != nil:
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
		o.Veth.encode(info.AddRtAttr(nl.IFLA_INFO_DATA, nil), s, o.NS)
	}
	data = append(data, info)
	if err := from.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, data...); err != nil {
		return err
	}
	return adoptLink{ref{o.NS, o.Name}}.apply(s)
}

// randomMAC is a locally administered unicast address (IEEE 802, second bit of the first byte). A bridge without an address
// of its own takes the least of its ports', and each time that changes the kernel drops the bridge's neighbour entries, the
// permanent ones as well (neigh_changeaddr, Linux 6.18). Being given any address stops it.
func randomMAC() MAC {
	var m MAC
	_, _ = rand.Read(m[:]) // never fails, Go 1.24
	m[0] = m[0]&^1 | 2
	return m
}

// encode leaves the checksums as `ip link add type vxlan` does (sent, and asked for over IPv6), and sets none of the
// receive flags, which must be the same for all devices on one port: Docker's overlay uses it too.
func (x VXLAN) encode(data *nl.RtAttr) {
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(x.VNI))
	if x.Local.Is4() {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL, x.Local.AsSlice())
	} else {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, x.Local.AsSlice())
	}
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, flag(false))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, be16(x.Port))
}

// encode makes the other end with its name, address, MTU and namespace in the same request. It must not be up: the kernel
// answers ENOTCONN, for the pair is not yet joined (veth_open, Linux 6.18).
func (v Veth) encode(data *nl.RtAttr, s *scope, ns NS) {
	peer := data.AddRtAttr(nl.VETH_INFO_PEER, nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize())
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(v.Peer))
	if v.PeerMAC != (MAC{}) {
		peer.AddRtAttr(unix.IFLA_ADDRESS, v.PeerMAC[:])
	}
	if v.PeerMTU != 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.PeerMTU)))
	}
	if v.PeerNS != ns {
		peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(s.space(v.PeerNS).fd)))
	}
}

// apply marks a link, and keeps it from giving itself an IPv6 link-local address: a link has the addresses of its State
// and no others. The other way, disable_ipv6=1, does not serve: Linux 6.18 then refuses `ip -6 neigh` on the device ("IPv6
// is disabled on this device"), and a bridge without those entries answers no neighbour solicitation.
func (o adoptLink) apply(s *scope) error {
	sp := s.space(o.ns)
	d, err := sp.find(o.name)
	if err != nil {
		return err
	}
	s.index[o.ref] = d.index
	alias := attr(unix.IFLA_IFALIAS, []byte(aliasPrefix+s.owner))
	spec := attr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{nl.IN6_ADDR_GEN_MODE_NONE})
	err = sp.setLink(d.index, alias, spec)
	if errors.Is(err, unix.EAFNOSUPPORT) { // no IPv6 in this kernel, or none on a device of such an MTU
		err = sp.setLink(d.index, alias)
	}
	return err
}

func (sp *space) setLink(index int, attrs ...nl.NetlinkRequestData) error {
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	return sp.do(unix.RTM_SETLINK, 0, append([]nl.NetlinkRequestData{head}, attrs...)...)
}

// apply takes the link down where the kernel renames none that is up (before Linux 6.3).
func (o renameLink) apply(s *scope) error {
	name := attr(unix.IFLA_IFNAME, nl.ZeroTerminated(o.name))
	err := s.change(o.ref, name)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	defer s.k.doubts.again(s.owner, doubtTables) // entries may have died
	if err := (setUp{o.ref, false}).apply(s); err != nil {
		return err
	}
	return errors.Join(s.change(o.ref, name), setUp{o.ref, true}.apply(s))
}

func (o setMTU) apply(s *scope) error {
	return s.change(o.ref, attr(unix.IFLA_MTU, nl.Uint32Attr(uint32(o.mtu))))
}

func (o setMAC) apply(s *scope) error {
	return s.change(o.ref, attr(unix.IFLA_ADDRESS, o.mac[:]))
}

func (o setMaster) apply(s *scope) error {
	index := 0
	if o.master != "" {
		var err error
		if index, err = s.indexOf(ref{o.ns, o.master}); err != nil {
			return err
		}
	}
	return s.change(o.ref, attr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(index))))
}

func (o setSnooping) apply(s *scope) error {
	index, err := s.indexOf(o.ref)
	if err != nil {
		return err
	}
	info := attr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, flag(o.on))
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	return s.space(o.ns).do(unix.RTM_NEWLINK, 0, head, info) // RTM_SETLINK takes no link info
}

func (o setUp) apply(s *scope) error {
	index, err := s.indexOf(o.ref)
	if err != nil {
		return err
	}
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index, head.Change = int32(index), unix.IFF_UP
	if o.up {
		head.Flags = unix.IFF_UP
	}
	return s.space(o.ns).do(unix.RTM_SETLINK, 0, head)
}

func (o setPort) apply(s *scope) error {
	index, err := s.indexOf(o.ref)
	if err != nil {
		return err
	}
	kinds := map[string]int{
		"learning":       nl.IFLA_BRPORT_LEARNING,
		"neigh_suppress": nl.IFLA_BRPORT_NEIGH_SUPPRESS,
		"isolated":       nl.IFLA_BRPORT_ISOLATED,
	}
	port := attr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, f := range o.flags {
		port.AddRtAttr(kinds[f.name], flag(f.on))
	}
	head := nl.NewIfInfomsg(unix.AF_BRIDGE)
	head.Index = int32(index)
	return s.space(o.ns).do(unix.RTM_SETLINK, 0, head, port)
}
