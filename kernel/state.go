package kernel

import (
	"fmt"
	"net/netip"
)

// NS names one of the two network namespaces that a State may speak of.
type NS string

const (
	// Host is the namespace dockerd runs in. Container ends of veth pairs wait there until the engine takes them.
	Host NS = ""
	// Shared is the namespace of ours. Bridges and VXLAN devices live in it, where no bridged frame meets Docker's
	// FORWARD chain or conntrack. It exists while a State needs it.
	Shared NS = "shared"
)

// MAC is an EUI-48 address. The zero MAC means none given.
type MAC [6]byte

// String is the form ip(8) prints, "02:42:0a:01:00:03".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// State is what one owner needs of the kernel: a closed set of plain values, named as in ip(8), bridge(8) and nft(8).
// The zero State is nothing at all. The order of links matters: a master stands before its ports.
type State struct {
	Links   []Link
	Addrs   []Addr
	Routes  []Route
	FDB     []FDB
	Neighs  []Neigh
	Sysctls []Sysctl
	Rules   []Rule
}

// Link is a network device. Exactly one of Bridge, Veth and VXLAN is set.
type Link struct {
	Name   string // at most 15 bytes (IFNAMSIZ-1)
	NS     NS
	MTU    int // bytes; 0: the kernel's default
	MAC    MAC // zero: chosen when the link is made, and kept
	Master string
	Up     bool

	// Attributes of a bridge port; meaningful only with Master.
	NoLearning    bool // bridge link set … learning off
	NeighSuppress bool // bridge link set … neigh_suppress on (Linux 4.15)
	Isolated      bool // bridge link set … isolated on (Linux 4.18)

	Bridge *Bridge
	Veth   *Veth
	VXLAN  *VXLAN
}

// Bridge is the rest of `ip link add type bridge`.
type Bridge struct {
	MulticastSnooping bool
}

// Veth is the rest of `ip link add type veth`: the other end. That end is handed over to the engine, which moves it into
// the sandbox and back; so it is made together with the link and never afterwards corrected. Where both ends are to stay ours
// (a way out of Shared), each is a Link of its own that names the other.
type Veth struct {
	Peer    string
	PeerNS  NS
	PeerMAC MAC
	PeerMTU int // bytes

	// Announce are the IP addresses behind the other end. When the pair takes its place on Master, and the other end is
	// not yet handed over, everybody on Master is told once that they are at PeerMAC: whoever talked to a container that
	// had such an address before sends to that one's MAC otherwise, for up to a minute.
	Announce []netip.Addr
}

// VXLAN is the rest of `ip link add type vxlan … nolearning`. The device is asked for in Host and born in the link's NS, so
// that its UDP socket is in the host's namespace.
type VXLAN struct {
	VNI   uint32     // 24 bits, RFC 7348 section 5
	Local netip.Addr // outer source address: our VTEP
	Port  uint16     // UDP destination port
}

// Addr is `ip addr replace PREFIX dev DEV`, with nodad for IPv6.
type Addr struct {
	NS     NS
	Dev    string
	Prefix netip.Prefix // address with the length of its subnet; host bits are kept
}

// Route is `ip route replace DST via VIA dev DEV`. The zero Via is a route on the link.
type Route struct {
	NS  NS
	Dev string
	Dst netip.Prefix
	Via netip.Addr
}

// FDB is one static forwarding entry of a VXLAN device: `bridge fdb replace MAC dev DEV dst VTEP self static`. With
// MAC zero it is one of the destinations of broadcast and unknown frames (`bridge fdb append`). With Bridge set, the
// entry of the bridge that leads to the device is written as well (`… self master static`), which neigh_suppress asks for.
// Without Dst the entry is the bridge's alone (`… master static`), and Dev any port.
type FDB struct {
	NS     NS
	Dev    string
	MAC    MAC
	Dst    netip.Addr
	Bridge bool
}

// Neigh is `ip neigh replace IP lladdr MAC dev DEV nud permanent`. With Announce, Dev is a bridge: when the entry is new or
// has another MAC, and the bridge is not new, everybody on the bridge is told, but nobody behind a port with NeighSuppress.
type Neigh struct {
	NS       NS
	Dev      string
	IP       netip.Addr
	MAC      MAC
	Announce bool
}

// Sysctl is `sysctl -w KEY=VALUE` in a namespace, with the slashes of /proc/sys: "net/ipv6/conf/ckb…/accept_ra". It is
// written, never restored: only keys of our own devices and of our own namespace are allowed.
type Sysctl struct {
	NS    NS
	Key   string
	Value string
}

// Chain is one of the base chains of our nft table `inet carrick`.
type Chain string

const (
	// Prerouting is `type filter hook prerouting priority raw` (-300): before conntrack.
	Prerouting Chain = "prerouting"
	// Forward is `type filter hook forward priority -1`: before Docker's chains.
	Forward Chain = "forward"
	// Output is `type filter hook output priority raw` (-300): before conntrack.
	Output Chain = "output"
)

// Verdict is what a Rule does.
type Verdict string

const (
	Accept Verdict = "accept"
	Drop   Verdict = "drop"
	// NoTrack keeps a packet from conntrack, and accepts it.
	NoTrack Verdict = "notrack"
)

// Rule is one rule of our nft table in a namespace. Every condition that is set must match. Rules of one owner keep their
// order; those of different owners have none.
type Rule struct {
	NS      NS
	Chain   Chain
	UDPPort uint16       // udp dport
	VNI     uint32       // VXLAN network identifier, RFC 7348 section 5; 0: any. Only with UDPPort
	VNIFrom uint32       // at least this one; 0: any. Only with UDPPort
	NotFrom []netip.Addr // source is none of these
	To      []netip.Addr // destination is one of these
	Astray  bool         // the way back to the source is by another device (`fib saddr . iif oif missing`); in Prerouting only
	Verdict Verdict
}

// Owned is what Owners found of one owner.
type Owned struct {
	Owner string
	// Waiting says that a container end of the owner's veth pairs is still in the host's namespace: the engine has
	// not taken it, or has given it back.
	Waiting bool
}
