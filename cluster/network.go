package cluster

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// networkVersion is the version of the fact below "network/": a newer one is not understood and makes the network
// unusable here, with a sentence, rather than half understood.
const networkVersion = 1

// FirstVNI is where our VXLAN network identifiers begin. Docker's own start at 4096 and count up; 2^20 leaves them room.
const FirstVNI = 1 << 20

// lastVNI is the largest that fits 24 bits (RFC 7348 section 5).
const lastVNI = 1<<24 - 1

// Subnet is one address range of a network.
type Subnet struct {
	Prefix  netip.Prefix          `json:"prefix"`
	Range   netip.Prefix          `json:"range"`   // where dynamic addresses come from (--ip-range); Prefix if not given
	Gateway netip.Addr            `json:"gateway"` // the same on every host; zero: none
	Aux     map[string]netip.Addr `json:"aux,omitempty"`
}

// Network is what the cluster agrees on for one network.
type Network struct {
	Version  int               `json:"v"`
	ID       string            `json:"id"`             // 12 hex digits
	Name     string            `json:"name,omitempty"` // of --ipam-opt network=NAME
	VNI      uint32            `json:"vni"`
	Mode     string            `json:"mode"`
	Options  map[string]string `json:"options,omitempty"` // with all defaults that hosts must share made explicit
	Internal bool              `json:"internal,omitempty"`
	MTU      int               `json:"mtu"`     // bytes, of the containers' interfaces
	Subnets  []Subnet          `json:"subnets"` // IPv4 before IPv6, then by address
}

// Defaults are what a network gets that its maker did not say.
type Defaults struct {
	MTU      int
	Gateways map[netip.Prefix]netip.Addr
}

// NetworkID is the identifier of the network of that name, or, without a name, of those subnets: hosts that say the same
// mean the same network, and need not ask each other for a number first.
func NetworkID(name string, subnets []Subnet) string {
	said := "name " + name
	if name == "" {
		prefixes := make([]string, 0, len(subnets))
		for _, s := range subnets {
			prefixes = append(prefixes, s.Prefix.String())
		}
		slices.Sort(prefixes)
		said = "subnets " + strings.Join(prefixes, " ")
	}
	sum := sha256.Sum256([]byte(said))
	return hex.EncodeToString(sum[:6])
}

// Network returns the network of an identifier.
func (v View) Network(id string) (Network, bool) {
	f, ok := v.Get("network/" + id)
	if !ok {
		return Network{}, false
	}
	n, err := decodeNetwork(f)
	return n, err == nil
}

