package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A markedRule is a rule of our table with what its comment says.
type markedRule struct {
	heldRule
	owner string // "" for a signpost, and for one that was written by hand
}

func (r markedRule) signpost() bool { return r.owner == "" && r.sum != "" }

// baseChains are made together, with the first rule: so that what is there does not depend on what was there before.
var baseChains = []struct {
	chain    Chain
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
}{
	{Prerouting, nftables.ChainHookPrerouting, -300},
	{Forward, nftables.ChainHookForward, -1},
	{Output, nftables.ChainHookOutput, -300},
}

// maxTransaction is how many bytes a transaction may have, which is sent as one message, and its answers, of which each takes a
// kilobyte of the kernel's memory. At worst the way to each of 10,000 networks is written anew, with 80 bytes.
const maxTransaction = 4 << 20

// nft opens a connection for one transaction or one look. The library waits for one answer to each message; where the
// kernel fails a transaction at its commit it sends a single one, so the wait must have an end.
func (sp *space) nft() (*nftables.Conn, error) {
	limit := func(c *netlink.Conn) error {
		return errors.Join(c.SetDeadline(time.Now().Add(answerTime*time.Second)), c.SetWriteBuffer(maxTransaction), c.SetReadBuffer(maxTransaction))
	}
	return nftables.New(nftables.WithNetNSFd(int(sp.fd)), nftables.AsLasting(), nftables.WithSockOptions(limit))
}

// readRules lists our table in the order of its chains, in one dump: the library asks once per chain, and does not tell
// that a dump was disturbed.
func (sp *space) readRules() ([]markedRule, error) {
	if sp.sockets[unix.NETLINK_NETFILTER] == nil {
		return nil, nil
	}
	const getRule, newRule = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	msgs, err := dump(func() ([][]byte, error) {
		return sp.request(getRule, unix.NLM_F_DUMP, &nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_INET},
			attr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table))).Execute(unix.NETLINK_NETFILTER, newRule)
	})
	if err != nil {
		if noNFT(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("%s list table inet %s: %w", nftIn(sp.ns), table, err)
	}
	rules := make([]markedRule, 0, len(msgs))
	for _, m := range msgs {
		r, err := parseRule(sp.ns, m)
		if err != nil {
			return nil, fmt.Errorf("%s list table inet %s: %w", nftIn(sp.ns), table, err)
		}
		if r.chain != defragChain {
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// parseRule reads what tells a rule from others. Its expressions are not looked at.
func parseRule(ns NS, m []byte) (markedRule, error) {
	r := markedRule{heldRule: heldRule{ns: ns}}
	attrs, err := nl.ParseRouteAttr(m[nl.SizeofNfgenmsg:])
	if err != nil {
		return r, err
	}
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.NFTA_RULE_CHAIN:
			r.chain = Chain(unix.ByteSliceToString(a.Value))
		case unix.NFTA_RULE_HANDLE:
			r.handle = binary.BigEndian.Uint64(a.Value)
		case unix.NFTA_RULE_USERDATA:
			r.owner, r.sum = parseComment(a.Value)
		}
	}
	return r, nil
}

// noNFT says whether the kernel lacks nf_tables: there are no rules then, and the first that is wanted fails.
func noNFT(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

func nftIn(ns NS) string {
	if ns == Host {
		return "nft"
	}
	return "ip netns exec " + string(ns) + " nft"
}

// comment is the user data of a rule: "carrick OWNER SUM", where nft(8) looks for the comment it prints.
func comment(owner, sum string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, aliasPrefix+owner+" "+sum)
}

func parseComment(data []byte) (owner, sum string) {
	if len(data) < 2 || data[0] != byte(userdata.TypeComment) || len(data) < 2+int(data[1]) {
		return "", "" // not as we write it; the library's reader does not stop at the end of what is cut short
	}
	text, ours := strings.CutPrefix(unix.ByteSliceToString(data[2:2+int(data[1])]), aliasPrefix)
	at := strings.LastIndexByte(text, ' ')
	if !ours || at < 0 {
		return "", ""
	}
	return text[:at], text[at+1:]
}

// apply runs the replacement as one transaction: a packet meets either all of the old rules or all of the new ones.
func (o setRules) apply(s *scope) error {
	sp := s.space(o.ns)
	c, err := sp.nft()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	had := s.rules[o.ns]
	left := slices.DeleteFunc(slices.Clone(had), func(r markedRule) bool {
		return slices.ContainsFunc(o.del, func(d heldRule) bool { return d.handle == r.handle })
	})
	for _, r := range o.add {
		left = append(left, markedRule{heldRule: heldRule{chain: r.place()}, owner: s.owner})
	}
	stay := places(left)
	if len(stay) == 0 {
		c.DelTable(t)
	} else if err := o.batch(c, t, s.owner, had, stay); err != nil {
		return err
	}
	if err := sp.step("rules", c.Flush); err != nil {
		return err
	}
	if s.rules[o.ns], err = sp.readRules(); err != nil {
		return err
	}
	for _, g := range signposts(places(had)) {
		for _, chain := range g.to {
			if len(stay) != 0 && !needed(stay, chain) {
				c.DelChain(&nftables.Chain{Name: string(chain), Table: t})
			}
		}
	}
	// In a transaction of its own: whether the way to a chain still counts in the transaction that takes it depends on the kernel.
	if err := sp.step("empty chains", c.Flush); err != nil {
		s.k.log.WithError(err).Debug("an empty chain stays until our table goes")
	}
	return nil
}

func (o setRules) batch(c *nftables.Conn, t *nftables.Table, owner string, had []markedRule, stay map[Chain]bool) error {
	c.AddTable(t)
	for _, r := range o.add {
		if r.inVXLAN() {
			defragment(c, t)
			break
		}
	}
	for _, b := range baseChains {
		if len(o.add) == 0 {
			break
		}
		accept, priority := nftables.ChainPolicyAccept, b.priority
		c.AddChain(&nftables.Chain{Name: string(b.chain), Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: b.hook, Priority: &priority, Policy: &accept})
	}
	for _, r := range o.del {
		if err := c.DelRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: string(r.chain)}, Handle: r.handle}); err != nil {
			return err
		}
	}
	if err := guide(c, t, had, stay); err != nil {
		return err
	}
	for _, r := range o.add {
		exprs, err := r.compile(c, t)
		if err != nil {
			return err
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: string(r.place())}, Exprs: exprs, UserData: comment(owner, r.sum())})
	}
	return nil
}

