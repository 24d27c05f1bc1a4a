package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// blockVersion is the version of the facts below "block/".
const blockVersion = 1

// Block is a part of a network's subnet whose addresses only one node hands out. A block inside another one is carved out of
// it: the longer prefix wins.
type Block struct {
	Prefix netip.Prefix
	Node   string // id
	Index  uint64 // of the log entry that gave it
}

type blockFact struct {
	Version int    `json:"v"`
	Node    string `json:"node"`
}

// BlockKey is the key of the fact that says who has a block.
func BlockKey(network string, prefix netip.Prefix) string {
	return "block/" + network + "/" + prefix.String()
}

// BlockOp gives a block to a node.
func BlockOp(network string, prefix netip.Prefix, node string) (Op, error) {
	value, err := json.Marshal(blockFact{blockVersion, node})
	return Op{BlockKey(network, prefix), value}, err
}

func decodeBlock(f Fact) (Block, error) {
	var fact blockFact
	parts := strings.SplitN(f.Key, "/", 3)
	if len(parts) < 3 {
		return Block{}, fmt.Errorf("%s: no prefix", f.Key)
	}
	prefix, err := netip.ParsePrefix(parts[2])
	if err != nil {
		return Block{}, fmt.Errorf("%s: %w", f.Key, err)
	}
	if node, ok := plainBlock(f.Value); ok {
		return Block{prefix, node, f.Index}, nil
	}
	if err := json.Unmarshal(f.Value, &fact); err != nil {
		return Block{}, fmt.Errorf("%s: %w", f.Key, err)
	}
	if fact.Version != blockVersion {
		return Block{}, fmt.Errorf("%s: format version %d, this node knows %d", f.Key, fact.Version, blockVersion)
	}
	return Block{prefix, fact.Node, f.Index}, nil
}

// plainBlock reads a fact as BlockOp writes it: there are many of them, and they are looked at often.
func plainBlock(value []byte) (node string, ok bool) {
	rest, ok := bytes.CutPrefix(value, plainBegin)
	if !ok {
		return "", false
	}
	rest, ok = bytes.CutSuffix(rest, plainEnd)
	return string(rest), ok && !bytes.ContainsAny(rest, `"\\`)
}

var plainBegin, plainEnd = fmt.Appendf(nil, `{"v":%d,"node":"`, blockVersion), []byte(`"}`)

// Blocks returns the blocks of a network, carved-out addresses among them, by their prefixes. One that is not understood
// belongs to nobody we know: its Node is empty. The slice is not to be changed.
func (v View) Blocks(network string) []Block { return v.Owners(network).All() }

// Owner returns the longest block around an address.
func (v View) Owner(network string, addr netip.Addr) (Block, bool) {
	return v.Owners(network).Block(addr)
}

// Owners are the blocks of one network.
type Owners struct {
	blocks []Block
	index  map[netip.Prefix]int
	bits   []int // lengths that there are, the longest first
}

// Owners of a network's blocks.
func (v View) Owners(network string) Owners {
	return memoized(v, "block/"+network, func() Owners { return v.readBlocks(network) })
}

func (v View) readBlocks(network string) Owners {
	var all []Block
	for f := range v.Prefix("block/" + network + "/") {
		b, err := decodeBlock(f)
		if err != nil {
			if b.Prefix, err = netip.ParsePrefix(strings.TrimPrefix(f.Key, "block/"+network+"/")); err != nil {
				continue
			}
		}
		all = append(all, b)
	}
	return OwnersOf(all)
}

// OwnersOf sorts blocks, each of which is there once.
func OwnersOf(blocks []Block) Owners {
	slices.SortFunc(blocks, func(a, b Block) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), a.Prefix.Bits()-b.Prefix.Bits())
	})
	o := Owners{blocks: blocks, index: make(map[netip.Prefix]int, len(blocks))}
	for n, b := range blocks {
		o.index[b.Prefix.Masked()] = n
		if !slices.Contains(o.bits, b.Prefix.Bits()) {
			o.bits = append(o.bits, b.Prefix.Bits())
		}
	}
	slices.SortFunc(o.bits, func(a, b int) int { return b - a })
	return o
}

// All are the blocks by their prefixes. The slice is not to be changed.
func (o Owners) All() []Block { return o.blocks }

// Get returns a block by its prefix.
func (o Owners) Get(prefix netip.Prefix) (Block, bool) {
	n, ok := o.index[prefix]
	if !ok {
		return Block{}, false
	}
	return o.blocks[n], true
}

// Block returns the longest block around an address.
func (o Owners) Block(addr netip.Addr) (Block, bool) {
	for _, bits := range o.bits {
		p, _ := addr.Prefix(bits) // fails only for lengths that the family has not
		if n, ok := o.index[p]; ok {
			return o.blocks[n], true
		}
	}
	return Block{}, false
}

