package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Every packet of the host goes through our base chains. So rules about a UDP port stand in a chain of that port, and those
// about a VNI too in one of that VNI: what is not VXLAN meets one rule of ours, and a frame those of its own network, however
// many networks there are. What it was worth with two networks: docs/adr/0022.
//
// What leads to these chains are signposts: rules of nobody, in the transaction that makes or empties a chain.

// maxWays is how many chains a signpost leads to: a map is sent as one attribute, of 64 KiB at most, with 80 bytes for each.
const maxWays = 500

// place is the chain that a rule stands in: "prerouting", "prerouting-4789" or "prerouting-4789-0x100000".
func (r nftRule) place() Chain {
	switch {
	case r.udpPort == 0:
		return r.chain
	case r.vni == 0:
		return Chain(fmt.Sprintf("%s-%d", r.chain, r.udpPort))
	}
	return Chain(fmt.Sprintf("%s-%d-%#x", r.chain, r.udpPort, r.vni))
}

// A signpost is a rule that leads to chains of one port or of VNIs.
type signpost struct {
	at Chain
	to []Chain // sorted; in a base chain only one
}

// sum identifies it in its comment. The number is raised when the same chains come to be reached by other expressions.
func (g signpost) sum() string {
	sum := sha256.Sum256(fmt.Append(nil, "1 ", g))
	return hex.EncodeToString(sum[:8])
}

// signposts are those that rules need, by what they are at and lead to.
func signposts(places map[Chain]bool) []signpost {
	ports, segments := map[Chain]bool{}, map[Chain][]Chain{}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		base, port, segment := place.split()
		if port == "" {
			continue
		}
		ports[base+"-"+port] = true
		if segment != "" {
			segments[base+"-"+port] = append(segments[base+"-"+port], place)
		}
	}
	var all []signpost
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		base, _, _ := port.split()
		all = append(all, signpost{base, []Chain{port}})
		for to := range slices.Chunk(segments[port], maxWays) {
			all = append(all, signpost{port, to})
		}
	}
	return all
}

// needed says whether a way leads to a chain, or through it, if there are rules in places.
func needed(places map[Chain]bool, chain Chain) bool {
	return slices.ContainsFunc(signposts(places), func(g signpost) bool { return slices.Contains(g.to, chain) })
}

// split takes the name of a chain apart: "prerouting", "4789", "0x100000". The last two are empty for a base chain.
func (c Chain) split() (base, port, segment Chain) {
	parts := append(strings.SplitN(string(c), "-", 3), "", "")
	return Chain(parts[0]), Chain(parts[1]), Chain(parts[2])
}

// places are the chains that rules stand in, but for signposts.
func places(rules []markedRule) map[Chain]bool {
	all := map[Chain]bool{}
	for _, r := range rules {
		if !r.signpost() {
			all[r.chain] = true
		}
	}
	return all
}

// guided says whether the signposts are those that the rules need, and each there once.
func guided(rules []markedRule) bool {
	var have, want []string
	for _, r := range rules {
		if r.signpost() {
			have = append(have, string(r.chain)+" "+r.sum)
		}
	}
	for _, g := range signposts(places(rules)) {
		want = append(want, string(g.at)+" "+g.sum())
	}
	slices.Sort(have)
	slices.Sort(want)
	return slices.Equal(have, want)
}

// guide adds to a transaction what makes the signposts right: have is what there is, places where rules will be.
func guide(c *nftables.Conn, t *nftables.Table, have []markedRule, places map[Chain]bool) error {
	want := map[string]signpost{}
	for _, g := range signposts(places) {
		want[string(g.at)+" "+g.sum()] = g
		for _, chain := range g.to {
			c.AddChain(&nftables.Chain{Name: string(chain), Table: t})
		}
	}
	for _, r := range have {
		key := string(r.chain) + " " + r.sum
		if !r.signpost() {
			continue
		}
		if _, right := want[key]; right {
			delete(want, key)
		} else if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: string(r.chain)}, Handle: r.handle}); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		g := want[key]
		exprs, err := g.compile(c, t)
		if err != nil {
			return err
		}
		c.InsertRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: string(g.at)}, Exprs: exprs, UserData: comment("", g.sum())})
	}
	return nil
}

// compile is `udp dport 4789 jump prerouting-4789`, or `@th,96,32 & 0xffffff00 vmap { 0x10000000 : jump prerouting-4789-0x100000, … }`.
// The VNI is read with the byte after it, which is reserved: the kernel has a short way for four bytes, and none for three
// (nft_payload_select_ops).
func (g signpost) compile(c *nftables.Conn, t *nftables.Table) ([]expr.Any, error) {
	if base, _, _ := g.at.split(); base == g.at {
		var port uint16
		if _, err := fmt.Sscanf(string(g.to[0]), string(base)+"-%d", &port); err != nil {
			return nil, fmt.Errorf("chain %s: %w", g.to[0], err)
		}
		return append(udpPort(port), &expr.Verdict{Kind: expr.VerdictJump, Chain: string(g.to[0])}), nil
	}
	var ways []nftables.SetElement
	for _, chain := range g.to {
		var vni uint32
		if _, err := fmt.Sscanf(string(chain), string(g.at)+"-0x%x", &vni); err != nil {
			return nil, fmt.Errorf("chain %s: %w", chain, err)
		}
		ways = append(ways, nftables.SetElement{Key: binaryutil.BigEndian.PutUint32(vni << 8),
			VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: string(chain)}})
	}
	set := &nftables.Set{Table: t, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: nftables.TypeVerdict}
	if err := c.AddSet(set, ways); err != nil {
		return nil, err
	}
	return []expr.Any{
		loadVNI(),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: []byte{0xff, 0xff, 0xff, 0}, Xor: make([]byte, 4)},
		&expr.Lookup{SourceRegister: register, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
	}, nil
}

// loadVNI is the identifier and the byte after it: RFC 7348 section 5, behind 8 bytes of UDP and 4 of flags.
func loadVNI() expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 4}
}

// udpPort matches the destination port: RFC 768, after the source port.
func udpPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}
