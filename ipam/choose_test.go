package ipam

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

func TestRequestPoolRefuses(t *testing.T) {
	alone, member := newHost(t, nil), newHost(t, newWorld().node("host1"))
	long := strings.Repeat("n", 64)
	for _, test := range []struct {
		h    *host
		r    PoolRequest
		want []string
	}{
		{alone, PoolRequest{Space: "LocalDefault"}, []string{`address space "LocalDefault"`, "carrick and carrick-global"}},
		{alone, PoolRequest{Space: localSpace, Options: map[string]string{"parent": "eth0"}}, []string{"--ipam-opt parent=eth0 is unknown", "allowed is network=NAME"}},
		{alone, PoolRequest{Space: localSpace, Options: map[string]string{"network": "blue"}}, []string{"network=blue", "set SECRET"}},
		{member, PoolRequest{Space: localSpace, Options: map[string]string{"network": "a/b"}}, []string{`network="a/b"`, "1 to 63"}},
		{member, PoolRequest{Space: localSpace, Options: map[string]string{"network": long}}, []string{"1 to 63"}},
		{member, PoolRequest{Space: localSpace, Options: map[string]string{"network": ""}}, []string{"1 to 63"}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.1.0.0"}, []string{`--subnet "10.1.0.0" is not a subnet`}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.01.0.0/24"}, []string{"is not a subnet"}},
		{alone, PoolRequest{Space: localSpace, Pool: "fe80::1%eth0/64"}, []string{"is not a subnet"}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.1.0.1/24"}, []string{"has host bits set", "10.1.0.0/24 is meant"}},
		{alone, PoolRequest{Space: localSpace, Pool: "::ffff:10.1.0.0/120"}, []string{"IPv4 written as IPv6"}},
		{alone, PoolRequest{Space: localSpace, Pool: "0.0.0.0/0"}, []string{"overlaps 0.0.0.0/8"}},
		{alone, PoolRequest{Space: localSpace, Pool: "::/0"}, []string{"cannot be given to containers"}},
		{alone, PoolRequest{Space: localSpace, Pool: "127.0.1.0/24"}, []string{"loopback"}},
		{alone, PoolRequest{Space: localSpace, Pool: "224.1.0.0/24"}, []string{"multicast"}},
		{alone, PoolRequest{Space: localSpace, Pool: "169.254.7.0/24"}, []string{"link-local"}},
		{alone, PoolRequest{Space: localSpace, Pool: "fe80::/64"}, []string{"link-local"}},
		{alone, PoolRequest{Space: localSpace, Pool: "ff02::/16"}, []string{"multicast"}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24", SubPool: "10.2.0.0/25"}, []string{"--ip-range 10.2.0.0/25 is not inside --subnet 10.1.0.0/24"}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24", SubPool: "10.1.0.0/16"}, []string{"--ip-range", "10.1.0.0/16"}},
		{alone, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24", SubPool: "10.1.0.3/25"}, []string{"--ip-range", "host bits"}},
		{alone, PoolRequest{Space: localSpace, SubPool: "10.1.0.0/25"}, []string{"needs a --subnet"}},
	} {
		_, _, _, err := test.h.RequestPool(t.Context(), test.r)
		if err == nil {
			t.Errorf("%+v is granted", test.r)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: error is %q, it lacks %q", test.r, err, part)
			}
		}
		if len(test.h.store.values) != 0 {
			t.Fatalf("%+v: left over: %v", test.r, test.h.store.values)
		}
	}
}

func TestRequestAddressRefuses(t *testing.T) {
	h := newHost(t, nil)
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	provisional, _, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: "10.2.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		pool, addr string
		options    map[string]string
		want       string
	}{
		{"nonsense", "", nil, "pool nonsense: is not known"},
		{pool, "10.1.0", nil, `"10.1.0" is not an IPv4 or IPv6 address`},
		{pool, "::ffff:10.1.0.3", nil, "is not an IPv4 or IPv6 address"},
		{pool, "fe80::1%eth0", nil, "is not an IPv4 or IPv6 address"},
		{pool, "", macOptions("x"), `="x" is not a MAC address`},
		{pool, "", map[string]string{typeOption: "x"}, "allowed is com.docker.network.gateway"},
		{pool, "10.9.0.3", macOptions(mac(1)), "address 10.9.0.3 is not in subnet 10.1.0.0/24"},
		{pool, "fd00::3", macOptions(mac(1)), "is not in subnet"},
		{pool, "10.1.0.0", macOptions(mac(1)), "is the network's"},
		{pool, "10.1.0.255", macOptions(mac(1)), "broadcast"},
		{pool, s.Gateway.String(), macOptions(mac(1)), "is the gateway of subnet"},
		{provisional, "10.3.0.1", gatewayOption(), "--gateway: address 10.3.0.1 is not in subnet 10.2.0.0/24"},
		{provisional, "10.2.0.255", gatewayOption(), "--gateway: address 10.2.0.255"},
		{provisional, "10.3.0.1", nil, "is not in subnet 10.2.0.0/24"},
	} {
		_, err := h.RequestAddress(t.Context(), test.pool, test.addr, test.options)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %q %v: error is %v, want %q", test.pool, test.addr, test.options, err, test.want)
		}
	}
	if err := h.ReleaseAddress(t.Context(), pool, "x"); err == nil {
		t.Error("nonsense is released")
	}
}