// Of returns the node that has the longest block around an address; "" stands for one that is not understood.
func (o Owners) Of(addr netip.Addr) (node string, ok bool) {
	b, ok := o.Block(addr)
	return b.Node, ok
}

// NodeName is the name of a node for sentences; its id if the facts do not have it.
func (v View) NodeName(id string) string {
	if n, ok := v.registration(id); ok && n.Name != "" {
		return n.Name
	}
	if id == "" {
		return "a newer version"
	}
	return id
}

// blockBits is the length of the blocks that a range is divided into. It depends on nothing but the range, for all nodes
// must come to the same.
//
//	IPv4 range   block                       IPv6 range     block
//	/26 … /32    one address                 /122 … /128    one address
//	/22 … /25    /28, 16 addresses           /118 … /121    /124, 16 addresses
//	… /21        /26, 64 addresses           /107 … /117    /122, 64 addresses
//	                                         /65 … /106     65,536 blocks
//	                                         … /64          /80, addresses in it are drawn at random
//
// The reason: every node that is expected shall find four blocks. A /26 or less cannot be divided for more than a few
// nodes without most of it standing idle, so there everyone takes the single addresses that it needs. A /24 has 16 blocks,
// for four nodes; a /22 has 64; a /20 has 64 of the larger kind, for sixteen nodes with 250 containers each.
func blockBits(r netip.Prefix) int {
	n := r.Bits()
	if r.Addr().Is4() {
		switch {
		case n >= 26:
			return 32
		case n >= 22:
			return 28
		}
		return 26
	}
	switch {
	case n >= 122:
		return 128
	case n >= 118:
		return 124
	case n >= 107:
		return 122
	}
	return max(n+16, 80)
}

// layout is how a range is divided into blocks. Only the first 2^62 blocks of a vast range are used.
type layout struct {
	rng   netip.Prefix
	bits  int
	count uint64
}

// BlockBits is the length of a subnet's blocks.
func (s Subnet) BlockBits() int { return s.layout().bits }

func (s Subnet) layout() layout {
	r := s.Range
	if !r.IsValid() {
		r = s.Prefix
	}
	bits := blockBits(r)
	return layout{r.Masked(), bits, 1 << min(bits-r.Bits(), 62)}
}

// block is the k-th block.
func (l layout) block(k uint64) netip.Prefix {
	if l.rng.Addr().Is4() {
		b := l.rng.Addr().As4()
		first := uint64(binary.BigEndian.Uint32(b[:]))
		binary.BigEndian.PutUint32(b[:], uint32(first+k<<(32-l.bits)))
		return netip.PrefixFrom(netip.AddrFrom4(b), l.bits)
	}
	b := l.rng.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	shift := 128 - l.bits // at most 48, so that lo takes part of k and hi the rest
	lo |= k << shift
	hi |= k >> (64 - shift) // 0 for shift 0: k has at most 62 bits
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), l.bits)
}

