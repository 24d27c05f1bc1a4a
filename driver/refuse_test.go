package driver

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

func TestBadNetworksAreRefusedWithASentence(t *testing.T) {
	option := func(r NetworkRequest, k, v string) NetworkRequest {
		r.Options[k] = v
		return r
	}
	foreign := func(r NetworkRequest) NetworkRequest {
		r.Pools[0].Space = "LocalDefault"
		return r
	}
	for _, tt := range []struct {
		name string
		r    NetworkRequest
		want string
	}{
		{"mode", netRequest("vlan", "c1", "10.3.0.0/24"), "option mode=vlan: allowed are local, none, shared"},
		{"option", option(netRequest("local", "c1", "10.3.0.0/24"), "colour", "blue"),
			"option colour=blue is unknown in mode local: allowed are mode, com.docker.network.driver.mtu"},
		{"option of mode none", option(netRequest("none", "c1"), OptionMTU, "1400"), "is unknown in mode none: allowed are mode"},
		{"MTU", option(netRequest("local", "c1", "10.3.0.0/24"), OptionMTU, "big"), "mtu=big: allowed are 576 to 65535 bytes"},
		{"MTU for IPv6", option(netRequest("local", "c1", "fd03::/64"), OptionMTU, "1279"), "mtu=1279: allowed are 1280 to 65535 bytes"},
		{"foreign IPAM", foreign(netRequest("shared", "c1", "10.3.0.0/24")), "add `--ipam-driver carrick:latest` to docker network create"},
		{"overlap here", netRequest("local", "c1", "10.1.0.128/25"), "subnet 10.1.0.128/25 overlaps 10.1.0.0/24 of network a10000000000 on this host"},
		{"overlap in the cluster", netRequest("shared", "c1", "10.2.0.0/16"), "subnet 10.2.0.0/16 overlaps 10.2.0.0/24 of the cluster's network"},
		{"overlap with itself", netRequest("local", "c1", "10.3.0.0/16", "10.3.1.0/24"), "subnets 10.3.0.0/16 and 10.3.1.0/24 overlap"},
		{"twice", netRequest("shared", "c1", "10.1.0.0/24"), "this network of the cluster is on this host already, as a10000000000"},
		{"again with other words", netRequest("local", "a1", "10.1.0.0/24"), "network a10000000000 is here with other options or subnets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &clustertest.Cluster{}
			h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
			must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
			must(t, other.CreateNetwork(t.Context(), netRequest("shared", "a2", "10.2.0.0/24")))
			before, left := h.kernel.String(), h.memory.left()
			err := h.CreateNetwork(t.Context(), tt.r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("said %v\nwant %q in it", err, tt.want)
			}
			if h.kernel.String() != before || h.memory.left() != left {
				t.Errorf("the refusal changed something: %s, was %s", h.memory.left(), left)
			}
		})
	}
}

func TestConflictingNetworksAreRefusedWithBothValues(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	here := netRequest("shared", "a1", "10.1.0.0/24")
	here.Options[OptionMTU] = "1400"
	must(t, h.CreateNetwork(t.Context(), here))
	there := netRequest("shared", "a2", "10.1.0.0/24")
	there.Options[OptionMTU] = "1300"
	err := other.CreateNetwork(t.Context(), there)
	if want := "has MTU 1400, this request 1300"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("said %v\nwant %q in it", err, want)
	}
	internal := netRequest("shared", "a2", "10.1.0.0/24")
	internal.Internal = true
	err = other.CreateNetwork(t.Context(), internal)
	if want := "has --internal false, this request true"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("said %v\nwant %q in it", err, want)
	}
	must(t, other.CreateNetwork(t.Context(), netRequest("shared", "a2", "10.1.0.0/24")))
	if got := other.networks[id("a2")].MTU; got != 1400 {
		t.Errorf("a host that does not say an MTU got %d, the network has 1400", got)
	}
}

func TestSharedModesNeedACluster(t *testing.T) {
	h := newHost(t, nil, "")
	err := h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24"))
	if want := "docker plugin set carrick:latest SECRET=… JOIN=…"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("said %v\nwant %q in it", err, want)
	}
	h.wantNothing(t)
}

func TestNamesOfTheClusterAreForSharedModes(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	h.memory.names[netip.MustParsePrefix("10.1.0.0/24")] = "blue"
	err := h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24"))
	if want := "--ipam-opt network=blue names a network of the cluster, but mode local stays on its host"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("said %v\nwant %q in it", err, want)
	}
}

func TestBadEndpointsAreRefusedWithASentence(t *testing.T) {
	with := func(change func(*EndpointRequest)) EndpointRequest {
		r := epRequest("a1", "e2", "10.1.0.3/24")
		change(&r)
		return r
	}
	for _, tt := range []struct {
		name string
		r    EndpointRequest
		want string
	}{
		{"unknown network", with(func(r *EndpointRequest) { r.Network = id("ff") }), "network ff0000000000: not found"},
		{"driver option", with(func(r *EndpointRequest) { r.Options = map[string]string{"speed": "9"} }), "driver option speed=9 is unknown"},
		{"outside", epRequest("a1", "e2", "10.9.0.3/24"), "address 10.9.0.3 is in none of the network's subnets [10.1.0.0/24]"},
		{"address taken", epRequest("a1", "e2", "10.1.0.2/24"), "address 10.1.0.2 is that of endpoint e10000000000"},
		{"MAC taken", with(func(r *EndpointRequest) { r.MAC = kernel.MAC{2, 1} }), "MAC address 02:01:00:00:00:00 is that of endpoint e10000000000"},
		{"multicast MAC", with(func(r *EndpointRequest) { r.MAC = kernel.MAC{1} }), "is a multicast address"},
		{"again with another address", epRequest("a1", "e1", "10.1.0.3/24"), "endpoint e10000000000 is here with other addresses"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, nil, "")
			must(t, h.CreateNetwork(t.Context(), netRequest("local", "a1", "10.1.0.0/24")))
			first := epRequest("a1", "e1", "10.1.0.2/24")
			first.MAC = kernel.MAC{2, 1}
			mac, err := h.CreateEndpoint(t.Context(), first)
			must(t, err)
			if mac != (kernel.MAC{}) {
				t.Errorf("said MAC %s again, which is an error to the engine", mac)
			}
			before, left := h.kernel.String(), h.memory.left()
			_, err = h.CreateEndpoint(t.Context(), tt.r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("said %v\nwant %q in it", err, tt.want)
			}
			if h.kernel.String() != before || h.memory.left() != left {
				t.Errorf("the refusal changed something: %s, was %s", h.memory.left(), left)
			}
		})
	}
	h := newHost(t, nil, "")
	if _, err := h.Join(t.Context(), id("a1"), id("e1"), ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("Join of nothing said %v", err)
	}
}