// defragChain is a chain that no packet goes through. Its rule speaks of connections, and as long as it is there the kernel
// puts fragments together before priority -300 (nf_ct_netns_get, both families). Without, a frame whose first fragment ends
// after 8 bytes, before the VNI, passes every rule about VNIs and is delivered all the same (seen on Linux 6.18, IPv4 and
// IPv6). Where Docker has NAT rules of the family the kernel does it anyway.
const defragChain Chain = "defrag"

func defragment(c *nftables.Conn, t *nftables.Table) {
	chain := c.AddChain(&nftables.Chain{Name: string(defragChain), Table: t})
	c.FlushChain(chain)
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0, 0, 0}}, // as nft(8) compiles `ct state != 0`
	}})
}

const register = 1 // NFT_REG_1

// compile turns the rule into the expressions that nft(8) makes of its text.
func (r nftRule) compile(c *nftables.Conn, t *nftables.Table) ([]expr.Any, error) {
	var e []expr.Any
	load := func(base expr.PayloadBase, offset, length uint32) {
		e = append(e, &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length})
	}
	equal := func(data []byte) {
		e = append(e, &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data})
	}
	if r.family != anyFamily {
		e = append(e, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register})
		equal([]byte{map[family]byte{ipv4: unix.NFPROTO_IPV4, ipv6: unix.NFPROTO_IPV6}[r.family]})
	}
	if r.vniFrom != 0 {
		e = append(e, loadVNI(), &expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: binaryutil.BigEndian.PutUint32(r.vniFrom << 8)})
	}
	// Offsets of the source and the destination: RFC 791 section 3.1, RFC 8200 section 3.
	offsets, length, kind := [2]uint32{12, 16}, uint32(4), nftables.TypeIPAddr
	if r.family == ipv6 {
		offsets, length, kind = [2]uint32{8, 24}, 16, nftables.TypeIP6Addr
	}
	for i, addrs := range [2][]netip.Addr{r.notFrom, r.to} {
		if len(addrs) == 0 {
			continue
		}
		set := &nftables.Set{Table: t, Anonymous: true, Constant: true, KeyType: kind}
		if err := c.AddSet(set, elements(addrs)); err != nil {
			return nil, err
		}
		load(expr.PayloadBaseNetworkHeader, offsets[i], length)
		e = append(e, &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID, Invert: i == 0})
	}
	if r.astray {
		e = append(e, &expr.Fib{Register: register, ResultOIF: true, FlagSADDR: true, FlagIIF: true})
		equal([]byte{0, 0, 0, 0}) // the index of no device
	}
	switch r.verdict {
	case NoTrack:
		return append(e, &expr.Notrack{}, &expr.Verdict{Kind: expr.VerdictAccept}), nil
	case Drop:
		return append(e, &expr.Verdict{Kind: expr.VerdictDrop}), nil
	}
	return append(e, &expr.Verdict{Kind: expr.VerdictAccept}), nil
}

func elements(addrs []netip.Addr) []nftables.SetElement {
	list := make([]nftables.SetElement, len(addrs))
	for i, a := range addrs {
		list[i].Key = a.AsSlice()
	}
	return list
}
