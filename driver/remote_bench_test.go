package driver

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
)

// crowd is what fifty nodes say of n endpoints of a network, each with an address of both families.
type crowd struct {
	rows    []cluster.Row
	changes map[string]uint64 // by network
}

func newCrowd(n int) crowd {
	const nodes = 50
	var c crowd
	for i := range nodes {
		node := cluster.Node{ID: fmt.Sprintf("%064x", i), Addr: netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 2)})}
		c.rows = append(c.rows, cluster.Row{Node: node, Records: map[string][]byte{}})
	}
	for i := range n {
		c.rows[i%nodes].Records[fmt.Sprintf("%064x", i*7919)] = encodeRecord(crowdEndpoint(i))
	}
	return c
}

func crowdEndpoint(i int) Endpoint {
	a, b, c := byte(i>>16), byte(i>>8), byte(i)
	return Endpoint{MAC: kernel.MAC{2, 1, 0, a, b, c}, Addrs: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1 + a, b, c}), 8),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 9, 13: 1 + a, 14: b, 15: c}), 64),
	}}
}

func (crowd) Attend(string, bool)                {}
func (crowd) Publish(string, string, []byte)     {}
func (crowd) Sync(context.Context, string) error { return nil }
func (c crowd) Remote(string) []cluster.Row      { return append([]cluster.Row{}, c.rows...) }
func (c crowd) Nodes() (nodes []cluster.Node) {
	for _, r := range c.rows {
		nodes = append(nodes, r.Node)
	}
	return nodes
}

func (c crowd) Revision(network string) uint64 { return c.changes[network] }

// BenchmarkWake is one change in one of fifty networks that have a thousand remote endpoints each, with a kernel that takes no
// time, beside what it is to look at all of them.
func BenchmarkWake(b *testing.B) {
	c := newCrowd(1000)
	c.changes = map[string]uint64{}
	modes := map[string]Mode{"shared": {Open: openTest, Shared: true}}
	d := New(Config{Records: c, Kernel: &counting{}, Modes: modes})
	for i := range 50 {
		nw := newNetwork(Network{ID: fmt.Sprint("network", i), Shared: fmt.Sprint(i), Mode: "shared"})
		for _, p := range []string{"10.0.0.0/8", "fd09::/64"} {
			nw.Subnets = append(nw.Subnets, cluster.Subnet{Prefix: netip.MustParsePrefix(p)})
		}
		nw.endpoints["e"] = Endpoint{ID: "e", MAC: kernel.MAC{2, 9}}
		if err := d.open(b.Context(), nw); err != nil {
			b.Fatal(err)
		}
		d.networks[nw.ID] = nw
	}
	for name, due := range map[string]func() func(*network) bool{
		"one": d.stale,
		"all": func() func(*network) bool { return func(*network) bool { return true } },
	} {
		b.Run(name, func(b *testing.B) {
			d.reconcile(b.Context(), due())
			for b.Loop() {
				c.changes["7"]++
				d.reconcile(b.Context(), due())
			}
		})
	}
}

// BenchmarkRemote makes endpoints of what other nodes say: each change of one does so with all.
func BenchmarkRemote(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := New(Config{Records: newCrowd(n)})
			c := content{endpoints: map[string]Endpoint{"e": {ID: "e", MAC: kernel.MAC{2, 9}}}}
			c.Shared, c.ID = "shared", "a1"
			for _, p := range []string{"10.0.0.0/8", "fd09::/64"} {
				c.Subnets = append(c.Subnets, cluster.Subnet{Prefix: netip.MustParsePrefix(p)})
			}
			for b.Loop() {
				if r := d.remote(c); len(r.Endpoints) != n || r.refused != "" {
					b.Fatalf("%d endpoints, want %d: %s", len(r.Endpoints), n, r.refused)
				}
			}
		})
	}
}
