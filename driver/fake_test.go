package driver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"github.com/carricknet/carrick/store"
)

// ours is the address space of the pools in these tests.
const ours = "carrick"

// memory is a Store that keeps nothing on disk, and Pools and Leases that grant what is asked.
type memory struct {
	mu     sync.Mutex
	kept   map[string][]byte
	bound  map[string][]cluster.Subnet // Docker's network -> its pools
	used   map[netip.Addr]string       // address -> endpoint
	names  map[netip.Prefix]string     // of --ipam-opt network=
	failAt int                         // the call that fails, counted down; 0: none
	dies   bool                        // so do all after it
	node   *clustertest.Node           // nil without a cluster
	shared map[string]string           // Docker's network -> the cluster's

	reowned map[string]int // Docker's network -> how often
}

// never is more calls than a test makes.
const never = 1 << 30

var errPlanned = errors.New("planned failure")

func newMemory() *memory {
	return &memory{
		shared: map[string]string{}, kept: map[string][]byte{}, bound: map[string][]cluster.Subnet{}, used: map[netip.Addr]string{}, names: map[netip.Prefix]string{},
		reowned: map[string]int{},
	}
}

// fails says whether this call is the one that fails. m.mu is held.
func (m *memory) fails() bool {
	m.failAt--
	return m.failAt == 0 || m.failAt < 0 && m.dies
}

func (m *memory) Prefix(prefix string) iter.Seq2[string, []byte] {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := maps.Clone(m.kept)
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(kept)) {
			if strings.HasPrefix(k, prefix) && !yield(k, kept[k]) {
				return
			}
		}
	}
}

func (m *memory) Apply(writes ...store.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails() {
		return errPlanned
	}
	for _, w := range writes {
		if w.Value == nil {
			delete(m.kept, w.Key)
			continue
		}
		m.kept[w.Key] = slices.Clone(w.Value)
	}
	return nil
}

func (m *memory) Describe(space string, subnets []netip.Prefix) (string, []cluster.Subnet, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if space != ours {
		return "", nil, false
	}
	name := ""
	var described []cluster.Subnet
	for _, s := range subnets {
		name = m.names[s]
		described = append(described, cluster.Subnet{Prefix: s})
	}
	return name, described, true
}

func (m *memory) Bind(_ context.Context, network, shared string, subnets []cluster.Subnet) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails() {
		return errPlanned
	}
	m.bound[network], m.shared[network] = subnets, shared
	return nil
}

func (m *memory) Unbind(_ context.Context, network string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails() {
		return errPlanned
	}
	delete(m.bound, network)
	return nil
}

func (m *memory) Use(_ context.Context, network, endpoint string, addrs []netip.Addr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails() {
		return errPlanned
	}
	if _, ok := m.bound[network]; !ok {
		return fmt.Errorf("network %s has no pools", network)
	}
	for _, a := range addrs {
		if m.used[a] != "" && m.used[a] != endpoint {
			return fmt.Errorf("%s is in use", a)
		}
		m.used[a] = endpoint
		if shared := m.shared[network]; shared != "" {
			grant(m.node, shared, netip.PrefixFrom(a, a.BitLen()), m.node.ID())
		}
	}
	return nil
}

// grant gives a block to a node, as a fact of the cluster, whoever had it before.
func grant(c *clustertest.Node, shared string, block netip.Prefix, node string) {
	op, err := cluster.BlockOp(shared, block, node)
	if err == nil {
		_, err = c.Propose(context.Background(), cluster.Txn{Then: []cluster.Op{op}})
	}
	if err != nil {
		panic(err)
	}
}

func (m *memory) Reown(_ context.Context, network string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reowned[network]++
	return nil
}

func (m *memory) Unuse(_ context.Context, endpoint string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fails() {
		return errPlanned
	}
	maps.DeleteFunc(m.used, func(_ netip.Addr, e string) bool { return e == endpoint })
	return nil
}

// lose forgets pools and leases.
func (m *memory) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bound)
	clear(m.used)
}