// Networks returns all networks, in the order of their identifiers. Those of a newer version are left out.
func (v View) Networks() []Network {
	var all []Network
	for f := range v.Prefix("network/") {
		if n, err := decodeNetwork(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// Attendants returns the identifiers of the nodes that have the network, sorted.
func (v View) Attendants(network string) []string {
	var nodes []string
	for f := range v.Prefix("attend/" + network + "/") {
		nodes = append(nodes, f.Key[strings.LastIndexByte(f.Key, '/')+1:])
	}
	return nodes
}

func decodeNetwork(f Fact) (Network, error) {
	var n Network
	if err := json.Unmarshal(f.Value, &n); err != nil {
		return Network{}, fmt.Errorf("%s: %w", f.Key, err)
	}
	if n.Version != networkVersion {
		return Network{}, fmt.Errorf("%s: format version %d, this node knows %d", f.Key, n.Version, networkVersion)
	}
	return n, nil
}

// JoinNetwork makes the network that want describes, or joins the one that is there already: see PlanJoin.
func JoinNetwork(ctx context.Context, c proposer, want Network, defaults Defaults) (Network, error) {
	network, _, err := Decide(ctx, c, "network create", func(v View) (Network, Txn, error) {
		return PlanJoin(v, want, defaults, c.ID())
	})
	return network, err
}

// PlanJoin gives the network that want describes to node: it is made, or the one that is there already is joined. The result
// says which it is. A zero MTU of want, and a zero Range, Gateway or Aux of its subnets, takes what the network has; the MTU
// and the gateways in defaults are for the case that it has to be made. ID, VNI and Version of want are ignored. Whatever else
// differs is refused with both values.
func PlanJoin(v View, want Network, defaults Defaults, node string) (Network, Txn, error) {
	want.Version, want.ID = networkVersion, NetworkID(want.Name, want.Subnets)
	want.Subnets = slices.Clone(want.Subnets)
	slices.SortFunc(want.Subnets, compareSubnets)
	attend := Op{Key: attendKey(want.ID, node), Value: []byte("{}")}
	join := Txn{If: []Cond{{"network/" + want.ID, v.Index()}}, Then: []Op{attend}}
	if f, ok := v.Get("network/" + want.ID); ok {
		have, err := decodeNetwork(f)
		if err == nil {
			err = agree(have, want)
		}
		if _, ok := v.Get(attend.Key); ok {
			join.Then = nil
		}
		return have, join, err
	}
	create := Txn{If: []Cond{{"network", v.Index()}}}
	for _, other := range v.Networks() {
		for _, o := range other.Subnets {
			for _, w := range want.Subnets {
				if o.Prefix.Overlaps(w.Prefix) {
					return Network{}, create, fmt.Errorf("subnet %s overlaps %s of the cluster's network %s", w.Prefix, o.Prefix, other.label())
				}
			}
		}
	}
	want.VNI = freeVNI(v, want.ID)
	for i, s := range want.Subnets {
		if !s.Range.IsValid() {
			want.Subnets[i].Range = s.Prefix
		}
		if !s.Gateway.IsValid() {
			want.Subnets[i].Gateway = defaults.Gateways[s.Prefix]
		}
	}
	if want.MTU == 0 {
		want.MTU = defaults.MTU
	}
	value, err := json.Marshal(want)
	create.Then = []Op{{"network/" + want.ID, value}, attend}
	return want, create, err
}

// freeVNI begins at a number derived from the identifier, so that a network that is removed and made again keeps its VNI
// and a late frame of another network does not meet it.
func freeVNI(v View, id string) uint32 {
	used := map[uint32]bool{}
	for _, n := range v.Networks() {
		used[n.VNI] = true
	}
	sum := sha256.Sum256([]byte(id))
	vni := FirstVNI + (uint32(sum[0])<<16|uint32(sum[1])<<8|uint32(sum[2]))%(lastVNI-FirstVNI+1)
	for used[vni] {
		if vni++; vni > lastVNI {
			vni = FirstVNI
		}
	}
	return vni
}

// agree says in what want contradicts have.
func agree(have, want Network) error {
	differs := func(what string, there, here any) error {
		return fmt.Errorf("the cluster's network %s has %s %v, this request %v", have.label(), what, there, here)
	}
	if have.Mode != want.Mode {
		return differs("mode", have.Mode, want.Mode)
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		return differs("MTU", have.MTU, want.MTU)
	}
	if have.Internal != want.Internal {
		return differs("--internal", have.Internal, want.Internal)
	}
	keys := slices.Sorted(maps.Keys(have.Options))
	for k := range want.Options {
		if _, ok := have.Options[k]; !ok {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		if have.Options[k] != want.Options[k] {
			return differs("option "+k, quote(have.Options[k]), quote(want.Options[k]))
		}
	}
	if len(have.Subnets) != len(want.Subnets) {
		return differs("subnets", prefixes(have.Subnets), prefixes(want.Subnets))
	}
	for i, h := range have.Subnets {
		w := want.Subnets[i]
		switch {
		case h.Prefix != w.Prefix:
			return differs("subnets", prefixes(have.Subnets), prefixes(want.Subnets))
		case w.Range.IsValid() && w.Range != h.Range:
			return differs("--ip-range", h.Range, w.Range)
		case w.Gateway.IsValid() && w.Gateway != h.Gateway:
			return differs("--gateway", h.Gateway, w.Gateway)
		case len(w.Aux) > 0 && !maps.Equal(w.Aux, h.Aux):
			return differs("--aux-address", h.Aux, w.Aux)
		}
	}
	return nil
}

// LeaveNetwork takes node off the network: see PlanLeave.
func LeaveNetwork(ctx context.Context, c proposer, id, node string) error {
	_, _, err := Decide(ctx, c, "network rm", func(v View) (struct{}, Txn, error) {
		return struct{}{}, PlanLeave(v, id, node), nil
	})
	return err
}

// PlanLeave takes node off the network, with its blocks and its questions. With its last node the network is gone, and all
// blocks, questions and its reservation with it.
func PlanLeave(v View, id, node string) Txn {
	attend := attendKey(id, node)
	if _, ok := v.Get(attend); !ok {
		return Txn{}
	}
	txn := Txn{
		If: []Cond{
			// Who is the last must not be decided twice at once, nor while somebody joins.
			{"attend/" + id, v.Index()}, {"network/" + id, v.Index()},
			// What is removed may be another's meanwhile, and what the node has got since would be nobody's to give back.
			{"block/" + id, v.Index()}, {"want/" + id, v.Index()},
		},
		Then: []Op{{Key: attend}},
	}
	last := len(v.Attendants(id)) == 1
	for f := range v.Prefix("block/" + id + "/") {
		if b, err := decodeBlock(f); last || err == nil && b.Node == node {
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	for f := range v.Prefix("want/" + id + "/") {
		if w, ok := decodeWant(f); last || ok && w.Node == node {
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	if !last {
		return txn
	}
	if n, ok := v.Network(id); ok && n.Name != "" {
		for _, family := range []string{"4", "6"} {
			txn.Then = append(txn.Then, Op{Key: "reserve/" + n.Name + "/" + family})
		}
	}
	txn.Then = append(txn.Then, Op{Key: "network/" + id})
	return txn
}

// ReservePool returns the subnet that the named network has, or is going to have: see PlanReserve.
func ReservePool(ctx context.Context, c proposer, name string, candidate netip.Prefix) (netip.Prefix, error) {
	subnet, _, err := Decide(ctx, c, "reserve a subnet for network "+name, func(v View) (netip.Prefix, Txn, error) {
		return PlanReserve(v, name, candidate)
	})
	return subnet, err
}

// PlanReserve reserves a subnet for the named network, in the family of candidate. The result is the subnet that the network
// has, or is going to have: the first to ask decides, and its candidate is written down, so that hosts that create the network
// at the same time get the same.
func PlanReserve(v View, name string, candidate netip.Prefix) (netip.Prefix, Txn, error) {
	network := "network/" + NetworkID(name, nil)
	family := "4"
	if candidate.Addr().Is6() {
		family = "6"
	}
	key := "reserve/" + name + "/" + family
	if n, ok := v.Network(NetworkID(name, nil)); ok {
		for _, s := range n.Subnets {
			if s.Prefix.Addr().Is6() == candidate.Addr().Is6() {
				return s.Prefix, Txn{}, nil
			}
		}
		return netip.Prefix{}, Txn{If: []Cond{{network, v.Index()}}},
			fmt.Errorf("the cluster's network %s has no IPv%s subnet", name, family)
	}
	if f, ok := v.Get(key); ok {
		reserved, err := netip.ParsePrefix(string(f.Value))
		return reserved, Txn{If: []Cond{{key, v.Index()}}}, err
	}
	return candidate, Txn{
		If:   []Cond{{key, v.Index()}, {network, v.Index()}},
		Then: []Op{{key, []byte(candidate.String())}},
	}, nil
}

// Reserved returns every subnet that a network has or is going to have.
func (v View) Reserved() []netip.Prefix {
	var all []netip.Prefix
	for _, n := range v.Networks() {
		for _, s := range n.Subnets {
			all = append(all, s.Prefix)
		}
	}
	for f := range v.Prefix("reserve/") {
		if p, err := netip.ParsePrefix(string(f.Value)); err == nil {
			all = append(all, p)
		}
	}
	return all
}

func (n Network) label() string {
	if n.Name != "" {
		return n.Name
	}
	return fmt.Sprint(prefixes(n.Subnets))
}

func prefixes(subnets []Subnet) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(subnets))
	for _, s := range subnets {
		all = append(all, s.Prefix)
	}
	return all
}

func compareSubnets(a, b Subnet) int {
	if c := cmp.Compare(a.Prefix.Addr().BitLen(), b.Prefix.Addr().BitLen()); c != 0 {
		return c
	}
	return a.Prefix.Addr().Compare(b.Prefix.Addr())
}

func quote(s string) string {
	if s == "" {
		return "unset"
	}
	return s
}
