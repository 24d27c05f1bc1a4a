package overlay

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

func here() (Underlay, error) {
	return Underlay{VTEP: netip.MustParseAddr("198.51.100.11"), Link: "eth0", MTU: 1500, Port: 4789}, nil
}

func network() *driver.Network {
	return &driver.Network{ID: "a1b2c3d4e5f60718", Mode: "overlay", IPv4: true, IPv6: true, VNI: 1048577, Half: true}
}

func TestNetworkAsCommands(t *testing.T) {
	n := network()
	p, err := Open(here)(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if n.MTU != 1450 {
		t.Errorf("MTU %d, want 1450: 1500 of the underlay without %d", n.MTU, overhead4)
	}
	a, b := netip.MustParseAddr("198.51.100.12"), netip.MustParseAddr("198.51.100.13")
	remote := driver.Remote{
		VTEPs: []netip.Addr{a, b},
		Endpoints: []driver.Endpoint{{
			MAC: kernel.MAC{2, 0, 0, 0, 0, 2}, VTEP: a,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/24"), netip.MustParsePrefix("fd01::2/64")},
		}},
		Nodes: []netip.Addr{netip.MustParseAddr("198.51.100.11"), a, b},
	}
	golden(t, "network", p.Network(remote).String())
	golden(t, "network-alone", p.Network(driver.Remote{}).String())
}

func TestHostsThatCannotBeReachedAreLeftOut(t *testing.T) {
	p, err := Open(here)(t.Context(), network())
	if err != nil {
		t.Fatal(err)
	}
	good, ours, six := netip.MustParseAddr("198.51.100.12"), netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("2001:db8::13")
	remote := driver.Remote{VTEPs: []netip.Addr{ours, good, six}, Nodes: []netip.Addr{good, six}}
	for i, vtep := range remote.VTEPs {
		remote.Endpoints = append(remote.Endpoints, driver.Endpoint{MAC: kernel.MAC{2, 5: byte(i)}, VTEP: vtep})
	}
	s := p.Network(remote)
	if len(s.FDB) != 2 || s.FDB[0].Dst != good || s.FDB[1].Dst != good {
		t.Errorf("frames would go to %v, want only %s", s.FDB, good)
	}
	if r := s.Rules[0]; len(r.NotFrom) != 3 {
		t.Errorf("the rule %+v does not know all three nodes", r)
	}
}

func TestGuardAsCommands(t *testing.T) {
	a, b, six := netip.MustParseAddr("198.51.100.11"), netip.MustParseAddr("198.51.100.12"), netip.MustParseAddr("2001:db8::13")
	golden(t, "guard", Guard(4789, 1<<20, a, []netip.Addr{a, b, six}).String())
	for _, nodes := range [][]netip.Addr{nil, {a}} {
		if s := Guard(4789, 1<<20, a, nodes); !s.Empty() {
			t.Errorf("without another node: %s", s)
		}
	}
}

func TestEndpointAsCommands(t *testing.T) {
	for name, internal := range map[string]bool{"endpoint": false, "endpoint-internal": true} {
		n := network()
		n.Internal = internal
		p, err := Open(here)(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		state, a := p.Endpoint(driver.Endpoint{ID: "0f1e2d3c4b5a6978", MAC: kernel.MAC{2, 0, 0, 0, 0, 9},
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24"), netip.MustParsePrefix("fd01::9/64")}})
		golden(t, name, state.String())
		if a.Link != "ckc0f1e2d3c4b5a" || a.Prefix != "eth" || a.NoGatewayService != internal {
			t.Errorf("%s: the engine is told %+v", name, a)
		}
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	six := func() (Underlay, error) {
		return Underlay{VTEP: netip.MustParseAddr("2001:db8::11"), Link: "eth0", MTU: 1500, Port: 4789}, nil
	}
	small := func() (Underlay, error) {
		return Underlay{VTEP: netip.MustParseAddr("198.51.100.11"), Link: "eth0", MTU: 1300, Port: 4789}, nil
	}
	lost := errors.New("no default route")
	for _, tt := range []struct {
		name   string
		find   func() (Underlay, error)
		change func(*driver.Network)
		want   string // "" accepts
	}{
		{"the most over IPv4", here, func(n *driver.Network) { n.MTU = 1450 }, ""},
		{"too much over IPv4", here, func(n *driver.Network) { n.MTU = 1451 }, "MTU 1451 does not fit: eth0 has 1500 bytes, of which 1450 remain"},
		{"the most over IPv6", six, func(n *driver.Network) { n.MTU = 1430 }, ""},
		{"too much over IPv6", six, func(n *driver.Network) { n.MTU = 1431 }, "of which 1430 remain for containers"},
		{"too much for what was made before", small, func(n *driver.Network) { n.MTU, n.Half = 1450, false }, ""},
		{"IPv6 on a small underlay", small, func(*driver.Network) {}, "MTU 1250 is too small for --ipv6, which needs 1280 bytes: eth0 has 1300"},
		{"IPv4 on a small underlay", small, func(n *driver.Network) { n.IPv6 = false }, ""},
		{"unknown option", here, func(n *driver.Network) { n.Options = map[string]string{"parent": "eth0"} },
			"option parent=eth0 is unknown in mode overlay: allowed are mode, com.docker.network.driver.mtu"},
		{"no underlay", func() (Underlay, error) { return Underlay{}, lost }, func(*driver.Network) {}, lost.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := network()
			tt.change(n)
			_, err := Open(tt.find)(t.Context(), n)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("said %v\nwant %q in it", err, tt.want)
			}
		})
	}
}

func TestUnderlayThatHasBecomeSmaller(t *testing.T) {
	u := Underlay{VTEP: netip.MustParseAddr("198.51.100.11"), Link: "eth0", MTU: 1400}
	if err := u.Carries(1350); err != nil {
		t.Errorf("1350 of 1400: %v", err)
	}
	u.VTEP = netip.MustParseAddr("2001:db8::11")
	want := "MTU 1350 does not fit: eth0 has 1400 bytes, of which 1330 remain for containers: large packets are lost; " +
		"raise the MTU of eth0 to 1420, or create the network with -o com.docker.network.driver.mtu=1330 on every host"
	if err := u.Carries(1350); err == nil || err.Error() != want {
		t.Errorf("1350 of 1400 over IPv6: %v\nwant %s", err, want)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name + ".txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
	}
}