func (m *memory) boundTo(network string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bound[network] != nil
}

func (m *memory) usedBy(endpoint string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(m.used)), endpoint)
}

// left says what is still there, for tests that expect nothing.
func (m *memory) left() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.kept)+len(m.bound)+len(m.used) == 0 {
		return ""
	}
	return fmt.Sprintf("store %v, pools %v, addresses %v", slices.Sorted(maps.Keys(m.kept)), m.bound, m.used)
}

// testPlan is the plan of the modes "local" and "shared" in these tests: a bridge, an entry for each remote endpoint, and
// a veth for each endpoint.
type testPlan struct{ n Network }

func openTest(_ context.Context, n *Network) (Plan, error) {
	if n.MTU == 0 {
		n.MTU = 1450
	}
	return testPlan{*n}, CheckOptions(n, OptionMTU)
}

func (p testPlan) Network(remote Remote) kernel.State {
	name := kernel.Name("ckb", p.n.ID)
	s := kernel.State{Links: []kernel.Link{{Name: name, NS: kernel.Shared, Up: true, Bridge: &kernel.Bridge{}}}}
	for _, e := range remote.Endpoints {
		s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: name, MAC: e.MAC, Dst: e.VTEP})
	}
	return s
}

func (p testPlan) Endpoint(e Endpoint) (kernel.State, Attachment) {
	link := kernel.Link{
		Name: kernel.Name("ckh", e.ID), NS: kernel.Shared, Up: true,
		Veth: &kernel.Veth{Peer: kernel.Name("ckc", e.ID), PeerMAC: e.MAC},
	}
	return kernel.State{Links: []kernel.Link{link}}, Attachment{Link: link.Veth.Peer, Prefix: "eth", NoGatewayService: p.n.Internal}
}

// host is a driver with everything below it in memory.
type host struct {
	*Driver
	memory  *memory
	kernel  *kerneltest.Fake
	node    *clustertest.Node
	damaged bool
}

// newHost is a host of a cluster, or with a nil cluster one on its own.
func newHost(t *testing.T, c *clustertest.Cluster, name string) *host {
	t.Helper()
	h := &host{memory: newMemory(), kernel: &kerneltest.Fake{}}
	if c != nil {
		h.node = c.Node(name)
		h.memory.node = h.node
	}
	h.restart(t)
	return h
}

// restart is what a new process finds.
func (h *host) restart(t *testing.T) {
	t.Helper()
	config := Config{
		Modes: map[string]Mode{
			"local": {Open: openTest}, "shared": {Open: openTest, Shared: true}, "none": {Open: None, NoGateway: true},
		},
		Default: "local", Name: "carrick:latest",
		Kernel: h.kernel, Pools: h.memory, Leases: h.memory, Store: h.memory, Damaged: h.damaged,
	}
	if h.node != nil {
		config.Facts, config.Records = h.node, h.node
	}
	h.Driver = New(config)
	if err := h.Restore(t.Context()); err != nil {
		t.Fatalf("restore: %v", err)
	}
}

// id makes an identifier of Docker's length that begins with the given digits.
func id(digits string) string { return digits + strings.Repeat("0", 64-len(digits)) }

func netRequest(mode, nid string, subnets ...string) NetworkRequest {
	r := NetworkRequest{ID: id(nid), Options: map[string]string{"mode": mode}, IPv4: true}
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		r.Pools = append(r.Pools, PoolData{Space: ours, Prefix: p, Gateway: p.Addr().Next()})
		r.IPv6 = r.IPv6 || p.Addr().Is6()
	}
	return r
}

func epRequest(nid, eid string, addrs ...string) EndpointRequest {
	r := EndpointRequest{Network: id(nid), ID: id(eid)}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, netip.MustParsePrefix(a))
	}
	return r
}

// behind is what a network of the host has behind other VTEPs.
func (h *host) behind(nid string) []Endpoint {
	return h.remote(h.networks[id(nid)].content).Endpoints
}
