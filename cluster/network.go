package cluster

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
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

// proposer is what claims need of a Cluster.
type proposer interface {
	View() View
	Propose(ctx context.Context, txn Txn) (View, error)
	ID() string
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

// JoinNetwork makes the network that want describes, or joins the one that is there already, and says which it was.
// A zero MTU of want, and a zero Range, Gateway or Aux of its subnets, takes what the network has; mtu and the gateways in
// defaults are for the case that it has to be made. ID, VNI and Version of want are ignored. Whatever else differs is refused with both
// values, and nothing is changed.
func JoinNetwork(ctx context.Context, c proposer, want Network, defaults Defaults) (Network, error) {
	want.Version, want.ID = networkVersion, NetworkID(want.Name, want.Subnets)
	want.Subnets = slices.Clone(want.Subnets)
	slices.SortFunc(want.Subnets, compareSubnets)
	return decide(ctx, c, "network create", func(v View) (Network, Txn, error) {
		return joinNetwork(v, want, defaults, c.ID())
	})
}

// decide tries until the facts stay still: try says, of one view, what the result is and what is to be written for it, or
// why it is refused. A refusal is made from a copy that may lag behind, so it counts only when the facts that it names in
// Txn.If are confirmed to be the newest; without a quorum it stands as it is, for then nothing new is made anyhow.
func decide[T any](ctx context.Context, c proposer, what string, try func(View) (T, Txn, error)) (T, error) {
	var none T
	view := c.View()
	for {
		result, txn, refusal := try(view)
		if refusal == nil && len(txn.Then) == 0 {
			return result, nil
		}
		if refusal != nil {
			txn.Then = nil
		}
		next, err := c.Propose(ctx, txn)
		switch {
		case errors.Is(err, ErrConflict):
			view = next
		case refusal != nil:
			return none, refusal
		case err != nil:
			return none, fmt.Errorf("%s: %w", what, err)
		default:
			return result, nil
		}
	}
}

// joinNetwork is one try: what is to be written so that node has the network.
func joinNetwork(v View, want Network, defaults Defaults, node string) (Network, Txn, error) {
	attend := Op{Key: "attend/" + want.ID + "/" + node, Value: []byte("{}")}
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

// LeaveNetwork takes node off the network. With its last node the network is gone, and its blocks and reservation with it.
func LeaveNetwork(ctx context.Context, c proposer, id, node string) error {
	_, err := decide(ctx, c, "network rm", func(v View) (struct{}, Txn, error) {
		return struct{}{}, leaveNetwork(v, id, node), nil
	})
	return err
}

func leaveNetwork(v View, id, node string) Txn {
	attend := "attend/" + id + "/" + node
	if _, ok := v.Get(attend); !ok {
		return Txn{}
	}
	// Who is the last must not be decided twice at once, nor while somebody joins.
	txn := Txn{If: []Cond{{"attend/" + id, v.Index()}, {"network/" + id, v.Index()}}, Then: []Op{{Key: attend}}}
	if nodes := v.Attendants(id); len(nodes) > 1 {
		for f := range v.Prefix("block/" + id + "/") {
			if b, err := decodeBlock(f); err == nil && b.Node == node {
				txn.Then = append(txn.Then, Op{Key: f.Key})
			}
		}
		return txn
	}
	if n, ok := v.Network(id); ok && n.Name != "" {
		for _, family := range []string{"4", "6"} {
			txn.Then = append(txn.Then, Op{Key: "reserve/" + n.Name + "/" + family})
		}
	}
	for _, below := range []string{"network/" + id, "block/" + id + "/", "want/" + id + "/"} {
		for f := range v.Prefix(below) {
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	return txn
}

// ReservePool returns the subnet that the named network has, or is going to have, in the family of candidate. The first
// to ask decides: its candidate is written down, so that hosts that create the network at the same time get the same.
func ReservePool(ctx context.Context, c proposer, name string, candidate netip.Prefix) (netip.Prefix, error) {
	return decide(ctx, c, "reserve a subnet for network "+name, func(v View) (netip.Prefix, Txn, error) {
		return reservePool(v, name, candidate)
	})
}

func reservePool(v View, name string, candidate netip.Prefix) (netip.Prefix, Txn, error) {
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