// blockOf is the block an address lies in: outside the range every address is a block of its own.
func (l layout) blockOf(addr netip.Addr) netip.Prefix {
	if !l.rng.Contains(addr) {
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	p, _ := addr.Prefix(l.bits) // fails only for lengths that the family has not
	return p
}

// useless says that nothing in a block may be handed out. Only blocks of one address are worth the question.
func (l layout) useless(s Subnet, p netip.Prefix) bool {
	return p.IsSingleIP() && !s.Usable(p.Addr())
}

// Usable says whether an address of the subnet may be an endpoint's: not the gateway or an auxiliary one, not the network's
// or the broadcast address (RFC 919; a /31 has neither, RFC 3021), not the subnet-router anycast address (RFC 4291 section
// 2.6.1; a /127 does without, RFC 6164).
func (s Subnet) Usable(addr netip.Addr) bool {
	if !s.Prefix.Contains(addr) || addr == s.Gateway {
		return false
	}
	for _, aux := range s.Aux {
		if addr == aux {
			return false
		}
	}
	if addr.BitLen()-s.Prefix.Bits() <= 1 {
		return true
	}
	return addr != s.Prefix.Masked().Addr() && (addr.Is6() || s.Prefix.Contains(addr.Next()))
}

// ClaimBlock makes the next free block of a subnet ours: see PlanClaim.
func ClaimBlock(ctx context.Context, c proposer, network string, s Subnet) (Block, error) {
	return claim(ctx, c, network, s, func(v View) (Block, Txn, error) { return PlanClaim(v, network, s, c.ID()) })
}

// ClaimBlockOf makes the block around an address ours, if it is nobody's. It returns whose it is then: see PlanClaimOf.
func ClaimBlockOf(ctx context.Context, c proposer, network string, s Subnet, addr netip.Addr) (Block, error) {
	return claim(ctx, c, network, s, func(v View) (Block, Txn, error) { return PlanClaimOf(v, network, s, addr, c.ID()) })
}

func claim(ctx context.Context, c proposer, network string, s Subnet, plan func(View) (Block, Txn, error)) (Block, error) {
	b, view, err := Decide(ctx, c, fmt.Sprintf("claim a block of subnet %s", s.Prefix), plan)
	if b.Index == 0 {
		f, _ := view.Get(BlockKey(network, b.Prefix))
		b.Index = f.Index
	}
	return b, err
}

// PlanClaim gives the next free block of a subnet to a node. Nodes begin to look at different places, so that they seldom
// want the same. The Index of the result is zero.
func PlanClaim(v View, network string, s Subnet, node string) (Block, Txn, error) {
	if txn, err := attends(v, network, node); err != nil {
		return Block{}, txn, err
	}
	prefix, err := freeBlock(v, network, s, s.layout(), node)
	if err != nil {
		return Block{}, Txn{If: []Cond{{"block/" + network, v.Index()}}}, err
	}
	return claimTxn(v, network, prefix, node)
}

// PlanClaimOf gives the block around an address to a node, or returns whose it is already, if it is anybody's. The Index of
// the result is zero unless it was there. An address in the block of another is to be had by PlanAsk.
func PlanClaimOf(v View, network string, s Subnet, addr netip.Addr, node string) (Block, Txn, error) {
	if !s.Usable(addr) {
		return Block{}, Txn{}, fmt.Errorf("address %s is not for endpoints in subnet %s", addr, s.Prefix)
	}
	if txn, err := attends(v, network, node); err != nil {
		return Block{}, txn, err
	}
	if have, taken := v.Owner(network, addr); taken {
		return have, Txn{}, nil
	}
	return claimTxn(v, network, s.layout().blockOf(addr), node)
}

// attends refuses a claim of a node that does not have the network.
func attends(v View, network, node string) (Txn, error) {
	attend := attendKey(network, node)
	if _, ok := v.Get(attend); !ok {
		return Txn{If: []Cond{{attend, v.Index()}}}, fmt.Errorf("claim a block: network %s is not on this host", network)
	}
	return Txn{}, nil
}

// claimTxn is the claim of one block that is free. The block is the node's for as long as it has the network.
func claimTxn(v View, network string, prefix netip.Prefix, node string) (Block, Txn, error) {
	op, err := BlockOp(network, prefix, node)
	return Block{Prefix: prefix, Node: node}, Txn{
		If:   []Cond{{op.Key, v.Index()}, {attendKey(network, node), v.Index()}},
		Then: []Op{op},
	}, err
}

// freeBlock looks for a block that nobody has, and that no node which was left behind may have without our knowing it.
func freeBlock(v View, network string, s Subnet, l layout, node string) (netip.Prefix, error) {
	taken := map[netip.Prefix]string{}
	for _, b := range v.Blocks(network) {
		if b.Prefix.Bits() == l.bits && l.rng.Contains(b.Prefix.Addr()) {
			taken[b.Prefix] = b.Node
		}
	}
	for _, lost := range v.leftBehindAll() {
		for range l.margin() {
			if p, ok := l.next(s, network, lost, taken); ok {
				taken[p] = lost
			}
		}
	}
	if p, ok := l.next(s, network, node, taken); ok {
		return p, nil
	}
	return netip.Prefix{}, allTaken(v, s, taken)
}

// next is the block that a node claims next, if those are taken. Among n+1 blocks one is free if n are taken.
func (l layout) next(s Subnet, network, node string, taken map[netip.Prefix]string) (netip.Prefix, bool) {
	h := fnv.New64a()
	h.Write([]byte(network + " " + node)) // never fails
	start := h.Sum64() % l.count
	useless := uint64(len(s.Aux)) + 3 // at most: gateway, network, broadcast
	for i := range min(l.count, uint64(len(taken))+useless+1) {
		p := l.block((start + i) % l.count)
		if _, ok := taken[p]; !ok && !l.useless(s, p) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// margin is how many blocks are kept for each node that was left behind when the cluster was recovered, where it would have
// claimed them: the copy that was gone on from may lack its last claims. Four times what a node claims ahead, but no more than
// an eighth of all.
func (l layout) margin() uint64 { return min(16, l.count/8) }

// allTaken is the error that says who has the blocks of a subnet.
func allTaken(v View, s Subnet, taken map[netip.Prefix]string) error {
	counts := map[string]int{}
	for _, node := range taken {
		counts[v.NodeName(node)]++
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	var who []string
	for _, name := range names {
		who = append(who, fmt.Sprintf("%d by %s", counts[name], name))
	}
	if len(who) == 0 {
		return fmt.Errorf("subnet %s: there is no address for endpoints", s.Prefix)
	}
	return fmt.Errorf("subnet %s: all %d blocks are taken: %s", s.Prefix, len(taken), strings.Join(who, ", "))
}

// BlockSize is how many addresses a block has, at most 2^63-1.
func BlockSize(p netip.Prefix) uint64 {
	host := p.Addr().BitLen() - p.Bits()
	if host >= 63 {
		return math.MaxInt64
	}
	return 1 << host
}
