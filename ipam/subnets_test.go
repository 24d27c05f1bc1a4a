package ipam

import (
	"net/netip"
	"testing"

	"github.com/carricknet/carrick/cluster"
)

// createMany makes a network of several subnets, and returns their pools.
func (h *host) createMany(t *testing.T, shared bool, subnets ...string) (pools []string, id string) {
	t.Helper()
	var prefixes []netip.Prefix
	gateways := map[netip.Prefix]netip.Addr{}
	for _, s := range subnets {
		pool, prefix, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: s})
		if err != nil {
			t.Fatal(err)
		}
		gw, err := h.RequestAddress(t.Context(), pool, "", gatewayOption())
		if err != nil {
			t.Fatal(err)
		}
		pools, prefixes, gateways[prefix] = append(pools, pool), append(prefixes, prefix), gw.Addr()
	}
	name, described, _ := h.Describe(localSpace, prefixes)
	for n := range described {
		described[n].Gateway = gateways[described[n].Prefix]
	}
	if shared {
		n, err := cluster.JoinNetwork(t.Context(), h.node, cluster.Network{Name: name, Mode: "overlay", Subnets: described},
			cluster.Defaults{MTU: 1450, Gateways: gateways})
		if err != nil {
			t.Fatal(err)
		}
		id, described = n.ID, n.Subnets
	}
	if err := h.Bind(t.Context(), dockerID, id, described); err != nil {
		t.Fatal(err)
	}
	return pools, id
}

// inSecond is a host whose first subnet is full, and the address that its next container got.
func inSecond(t *testing.T, shared bool) (h *host, pools []string, addr netip.Prefix, number int) {
	t.Helper()
	h = newHost(t, newWorld().node("host1"))
	pools, _ = h.createMany(t, shared, "10.2.0.0/29", "10.1.0.0/28", "fd00::/64", "10.3.0.0/29")
	for n := range 20 {
		a, err := h.RequestAddress(t.Context(), pools[0], "", macOptions(mac(n)))
		if err != nil {
			t.Fatal(err)
		}
		if !netip.MustParsePrefix("10.2.0.0/29").Contains(a.Addr()) {
			return h, pools, a, n
		}
	}
	t.Fatal("a /29 has 20 addresses")
	return nil, nil, addr, 0
}

// TestNextSubnetWhenTheFirstIsFull: the engine asks the first pool only, and takes an address back with it.
func TestNextSubnetWhenTheFirstIsFull(t *testing.T) {
	for name, shared := range map[string]bool{"of this host": false, "of the cluster": true} {
		t.Run(name, func(t *testing.T) {
			h, pools, addr, number := inSecond(t, shared)
			if number != 5 || !netip.MustParsePrefix("10.1.0.0/28").Contains(addr.Addr()) || addr.Bits() != 28 {
				t.Errorf("container %d got %s, want one of 10.1.0.0/28 after five", number, addr)
			}
			for range 2 {
				if again := addressOf(t, h, pools[0], "", number); again != addr.Addr().String() {
					t.Errorf("the same request again: %s, then %s", addr, again)
				}
				h.restart(false)
			}
			if p, err := h.RequestAddress(t.Context(), pools[0], addr.Addr().String(), nil); err != nil || p != addr {
				t.Errorf("replayed by the engine: %s, %v", p, err)
			}
			if err := h.Use(t.Context(), dockerID, "endpoint", []netip.Addr{addr.Addr()}); err != nil {
				t.Fatal(err)
			}
			_, err := h.RequestAddress(t.Context(), pools[0], addr.Addr().String(), macOptions(mac(99)))
			want(t, err, "is in use by endpoint endpoint")
			if err := h.Unuse(t.Context(), "endpoint"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := h.ReleaseAddress(t.Context(), pools[0], addr.Addr().String()); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range h.Status() {
				for _, l := range p.Leases {
					if l.Addr == addr.Addr() {
						t.Errorf("%s was released and is %s", addr, l.State)
					}
				}
			}
		})
	}
}

// TestFirstSubnetFirst: what comes back there is given before more of the next, and IPv6 is not asked for IPv4.
func TestFirstSubnetFirst(t *testing.T) {
	h, pools, _, number := inSecond(t, true)
	first := addressOf(t, h, pools[0], "", 0)
	if err := h.ReleaseAddress(t.Context(), pools[0], first); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, h, pools[0], "", number+1); got != first {
		t.Errorf("%s was given although %s of the first subnet was free", got, first)
	}
	counts := map[string]int{}
	for n := range 40 {
		p, err := h.RequestAddress(t.Context(), pools[0], "", macOptions(mac(100+n)))
		if err != nil {
			want(t, err, "subnet 10.2.0.0/29: no address left: 5 used and 0 free on this host", "subnet 10.1.0.0/28: no address left: 13 used",
				"subnet 10.3.0.0/29: no address left: 5 used")
			break
		}
		counts[p.Masked().String()]++
	}
	if counts["10.1.0.0/28"] != 12 || counts["10.3.0.0/29"] != 5 || len(counts) != 2 {
		t.Errorf("given: %v", counts)
	}
}

// TestWithoutANetworkEachPoolIsAlone: what another driver's network is made of is not known.
func TestWithoutANetworkEachPoolIsAlone(t *testing.T) {
	h := newHost(t, nil)
	var pools []string
	for _, s := range []string{"10.1.0.0/30", "10.2.0.0/30"} {
		pool, _, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: s})
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, pool)
	}
	addressOf(t, h, pools[0], "", 1)
	addressOf(t, h, pools[0], "", 2)
	_, err := h.RequestAddress(t.Context(), pools[0], "", macOptions(mac(3)))
	want(t, err, "subnet 10.1.0.0/30: no address left: 2 in use of 2")
}
