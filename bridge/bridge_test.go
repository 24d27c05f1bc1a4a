package bridge

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

func TestNetworkAndEndpointAsCommands(t *testing.T) {
	n := &driver.Network{ID: "a1b2c3d4e5f60718", Mode: "bridge", IPv4: true}
	p, err := Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if n.MTU != 1500 {
		t.Errorf("MTU %d, want Ethernet's 1500", n.MTU)
	}
	endpoint, a := p.Endpoint(driver.Endpoint{ID: "0f1e2d3c4b5a6978", MAC: kernel.MAC{2, 0, 0, 0, 0, 9},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/24"), netip.MustParsePrefix("fd01::9/64")}})
	if a.Link != "ckc0f1e2d3c4b5a" || a.Prefix != "eth" || a.NoGatewayService {
		t.Errorf("the engine is told %+v", a)
	}
	got := p.Network(driver.Remote{}).String() + endpoint.String()
	if *update {
		if err := os.WriteFile("testdata/bridge.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/bridge.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("is\n%s\nwant\n%s", got, want)
	}
}

func TestInternalNetworksGetNoWayOutwards(t *testing.T) {
	p, err := Open(t.Context(), &driver.Network{ID: "a1b2c3d4e5f60718", Internal: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, a := p.Endpoint(driver.Endpoint{ID: "0f1e2d3c4b5a6978"}); !a.NoGatewayService {
		t.Error("docker_gwbridge would be attached")
	}
}

// TestOtherSubnetsAreOnTheSameWire: what the container has no address in is reached all the same, for the families that it has.
func TestOtherSubnetsAreOnTheSameWire(t *testing.T) {
	n := &driver.Network{ID: "a1b2c3d4e5f60718", IPv4: true, IPv6: true}
	for _, s := range []string{"10.1.0.0/29", "10.1.0.8/29", "10.1.0.16/29", "fd01::/64", "fd02::/64"} {
		n.Subnets = append(n.Subnets, cluster.Subnet{Prefix: netip.MustParsePrefix(s)})
	}
	p, err := Open(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		addrs []string
		want  string
	}{
		{[]string{"10.1.0.10/29"}, "[10.1.0.0/29 10.1.0.16/29]"},
		{[]string{"10.1.0.2/29", "fd02::2/64"}, "[10.1.0.8/29 10.1.0.16/29 fd01::/64]"},
		{nil, "[]"},
	} {
		e := driver.Endpoint{ID: "0f1e2d3c4b5a6978"}
		for _, a := range tt.addrs {
			e.Addrs = append(e.Addrs, netip.MustParsePrefix(a))
		}
		_, a := p.Endpoint(e)
		var got []netip.Prefix
		for _, r := range a.Routes {
			if got = append(got, r.Dst); r.Via.IsValid() {
				t.Errorf("%v: the way to %s goes by %s", tt.addrs, r.Dst, r.Via)
			}
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%v: routes to %v, want %s", tt.addrs, got, tt.want)
		}
	}
}

func TestUnknownOptionsAreRefused(t *testing.T) {
	_, err := Open(t.Context(), &driver.Network{ID: "a1b2c3d4e5f60718", Mode: "bridge", Options: map[string]string{"parent": "eth0"}})
	if want := "option parent=eth0 is unknown in mode bridge: allowed are mode, com.docker.network.driver.mtu"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("said %v\nwant %q in it", err, want)
	}
}