// TestEverySubnetIsServedOrRefused, quickly, whatever its size.
func TestEverySubnetIsServedOrRefused(t *testing.T) {
	served := 0
	for _, any := range []string{"10.77.205.91", "198.51.100.7", "fd12:3456:789a:bcde:f012:3456:789a:bcde"} {
		addr := netip.MustParseAddr(any)
		for bits := range addr.BitLen() + 1 {
			for _, shared := range []bool{false, true} {
				h := newHost(t, newWorld().node("host1"))
				p := netip.PrefixFrom(addr, bits).Masked()
				began := time.Now()
				pool, s, err := h.create(dockerID, PoolRequest{Pool: p.String(), V6: addr.Is6()}, shared)
				if err == nil {
					var got netip.Prefix
					got, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(1)))
					if err == nil && (!p.Contains(got.Addr()) || got.Addr() == s.Gateway || got.Bits() != bits) {
						t.Errorf("%s: %s", p, got)
					}
					served++
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("%s took %s", p, took)
				}
			}
		}
	}
	if served < 2*(24+24+100) {
		t.Errorf("only %d subnets were served", served)
	}
}

func TestChooseAvoidsWhatIsThere(t *testing.T) {
	h := newHost(t, nil)
	for _, p := range []string{"0.0.0.0/0", "10.192.0.0/19", "10.192.32.7/32", "fd50:3b64:49f::/64"} {
		h.inUse = append(h.inUse, netip.MustParsePrefix(p))
	}
	h.resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	text := "# nameserver 10.192.96.1\nnameserver 10.192.48.53\nnameserver fe80::1%eth0\nnameserver\nsearch x\n"
	if err := os.WriteFile(h.resolvConf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		v6   bool
		want string
	}{
		{false, "10.192.64.0/20"}, {false, "10.192.80.0/20"}, {false, "10.192.96.0/20"},
		{true, "fd50:3b64:49f:1::/64"}, {true, "fd50:3b64:49f:2::/64"},
	} {
		_, got, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, V6: test.v6})
		if err != nil || got.String() != test.want {
			t.Errorf("%s, %v, want %s", got, err, test.want)
		}
	}
}

// TestNamedNetwork: all hosts get what the first has reserved, and say at once what is in the way here.
func TestNamedNetwork(t *testing.T) {
	w := newWorld()
	one, two := newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	r := PoolRequest{Options: map[string]string{"network": "blue"}}
	pool, s, err := one.create(dockerID, r, true)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = one.create("second", r, true)
	want(t, err, "network blue is on this host already, with subnet "+s.Prefix.String())
	two.inUse = []netip.Prefix{netip.PrefixFrom(s.Prefix.Addr(), 28)}
	_, _, err = two.create(dockerID, r, true)
	want(t, err, "network blue has subnet "+s.Prefix.String()+" in the cluster, which overlaps", "of this host")
	two.inUse = nil
	pool2, s2, err := two.create(dockerID, r, true)
	if err != nil || pool2 != pool || s2.Prefix != s.Prefix || s2.Gateway != s.Gateway {
		t.Fatalf("%s %+v %v, want %s %+v", pool2, s2, err, pool, s)
	}
	if a, b := addressOf(t, one, pool, "", 1), addressOf(t, two, pool, "", 1); a == b {
		t.Errorf("%s twice", a)
	}
	_, other, _, err := two.RequestPool(t.Context(), PoolRequest{Space: localSpace})
	if err != nil || other.Overlaps(s.Prefix) {
		t.Errorf("%s %v", other, err)
	}
	unnamed := map[netip.Prefix]bool{}
	for range 8 {
		_, p, _, err := one.RequestPool(t.Context(), PoolRequest{Space: localSpace, V6: true})
		if err != nil || unnamed[p] {
			t.Errorf("%s %v", p, err)
		}
		unnamed[p] = true
	}
}

// TestEngineThatDoesNotTakeTheSubnet asks until it gets another or an error.
func TestEngineThatDoesNotTakeTheSubnet(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	r := PoolRequest{Space: localSpace, Options: map[string]string{"network": "blue"}}
	for n := 0; ; n++ {
		_, _, _, err := h.RequestPool(t.Context(), r)
		if err != nil {
			want(t, err, "network blue has subnet", "Docker does not take it")
			break
		}
		if n > 8 {
			t.Fatal("no end")
		}
	}
	if err := h.ReleasePool(t.Context(), h.Status()[0].ID); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := h.RequestPool(t.Context(), r); err != nil {
		t.Errorf("after a release: %v", err)
	}
}

// TestGatewayOfTheCluster: what the first host has decided counts for the next.
func TestGatewayOfTheCluster(t *testing.T) {
	w := newWorld()
	one, two := newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	prefix := netip.MustParsePrefix("10.1.0.0/24")
	network := cluster.Network{Mode: "overlay", Subnets: []cluster.Subnet{{Prefix: prefix, Gateway: netip.MustParseAddr("10.1.0.254")}}}
	if _, err := cluster.JoinNetwork(t.Context(), one.node, network, cluster.Defaults{}); err != nil {
		t.Fatal(err)
	}
	_, s, err := two.create(dockerID, PoolRequest{Pool: prefix.String()}, true)
	if err != nil || s.Gateway.String() != "10.1.0.254" {
		t.Errorf("%+v %v", s, err)
	}
	if got := two.Status()[0].Gateway.String(); got != "10.1.0.254" {
		t.Errorf("gateway %s", got)
	}
}
