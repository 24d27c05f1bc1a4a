package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// lagging is a proposer whose view is as old as it was told to be, until a conflict brings it up to date.
type lagging struct {
	id   string
	now  *View // what the quorum has
	seen View
	fail error
}

func (l *lagging) ID() string { return l.id }

func (l *lagging) View() View { return l.seen }

func (l *lagging) Propose(_ context.Context, txn Txn) (View, error) {
	if l.fail != nil {
		return l.seen, l.fail
	}
	next, err := l.now.Apply(txn)
	*l.now, l.seen = next, next
	return next, err
}

// subnetsOf parses prefixes.
func subnetsOf(prefixes ...string) []Subnet {
	var all []Subnet
	for _, p := range prefixes {
		all = append(all, Subnet{Prefix: netip.MustParsePrefix(p)})
	}
	return all
}

func TestNetworkIsMadeOnceAndJoinedWithTheSameWords(t *testing.T) {
	var now View
	a, b := &lagging{id: "a", now: &now}, &lagging{id: "b", now: &now}
	v4 := netip.MustParsePrefix("10.1.0.0/24")
	want := Network{Mode: "overlay", Subnets: subnetsOf("fd01::/64", "10.1.0.0/24")}
	first, err := JoinNetwork(t.Context(), a, want, Defaults{MTU: 1450, Gateways: map[netip.Prefix]netip.Addr{v4: v4.Addr().Next()}})
	if err != nil {
		t.Fatal(err)
	}
	second, err := JoinNetwork(t.Context(), b, want, Defaults{MTU: 8950}) // its view is of before a's
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("a has %+v\nb has %+v", first, second)
	}
	if s := second.Subnets[0]; s.Prefix != v4 || s.Gateway != v4.Addr().Next() || s.Range != v4 {
		t.Errorf("the first subnet is %+v, want IPv4 with a's gateway and the whole as its range", s)
	}
	if got := fmt.Sprint(now.Attendants(first.ID)); got != "[a b]" {
		t.Errorf("attended by %s", got)
	}
	for _, p := range []*lagging{a, b} {
		if err := LeaveNetwork(t.Context(), p, first.ID, p.id); err != nil {
			t.Fatal(err)
		}
	}
	for f := range now.Prefix("") {
		t.Errorf("left after the last host: %s", f.Key)
	}
}

func TestContradictionsNameBothValues(t *testing.T) {
	have := Network{Name: "blue", Mode: "overlay", MTU: 1450, Options: map[string]string{"colour": "red"}, Subnets: []Subnet{{
		Prefix: netip.MustParsePrefix("10.1.0.0/24"), Range: netip.MustParsePrefix("10.1.0.128/25"),
		Gateway: netip.MustParseAddr("10.1.0.1"), Aux: map[string]netip.Addr{"router": netip.MustParseAddr("10.1.0.9")},
	}}}
	for _, tt := range []struct {
		name   string
		change func(*Network)
		want   string // "" agrees
	}{
		{"the same", func(*Network) {}, ""},
		{"nothing said", func(n *Network) { n.MTU, n.Subnets[0] = 0, Subnet{Prefix: n.Subnets[0].Prefix} }, ""},
		{"mode", func(n *Network) { n.Mode = "vlan" }, "has mode overlay, this request vlan"},
		{"MTU", func(n *Network) { n.MTU = 1400 }, "has MTU 1450, this request 1400"},
		{"internal", func(n *Network) { n.Internal = true }, "has --internal false, this request true"},
		{"option", func(n *Network) { n.Options = map[string]string{"colour": "blue"} }, "has option colour red, this request blue"},
		{"option missing", func(n *Network) { n.Options = nil }, "has option colour red, this request unset"},
		{"option too many", func(n *Network) { n.Options = map[string]string{"colour": "red", "size": "9"} }, "has option size unset, this request 9"},
		{"subnet", func(n *Network) { n.Subnets = subnetsOf("10.2.0.0/24") }, "has subnets [10.1.0.0/24], this request [10.2.0.0/24]"},
		{"families", func(n *Network) { n.Subnets = subnetsOf("10.1.0.0/24", "fd01::/64") }, "has subnets [10.1.0.0/24], this request [10.1.0.0/24 fd01::/64]"},
		{"range", func(n *Network) { n.Subnets[0].Range = n.Subnets[0].Prefix }, "has --ip-range 10.1.0.128/25, this request 10.1.0.0/24"},
		{"gateway", func(n *Network) { n.Subnets[0].Gateway = netip.MustParseAddr("10.1.0.2") }, "has --gateway 10.1.0.1, this request 10.1.0.2"},
		{"aux", func(n *Network) {
			n.Subnets[0].Aux = map[string]netip.Addr{"router": netip.MustParseAddr("10.1.0.8")}
		}, "has --aux-address map[router:10.1.0.9], this request map[router:10.1.0.8]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := have
			want.Subnets = append([]Subnet(nil), have.Subnets...)
			tt.change(&want)
			err := agree(have, want)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), "the cluster's network blue "+tt.want)):
				t.Errorf("said %v\nwant %q in it", err, tt.want)
			}
		})
	}
}

