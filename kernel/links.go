package kernel

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// aliasPrefix is how the alias of a device of ours begins; the owner follows.
const aliasPrefix = "carrick "

// A device is a link as the kernel tells of it.
type device struct {
	Link
	index  int
	master int // index, 0: none
	alias  string
	kind   string // "bridge", "veth", "vxlan", …
	other  int    // index of the other end of a veth pair, in its own namespace
	abroad bool   // that end is in another namespace
}

const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS, Linux 4.4

// devices are the links of a namespace in the order of their indexes, without their counters.
func (sp *space) devices() ([]device, error) {
	msgs, err := sp.list(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err != nil {
		return nil, err
	}
	devices := make([]device, 0, len(msgs))
	for _, m := range msgs {
		d, err := parseDevice(sp.ns, m)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	nameMasters(devices)
	return devices, nil
}

func parseDevice(ns NS, m []byte) (device, error) {
	head := nl.DeserializeIfInfomsg(m)
	d := device{index: int(head.Index)}
	d.NS, d.Up = ns, head.Flags&unix.IFF_UP != 0
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
	if err != nil {
		return d, err
	}
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_IFNAME:
			d.Name = unix.ByteSliceToString(a.Value)
		case unix.IFLA_IFALIAS:
			d.alias = unix.ByteSliceToString(a.Value)
		case unix.IFLA_MTU:
			d.MTU = int(binary.NativeEndian.Uint32(a.Value))
		case unix.IFLA_ADDRESS:
			copy(d.MAC[:], a.Value)
		case unix.IFLA_MASTER:
			d.master = int(binary.NativeEndian.Uint32(a.Value))
		case unix.IFLA_LINK:
			d.other = int(binary.NativeEndian.Uint32(a.Value))
		case unix.IFLA_LINK_NETNSID:
			d.abroad = true
		case unix.IFLA_LINKINFO:
			if err := d.parseInfo(a.Value); err != nil {
				return d, err
			}
		}
	}
	return d, nil
}

func (d *device) parseInfo(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	var data, port []syscall.NetlinkRouteAttr
	var slave string
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case nl.IFLA_INFO_KIND:
			d.kind = unix.ByteSliceToString(a.Value)
		case nl.IFLA_INFO_SLAVE_KIND:
			slave = unix.ByteSliceToString(a.Value)
		case nl.IFLA_INFO_DATA:
			data, err = nl.ParseRouteAttr(a.Value)
		case nl.IFLA_INFO_SLAVE_DATA:
			port, err = nl.ParseRouteAttr(a.Value)
		}
		if err != nil {
			return err
		}
	}
	switch d.kind {
	case "bridge":
		d.parseBridge(data)
	case "vxlan":
		d.parseVXLAN(data)
	case "veth":
		d.Veth = &Veth{} // the other end is looked up later, where it is in sight
	}
	if slave == "bridge" {
		d.parsePort(port)
	}
	return nil
}

func (d *device) parseBridge(data []syscall.NetlinkRouteAttr) {
	d.Bridge = &Bridge{}
	for _, a := range data {
		if a.Attr.Type == nl.IFLA_BR_MCAST_SNOOPING {
			d.Bridge.MulticastSnooping = a.Value[0] != 0
		}
	}
}

func (d *device) parsePort(data []syscall.NetlinkRouteAttr) {
	for _, a := range data {
		switch a.Attr.Type {
		case nl.IFLA_BRPORT_LEARNING:
			d.NoLearning = a.Value[0] == 0
		case nl.IFLA_BRPORT_NEIGH_SUPPRESS:
			d.NeighSuppress = a.Value[0] != 0
		case nl.IFLA_BRPORT_ISOLATED:
			d.Isolated = a.Value[0] != 0
		}
	}
}

// parseVXLAN leaves a device that learns without its VNI, so that it is compatible with none that is wanted.
func (d *device) parseVXLAN(data []syscall.NetlinkRouteAttr) {
	d.VXLAN = &VXLAN{}
	learning := false
	for _, a := range data {
		switch a.Attr.Type {
		case nl.IFLA_VXLAN_ID:
			d.VXLAN.VNI = binary.NativeEndian.Uint32(a.Value)
		case nl.IFLA_VXLAN_LOCAL, nl.IFLA_VXLAN_LOCAL6:
			d.VXLAN.Local, _ = netip.AddrFromSlice(a.Value)
		case nl.IFLA_VXLAN_PORT:
			d.VXLAN.Port = binary.BigEndian.Uint16(a.Value)
		case nl.IFLA_VXLAN_LEARNING:
			learning = a.Value[0] != 0
		}
	}
	if learning {
		d.VXLAN = &VXLAN{}
	}
}

// otherNS is the namespace of the other end of a veth pair, if that is one of the two we know.
func (d device) otherNS() NS {
	if !d.abroad {
		return d.NS
	}
	if d.NS == Host {
		return Shared
	}
	return Host
}

// pairUp fills in the other ends of veth pairs that are in sight and have a name of ours. Indexes are unique within one
// namespace only: the name keeps a pair of somebody else's, whose indexes happen to be the same, from being taken for ours.
func pairUp(devices []device) {
	byIndex := make(map[place]*device, len(devices))
	for i := range devices {
		byIndex[place{ns: devices[i].NS, index: devices[i].index}] = &devices[i]
	}
	for i := range devices {
		d := &devices[i]
		if d.Veth == nil || !isOurs(d.Name) {
			continue
		}
		ns := d.otherNS()
		o := byIndex[place{ns: ns, index: d.other}]
		if o != nil && o.Veth != nil && o.other == d.index && o.abroad == d.abroad && isOurs(o.Name) {
			d.Veth = &Veth{Peer: o.Name, PeerNS: ns}
		}
	}
}
