package kernel

import (
	"fmt"
	"strings"
)

// maxOwner keeps the alias within IFALIASZ (256 bytes) and the comment of a rule within one byte of length.
const maxOwner = 200

// ref names a link: names are unique per namespace only.
type ref struct {
	ns   NS
	name string
}

func (r ref) String() string {
	if r.ns == Host {
		return r.name
	}
	return fmt.Sprintf("%s in namespace %s", r.name, r.ns)
}

func checkOwner(owner string) error {
	if owner == "" || len(owner) > maxOwner {
		return fmt.Errorf("owner %q: must have 1 to %d bytes", owner, maxOwner)
	}
	for _, c := range []byte(owner) {
		if c < ' ' || c > '~' || c == '"' {
			return fmt.Errorf("owner %q: only printable ASCII without quotes is allowed", owner)
		}
	}
	return nil
}

// Check says what is wrong with a State that no kernel could be made to match, or that would touch what is not ours.
func (s State) Check() error {
	own := make(map[ref]bool, len(s.Links))
	bridges := make(map[ref]bool)
	for _, l := range s.Links {
		if err := l.check(); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
		if own[ref{l.NS, l.Name}] {
			return fmt.Errorf("link %s: wanted twice", ref{l.NS, l.Name})
		}
		own[ref{l.NS, l.Name}] = true
		bridges[ref{l.NS, l.Name}] = l.Bridge != nil
	}
	// Text is made for what is wrong only: there may be thousands of entries.
	on := func(what fmt.Stringer, kind string, valid bool, dev ref) error {
		switch {
		case !valid:
			return fmt.Errorf("%s %s: is none", kind, what)
		case !own[dev]:
			return fmt.Errorf("%s %s: %s is not a link of the same state", kind, what, dev)
		}
		return nil
	}
	for _, a := range s.Addrs {
		if err := on(a.Prefix, "address", a.Prefix.IsValid(), ref{a.NS, a.Dev}); err != nil {
			return err
		}
	}
	for _, r := range s.Routes {
		if err := on(r.Dst, "route to", r.Dst.IsValid(), ref{r.NS, r.Dev}); err != nil {
			return err
		}
	}
	for _, n := range s.Neighs {
		dev := ref{n.NS, n.Dev}
		if err := on(n.IP, "neighbour", n.IP.IsValid(), dev); err != nil {
			return err
		}
		if n.Announce && !bridges[dev] { // elsewhere it would be said to other hosts
			return fmt.Errorf("neighbour %s: only those of a bridge are announced, and %s is none", n.IP, dev)
		}
	}
	for _, f := range s.FDB {
		bridge := f.Bridge && f.MAC != (MAC{}) && !f.Dst.IsValid() // the bridge's alone
		if err := on(f.Dst, "fdb entry towards", f.Dst.IsValid() || bridge, ref{f.NS, f.Dev}); err != nil {
			return err
		}
		if f.MAC == (MAC{}) && f.Bridge {
			return fmt.Errorf("fdb entry for all unknown frames towards %s: the bridge has no such entry", f.Dst)
		}
	}
	if err := checkSysctls(s.Sysctls, own); err != nil {
		return err
	}
	return checkRules(s.Rules)
}

func (l Link) check() error {
	if !isOurs(l.Name) {
		return fmt.Errorf("must be named by Name (ckb, ckx, ckh or ckc and twelve hexadecimal digits)")
	}
	if l.NS != Host && l.NS != Shared {
		return fmt.Errorf("namespace %q: only %q and %q are known", l.NS, Host, Shared)
	}
	if err := checkMTU(l.MTU); err != nil {
		return err
	}
	kinds := 0
	for _, set := range []bool{l.Bridge != nil, l.Veth != nil, l.VXLAN != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("must be exactly one of bridge, veth and vxlan")
	}
	if l.Veth != nil {
		if err := l.Veth.check(l.Master); err != nil {
			return fmt.Errorf("peer %s: %w", ref{l.Veth.PeerNS, l.Veth.Peer}, err)
		}
	}
	if x := l.VXLAN; x != nil {
		if x.VNI >= 1<<24 { // RFC 7348 section 5: 24 bits
			return fmt.Errorf("vni %d: must be less than 16777216", x.VNI)
		}
		if !x.Local.IsValid() || x.Local.Is4In6() || x.Port == 0 {
			return fmt.Errorf("vxlan: local address %s and UDP port %d must be given", x.Local, x.Port)
		}
	}
	return nil
}

func (v Veth) check(master string) error {
	if err := checkMTU(v.PeerMTU); err != nil {
		return err
	}
	if !isOurs(v.Peer) || (v.PeerNS != Host && v.PeerNS != Shared) {
		return fmt.Errorf("must be named by Name and be in a known namespace")
	}
	for _, ip := range v.Announce {
		if !ip.IsValid() || v.PeerMAC == (MAC{}) || master == "" {
			return fmt.Errorf("address %s cannot be announced: it takes a valid one, a MAC address and a master", ip)
		}
	}
	return nil
}

// checkMTU leaves the exact bounds to the kernel, which knows them for each kind of device, and keeps out what does not
// fit its 32 bits.
func checkMTU(mtu int) error {
	if mtu < 0 || mtu > 65535 {
		return fmt.Errorf("mtu %d: must be 0 (the kernel's choice) to 65535 bytes", mtu)
	}
	return nil
}

// checkSysctls lets pass keys of our own namespace, and in the host's those of our own devices.
func checkSysctls(keys []Sysctl, own map[ref]bool) error {
	for _, k := range keys {
		ours := k.NS == Shared
		for _, part := range strings.Split(k.Key, "/") {
			if part == "" || part == "." || part == ".." {
				return fmt.Errorf("sysctl %s: not a path below /proc/sys", k.Key)
			}
			ours = ours || own[ref{k.NS, part}]
		}
		if !ours || !strings.HasPrefix(k.Key, "net/") {
			return fmt.Errorf("sysctl %s: not of one of our devices, nor of our namespace", k.Key)
		}
	}
	return nil
}

func checkRules(rules []Rule) error {
	for _, r := range rules {
		if r.Chain != Prerouting && r.Chain != Forward && r.Chain != Output {
			return fmt.Errorf("rule: chain %q: only %s, %s and %s are known", r.Chain, Prerouting, Forward, Output)
		}
		if r.Verdict != Accept && r.Verdict != Drop && r.Verdict != NoTrack {
			return fmt.Errorf("rule: verdict %q: only %s, %s and %s are known", r.Verdict, Accept, Drop, NoTrack)
		}
		if r.Verdict == NoTrack && r.Chain == Forward {
			return fmt.Errorf("rule: %s comes too late in %s, where conntrack has seen the packet", NoTrack, Forward)
		}
		if vni := max(r.VNI, r.VNIFrom); vni >= 1<<24 {
			return fmt.Errorf("rule: vni %d: must be less than 16777216", vni)
		} else if vni != 0 && r.UDPPort == 0 {
			return fmt.Errorf("rule: vni %d: only allowed with the UDP port of VXLAN", vni)
		}
		if r.Astray && r.Chain != Prerouting { // not every kernel takes the expression elsewhere
			return fmt.Errorf("rule: astray: only allowed in chain %s", Prerouting)
		}
		if r.NS != Host && r.NS != Shared {
			return fmt.Errorf("rule: namespace %q: only %q and %q are known", r.NS, Host, Shared)
		}
	}
	return nil
}