func TestRefusalsAreMadeFromTheNewestFacts(t *testing.T) {
	var now View
	a, b := &lagging{id: "a", now: &now}, &lagging{id: "b", now: &now}
	gateway := func(addr string) Network {
		n := Network{Mode: "overlay", Subnets: subnetsOf("10.1.0.0/24")}
		n.Subnets[0].Gateway = netip.MustParseAddr(addr)
		return n
	}
	old, err := JoinNetwork(t.Context(), a, gateway("10.1.0.1"), Defaults{MTU: 1450})
	if err != nil {
		t.Fatal(err)
	}
	b.seen = now // b sees the network, and not that a removes it
	if err := LeaveNetwork(t.Context(), a, old.ID, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinNetwork(t.Context(), b, gateway("10.1.0.7"), Defaults{MTU: 1450}); err != nil {
		t.Errorf("refused for what is no more: %v", err)
	}
	if _, err := JoinNetwork(t.Context(), a, gateway("10.1.0.1"), Defaults{}); err == nil || !strings.Contains(err.Error(), "--gateway 10.1.0.7") {
		t.Errorf("said %v, want the newest gateway in it", err)
	}
	a.fail = ErrNoQuorum
	if _, err := JoinNetwork(t.Context(), a, gateway("10.1.0.1"), Defaults{}); err == nil || !strings.Contains(err.Error(), "--gateway 10.1.0.7") {
		t.Errorf("without a quorum said %v, want the reason of the refusal all the same", err)
	}
}

// TestNetworksNeverMeet lets nodes with old views make, join and leave networks, and looks at what the cluster has.
func TestNetworksNeverMeet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var now View
		var nodes []*lagging
		for i := range 3 {
			nodes = append(nodes, &lagging{id: fmt.Sprint("n", i), now: &now})
		}
		prefixes := []string{"10.1.0.0/16", "10.1.4.0/24", "10.1.5.0/24", "10.2.0.0/24"}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				n := rapid.SampledFrom(nodes).Draw(t, "node")
				want := Network{Mode: "overlay", Subnets: subnetsOf(rapid.SampledFrom(prefixes).Draw(t, "subnet"))}
				want.Name = rapid.SampledFrom([]string{"", "blue", "red"}).Draw(t, "name")
				_, _ = JoinNetwork(context.Background(), n, want, Defaults{MTU: 1450})
			},
			"leave": func(t *rapid.T) {
				n := rapid.SampledFrom(nodes).Draw(t, "node")
				for _, net := range now.Networks() {
					if rapid.Bool().Draw(t, "this") {
						_ = LeaveNetwork(context.Background(), n, net.ID, n.id)
					}
				}
			},
			"see": func(t *rapid.T) { rapid.SampledFrom(nodes).Draw(t, "node").seen = now },
			"reserve": func(t *rapid.T) {
				p := netip.MustParsePrefix(rapid.SampledFrom(prefixes).Draw(t, "subnet"))
				_, _ = ReservePool(context.Background(), rapid.SampledFrom(nodes).Draw(t, "node"), "blue", p)
			},
			"": func(t *rapid.T) {
				networks := now.Networks()
				for i, a := range networks {
					if len(now.Attendants(a.ID)) == 0 {
						t.Fatalf("nobody has %+v", a)
					}
					for _, b := range networks[i+1:] {
						if a.VNI == b.VNI || a.Subnets[0].Prefix.Overlaps(b.Subnets[0].Prefix) {
							t.Fatalf("two networks meet:\n%+v\n%+v", a, b)
						}
					}
				}
			},
		})
	})
}
