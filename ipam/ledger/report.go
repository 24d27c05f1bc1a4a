package ledger

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// Told is an endpoint as its node tells of it.
type Told struct {
	Node     string // id
	Endpoint string
	MAC      string
	Addrs    []netip.Addr
}

// Elsewhere is what is known of networks beside their addresses.
type Elsewhere struct {
	Modes map[string]string // of networks, by Docker's identifiers
	// Told is what the other nodes tell of a network of the cluster; heard is false where this host does not listen.
	Told func(shared string) (all []Told, heard bool)
}

// hosts are the nodes of the cluster by their ids; without any, it is not known who is there.
type hosts struct {
	self  string
	nodes map[string]cluster.Node
}

func (at Moment) hosts() hosts {
	h := hosts{self: at.Self, nodes: map[string]cluster.Node{}}
	if at.Nodes != nil {
		for _, n := range at.Nodes() {
			h.nodes[n.ID] = n
		}
	}
	return h
}

// state says how a host is, since when it does not answer, and whether its addresses are stranded: a host whose plugin is
// silent gives out its own, one that does not answer at all may never come back.
func (h hosts) state(id string) (state string, silent time.Time, stranded bool) {
	n, known := h.nodes[id]
	switch {
	case id == h.self:
		return "this node", time.Time{}, false
	case len(h.nodes) == 0 || id == "": // "": a newer version's
		return "", time.Time{}, false
	case !known:
		return "gone", time.Time{}, true
	case n.Lost:
		return "left behind", n.Silent, true
	case n.Suspended:
		return "suspended", n.Silent, true
	case !n.Alive:
		return "silent", n.Silent, false
	}
	return "alive", time.Time{}, false
}

// blocksOf shows the blocks of a pool, which are sorted as View.Blocks does it.
func blocksOf(p PoolStatus, blocks []cluster.Block, view cluster.View, hosts hosts) []BlockStatus {
	all := make([]BlockStatus, 0, len(blocks))
	var around []int // the blocks that the next one may lie in, the longest last
	for _, b := range blocks {
		if !p.Subnet.Overlaps(b.Prefix) {
			continue
		}
		s := BlockStatus{
			Subnet: p.Subnet, Network: p.Network, Shared: p.Shared, Name: p.Name, Prefix: b.Prefix, Host: hosts.nodes[b.Node].Name, Mine: b.Node == hosts.self,
			Size: usable(p.subnet, b.Prefix), Entry: b.Index, node: b.Node,
		}
		if s.Host == "" {
			s.Host = view.NodeName(b.Node)
		}
		s.State, s.Silent, s.Stranded = hosts.state(b.Node)
		for len(around) > 0 && !all[around[len(around)-1]].Prefix.Overlaps(b.Prefix) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			all[around[len(around)-1]].Size -= s.Size
		}
		around = append(around, len(all))
		all = append(all, s)
	}
	return all
}

// Absent says that it is a network of the cluster that this host does not have.
func (p PoolStatus) Absent() bool { return p.ID == "" }

// add counts the addresses of a pool's range, each for the longest block around it.
func (p *PoolStatus) add() {
	p.Usable = usable(p.subnet, p.Range)
	if p.Shared == "" || p.Stale {
		return
	}
	p.Unclaimed = p.Usable
	for _, b := range p.Blocks {
		if !p.Range.Contains(b.Prefix.Addr()) || b.GivenUp {
			continue
		}
		p.Unclaimed -= min(p.Unclaimed, b.Size)
		switch {
		case b.Frozen:
			p.Frozen += b.Size
		case b.Mine:
		case b.Stranded:
			p.Stranded += b.Size
		default:
			p.Others += b.Size
		}
	}
	if p.Frozen == 0 {
		return
	}
	find := longest(p.Blocks)
	for _, l := range p.Leases {
		if b, ok := find(l.Addr); ok && b.Frozen && p.Range.Contains(l.Addr) {
			p.Frozen-- // what is seen to be in use is used
		}
	}
}

// usable is how many addresses of a part of a subnet may be endpoints', at most 2^62.
func usable(s cluster.Subnet, part netip.Prefix) uint64 {
	if part.IsSingleIP() {
		if s.Usable(part.Addr()) {
			return 1
		}
		return 0
	}
	all := min(cluster.BlockSize(part), 1<<62)
	var not []netip.Addr // each once: the gateway may be an auxiliary address as well
	except := func(a netip.Addr) {
		if part.Contains(a) && !s.Usable(a) && !slices.Contains(not, a) {
			not = append(not, a)
		}
	}
	except(s.Gateway)
	except(s.Prefix.Masked().Addr())
	except(last(s.Prefix))
	for _, a := range s.Aux {
		except(a)
	}
	return all - uint64(len(not))
}

