package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// table is the name of our nft table, of family inet.
const table = "carrick"

// An nftRule is one rule as nft keeps it: of one address family, where a Rule may speak of both.
type nftRule struct {
	ns      NS
	chain   Chain
	family  family
	udpPort uint16
	vni     uint32
	vniFrom uint32
	notFrom []netip.Addr
	to      []netip.Addr
	astray  bool
	verdict Verdict
}

type family string

const (
	anyFamily family = ""
	ipv4      family = "ip"
	ipv6      family = "ip6"
)

// A heldRule is one that the kernel has. sum stands for its content: nothing edits a rule in place, and one that was put
// in its stead by hand has lost our comment.
type heldRule struct {
	ns     NS
	chain  Chain // that it stands in, see place
	handle uint64
	sum    string
}

// expand splits a rule into rules of one family each. A packet of a family of which NotFrom has no address comes from none
// of them and matches; one of a family of which To has no address cannot match.
func expand(r Rule) []nftRule {
	one := nftRule{ns: r.NS, chain: r.Chain, udpPort: r.UDPPort, vni: r.VNI, vniFrom: r.VNIFrom, astray: r.Astray, verdict: r.Verdict}
	if len(r.NotFrom) == 0 && len(r.To) == 0 {
		return []nftRule{one}
	}
	var rules []nftRule
	for _, f := range []family{ipv4, ipv6} {
		split := one
		split.family, split.notFrom, split.to = f, f.of(r.NotFrom), f.of(r.To)
		if len(r.To) != 0 && len(split.to) == 0 {
			continue
		}
		rules = append(rules, split)
	}
	return rules
}

// of are the addresses of one family, sorted and each once: a set has no order, and must not seem changed when the list
// came in another.
func (f family) of(addrs []netip.Addr) []netip.Addr {
	var of []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() == (f == ipv4) {
			of = append(of, a)
		}
	}
	slices.SortFunc(of, netip.Addr.Compare)
	return slices.Compact(of)
}

// inVXLAN says whether the rule, or the way to it, looks into the header of VXLAN.
func (r nftRule) inVXLAN() bool { return r.vni != 0 || r.vniFrom != 0 }

// String is the rule as nft(8) would take it, after the name of its chain, which says the port and the VNI. What tells most
// packets apart stands first.
func (r nftRule) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if r.family != anyFamily && len(r.notFrom) == 0 && len(r.to) == 0 {
		add("meta nfproto %s", map[family]string{ipv4: "ipv4", ipv6: "ipv6"}[r.family])
	}
	if r.vniFrom != 0 {
		add("@th,96,32 >= %#x", r.vniFrom<<8)
	}
	if len(r.notFrom) != 0 {
		add("%s saddr != { %s }", r.family, join(r.notFrom))
	}
	if len(r.to) != 0 {
		add("%s daddr { %s }", r.family, join(r.to))
	}
	if r.astray {
		add("fib saddr . iif oif missing")
	}
	add("%s", r.verdict)
	if r.verdict == NoTrack {
		add("%s", Accept)
	}
	return strings.Join(parts, " ")
}

func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

// sum identifies the rule in its comment: of an nft comment 128 bytes are shown, which no set of addresses fits. The number
// is raised when the same text comes to mean other expressions.
func (r nftRule) sum() string {
	sum := sha256.Sum256([]byte("2 " + string(r.place()) + " " + r.String()))
	return hex.EncodeToString(sum[:8])
}

// setRules replaces rules of one owner in one namespace, in one transaction.
type setRules struct {
	ns  NS
	del []heldRule
	add []nftRule
}

func (o setRules) String() string {
	command := nftIn(o.ns)
	var lines []string
	for _, r := range o.del {
		lines = append(lines, fmt.Sprintf("%s delete rule inet %s %s handle %d", command, table, r.chain, r.handle))
	}
	for _, r := range o.add {
		lines = append(lines, fmt.Sprintf("%s add rule inet %s %s %s", command, table, r.place(), r))
	}
	return strings.Join(lines, "\n")
}

// diffRules says what to do before everything else and what after it. Rules guard links: they are in force before the
// links are there, and go after them. Where links go and rules change, both the old and the new ones hold meanwhile.
func diffRules(have []heldRule, want []Rule, unguided map[NS]bool, linksGo bool) (before, after []op) {
	for _, ns := range []NS{Host, Shared} {
		var held []heldRule
		var add []nftRule
		for _, r := range have {
			if r.ns == ns {
				held = append(held, r)
			}
		}
		for _, r := range want {
			if r.NS == ns {
				add = append(add, expand(r)...)
			}
		}
		if sameRules(held, add) && !(unguided[ns] && len(add) != 0) {
			continue
		}
		switch {
		case len(add) == 0:
			after = append(after, setRules{ns: ns, del: held})
		case linksGo && len(held) != 0:
			before = append(before, setRules{ns: ns, add: add})
			after = append(after, setRules{ns: ns, del: held})
		default:
			before = append(before, setRules{ns: ns, del: held, add: add})
		}
	}
	return before, after
}

// sameRules compares chain by chain: there is no order between rules of different chains.
func sameRules(held []heldRule, want []nftRule) bool {
	have, should := map[Chain][]string{}, map[Chain][]string{}
	for _, r := range held {
		have[r.chain] = append(have[r.chain], r.sum)
	}
	for _, r := range want {
		should[r.place()] = append(should[r.place()], r.sum())
	}
	return maps.EqualFunc(have, should, slices.Equal)
}