// longest returns a function that finds the longest block around an address.
func longest(blocks []BlockStatus) func(netip.Addr) (*BlockStatus, bool) {
	index := map[netip.Prefix]int{}
	var bits []int
	for n, b := range blocks {
		index[b.Prefix.Masked()] = n
		if !slices.Contains(bits, b.Prefix.Bits()) {
			bits = append(bits, b.Prefix.Bits())
		}
	}
	slices.SortFunc(bits, func(a, b int) int { return b - a })
	return func(addr netip.Addr) (*BlockStatus, bool) {
		for _, n := range bits {
			prefix, _ := addr.Prefix(n) // fails only for lengths that the family has not
			if at, ok := index[prefix]; ok {
				return &blocks[at], true
			}
		}
		return nil, false
	}
}

// Survey is all there is to say of addresses: the pools of this host, and the networks of the cluster that it does not have.
func (l *Ledger) Survey(at Moment) []PoolStatus {
	all := l.Status(at)
	here := map[string]bool{}
	for n := range all {
		p := l.pools[all[n].ID]
		all[n].resting, all[n].excluded = maps.Collect(p.space.resting(at.Now)), maps.Clone(p.excluded)
		here[p.Shared] = true
	}
	hosts := at.hosts()
	for _, n := range at.View.Networks() {
		for _, s := range n.Subnets {
			if here[n.ID] {
				continue
			}
			p := PoolStatus{Subnet: s.Prefix, Range: s.Range, Gateway: s.Gateway, Name: n.Name, Shared: n.ID, Mode: n.Mode, subnet: s}
			if !p.Range.IsValid() {
				p.Range = s.Prefix
			}
			p.Blocks = blocksOf(p, at.View.Blocks(n.ID), at.View, hosts)
			p.add()
			all = append(all, p)
		}
	}
	return all
}

// Choose returns the pools that which means: by their subnet, by the name or the identifier of their network, or by how that
// begins; "" means all.
func Choose(all []PoolStatus, which string) ([]PoolStatus, error) {
	if which == "" {
		return all, nil
	}
	var exact, begins []PoolStatus
	for _, p := range all {
		switch {
		case slices.Contains([]string{p.Subnet.String(), p.Name, p.Network, p.Shared, p.ID}, which):
			exact = append(exact, p)
		case strings.HasPrefix(p.Network, which) || strings.HasPrefix(p.Shared, which):
			begins = append(begins, p)
		}
	}
	switch {
	case len(exact) > 0:
		return exact, nil
	case len(begins) > 0:
		return begins, nil
	}
	return nil, fmt.Errorf("no pool has the subnet %q, or a network of that name or identifier; %s", which, known(all))
}

// Complete adds what is known elsewhere: the mode, and what is in use of each block.
func (p *PoolStatus) Complete(e Elsewhere) {
	if p.Network != "" {
		p.Mode = e.Modes[p.Network]
	}
	if p.Shared == "" {
		return
	}
	find := longest(p.Blocks)
	told, heard := e.Told(p.Shared)
	if heard {
		p.Told = new(int)
	}
	for n := range p.Blocks {
		if b := &p.Blocks[n]; b.Mine || heard && !b.Stranded {
			b.Used = new(int)
		}
	}
	for _, t := range told {
		for _, addr := range t.Addrs {
			if b, ok := find(addr); ok && b.node == t.Node && b.Used != nil {
				*b.Used++
				*p.Told++
			}
		}
	}
	for _, l := range p.Leases {
		if b, ok := find(l.Addr); ok && b.Mine {
			*b.Used++
		}
	}
}

// Taken are the leases of a pool of a Survey, what rests, and what is nobody's to have.
func (p PoolStatus) Taken() []LeaseStatus {
	all := slices.Clone(p.Leases)
	add := func(addr netip.Addr, state AddressState, name string, until time.Time) {
		all = append(all, LeaseStatus{Subnet: p.Subnet, Network: p.Network, Addr: addr, State: state, Name: name, Until: until})
	}
	if p.Gateway.IsValid() {
		add(p.Gateway, StateGateway, "", time.Time{})
	}
	for name, addr := range p.subnet.Aux {
		if name == addr.String() { // a name that was not told
			name = ""
		}
		add(addr, StateAuxiliary, name, time.Time{})
	}
	for addr, until := range p.resting {
		add(addr, StateResting, "", until)
	}
	slices.SortFunc(all, func(a, b LeaseStatus) int { return a.Addr.Compare(b.Addr) })
	return all
}

// maxKnown is how many pools a sentence names.
const maxKnown = 20

// known says which pools there are.
func known(all []PoolStatus) string {
	var names []string
	for _, p := range all[:min(len(all), maxKnown)] {
		name := p.Subnet.String()
		switch {
		case p.Name != "":
			name += " (" + p.Name + ")"
		case p.Network != "":
			name += " (" + short(p.Network) + ")"
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "there is none"
	}
	if more := len(all) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return "there are " + strings.Join(names, ", ")
}
