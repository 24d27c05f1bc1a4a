package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

func TestLifeOfALocalNetwork(t *testing.T) {
	h := newHost(t, nil)
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/29"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if pool != "carrick|10.1.0.0/29|" || s.Gateway.String() != "10.1.0.1" {
		t.Errorf("pool %s, gateway %s", pool, s.Gateway)
	}
	a := addressOf(t, h, pool, "", 1)
	if again := addressOf(t, h, pool, "", 1); again != a || a != "10.1.0.2" {
		t.Errorf("the same request: %s, then %s", a, again)
	}
	b := addressOf(t, h, pool, "10.1.0.5", 2)
	if err := h.Use(t.Context(), dockerID, "endpoint1", []netip.Addr{netip.MustParseAddr(a)}); err != nil {
		t.Fatal(err)
	}
	if err := h.Use(t.Context(), dockerID, "endpoint1", []netip.Addr{netip.MustParseAddr(a)}); err != nil {
		t.Errorf("Use again: %v", err)
	}
	if other := addressOf(t, h, pool, "", 1); other == a {
		t.Errorf("%s was given again to the MAC that uses it", a)
	}
	if err := h.ReleaseAddress(t.Context(), pool, a); err != nil {
		t.Fatal(err)
	}
	_, err = h.RequestAddress(t.Context(), pool, a, macOptions(mac(7)))
	want(t, err, "address 10.1.0.2 is in use by endpoint endpoint1")
	if err := h.Unuse(t.Context(), "endpoint1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.ReleaseAddress(t.Context(), pool, a); err != nil {
			t.Fatal(err)
		}
	}
	if got := addressOf(t, h, pool, a, 8); got != a {
		t.Errorf("a released address that is asked for: %s", got)
	}
	h.restart(false)
	_, err = h.RequestAddress(t.Context(), pool, b, macOptions(mac(9)))
	want(t, err, "address 10.1.0.5 is in use: it was given to another container a moment ago")
	if err := h.remove(dockerID, pool, ""); err != nil {
		t.Fatal(err)
	}
	if len(h.store.values) != 0 {
		t.Errorf("left over: %v", h.store.values)
	}
	if err := errors.Join(h.ReleaseAddress(t.Context(), pool, a), h.ReleasePool(t.Context(), pool), h.Unbind(t.Context(), dockerID),
		h.Unuse(t.Context(), "endpoint1")); err != nil {
		t.Errorf("calls about what is gone: %v", err)
	}
}

func TestExhaustionSaysNumbers(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/29", SubPool: "10.1.0.4/30"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		addressOf(t, h, pool, "", n)
	}
	_, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(9)))
	want(t, err, "subnet 10.1.0.0/29: no address left: 3 in use of 3 in 10.1.0.4/30")
	if got := addressOf(t, h, pool, "10.1.0.2", 10); got != "10.1.0.2" {
		t.Errorf("outside --ip-range: %s", got)
	}
}

// TestSecondCreationHarmsNobody: Docker takes the pools of a refused creation back.
func TestSecondCreationHarmsNobody(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	a := addressOf(t, h, pool, "", 1)
	before := fmt.Sprint(h.Status())
	_, _, err = h.create("another", PoolRequest{Pool: "10.1.0.0/24"}, false)
	want(t, err, "subnet 10.1.0.0/24 is that of network "+dockerID[:12])
	_, _, err = h.create("another", PoolRequest{Pool: "10.1.0.0/25"}, false)
	want(t, err, "subnet 10.1.0.0/25 overlaps 10.1.0.0/24 of a network on this host")
	_, err = h.RequestAddress(t.Context(), pool, "10.1.0.9", gatewayOption())
	want(t, err, "--gateway 10.1.0.9: the network of subnet 10.1.0.0/24 has gateway 10.1.0.1")
	if after := fmt.Sprint(h.Status()); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
	if _, err := h.RequestAddress(t.Context(), pool, a, nil); err != nil {
		t.Errorf("the lease is gone: %v", err)
	}
}

// TestFailedCreationLeavesNothing: contract.md section 5, whatever call fails.
func TestFailedCreationLeavesNothing(t *testing.T) {
	h := newHost(t, nil)
	ctx := t.Context()
	id, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		addr    string
		options map[string]string
	}{{"10.1.0.1", gatewayOption()}, {"10.1.0.9", nil}, {"10.1.0.10", nil}} {
		if _, err := h.RequestAddress(ctx, id, call.addr, call.options); err != nil {
			t.Fatal(err)
		}
	}
	_, err = h.RequestAddress(ctx, id, "10.1.0.1", nil)
	want(t, err, "address 10.1.0.1 is the gateway of subnet 10.1.0.0/24: name another with --gateway")
	if err := h.ReleasePool(ctx, id); err != nil {
		t.Fatal(err)
	}
	if len(h.store.values) != 0 || len(h.Status()) != 0 {
		t.Errorf("left over: %v", h.store.values)
	}
	_, err = h.RequestAddress(ctx, id, "", macOptions(mac(1)))
	want(t, err, "pool carrick|10.1.0.0/24|: is not known")
	// the next try has other words
	if id, _, _, err = h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24", SubPool: "10.1.0.128/25"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RequestAddress(ctx, id, "10.1.0.254", gatewayOption()); err != nil {
		t.Fatal(err)
	}
	_, subs, ours := h.Describe(localSpace, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")})
	if !ours || subs[0].Range.String() != "10.1.0.128/25" || subs[0].Gateway.String() != "10.1.0.254" || len(subs[0].Aux) != 0 {
		t.Errorf("described %+v", subs)
	}
}

func TestDescribe(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	ctx := t.Context()
	prefix := netip.MustParsePrefix("10.1.0.0/24")
	id, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: prefix.String(), Options: map[string]string{"network": "blue"}})
	if err != nil || id != "carrick|10.1.0.0/24|network=blue" {
		t.Fatal(id, err)
	}
	if gw, err := h.RequestAddress(ctx, id, "", gatewayOption()); err != nil || gw.String() != "10.1.0.1/24" {
		t.Errorf("gateway %s %v", gw, err)
	}
	if _, err := h.RequestAddress(ctx, id, "10.1.0.9", nil); err != nil {
		t.Fatal(err)
	}
	name, subs, ours := h.Describe(localSpace, []netip.Prefix{prefix})
	if name != "blue" || !ours || subs[0].Gateway.IsValid() || subs[0].Aux["10.1.0.9"].String() != "10.1.0.9" {
		t.Errorf("%s %+v %v", name, subs, ours)
	}
	if _, _, ours := h.Describe("LocalDefault", []netip.Prefix{prefix}); ours {
		t.Error("another driver's pool is ours")
	}
}

// TestReplay: contract.md section 6.4, with and without what was stored.
func TestReplay(t *testing.T) {
	h := newHost(t, nil)
	ctx := t.Context()
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	a := addressOf(t, h, pool, "", 1)
	h.restart(false)
	replay := func() {
		t.Helper()
		id, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: "10.1.0.0/24"})
		if err != nil || id != pool {
			t.Fatal(id, err)
		}
		for _, call := range []struct {
			addr    string
			options map[string]string
		}{{"10.1.0.1", gatewayOption()}, {a, nil}, {"10.1.0.77", nil}} {
			if got, err := h.RequestAddress(ctx, id, call.addr, call.options); err != nil || got.Addr().String() != call.addr {
				t.Errorf("replay of %s: %s, %v", call.addr, got, err)
			}
		}
	}
	replay()
	if s := h.Status(); len(s[0].Leases) != 2 || s[0].Network != dockerID {
		t.Errorf("after the replay: %+v", s)
	}
	h.store.values = nil
	h.restart(true)
	replay()
	if got := addressOf(t, h, pool, "", 2); got == a || got == "10.1.0.1" || got == "10.1.0.77" {
		t.Errorf("%s is in use and was given", got)
	}
}

// TestPoolOfAnotherDriver is never bound: nobody says what is in use, so nothing is swept.
func TestPoolOfAnotherDriver(t *testing.T) {
	h := newHost(t, nil)
	ctx := t.Context()
	id, prefix, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace})
	if err != nil || prefix.String() != "10.192.0.0/20" {
		t.Fatal(prefix, err)
	}
	if _, err := h.RequestAddress(ctx, id, "", gatewayOption()); err != nil {
		t.Fatal(err)
	}
	a := addressOf(t, h, id, "", 1)
	for range 3 {
		h.clock.pass(time.Hour)
		if err := h.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.restart(false)
	if _, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: prefix.String()}); err != nil {
		t.Fatal(err)
	}
	_, err = h.RequestAddress(ctx, id, a, macOptions(mac(2)))
	want(t, err, "is in use")
	_, _, err = h.create(dockerID, PoolRequest{Pool: prefix.String()}, false)
	want(t, err, "is that of another driver's network")
	if err := errors.Join(h.ReleaseAddress(ctx, id, a), h.ReleaseAddress(ctx, id, "10.192.0.1"), h.ReleasePool(ctx, id)); err != nil {
		t.Fatal(err)
	}
	if len(h.store.values) != 0 {
		t.Errorf("left over: %v", h.store.values)
	}
}

func TestSweep(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	never, used := addressOf(t, h, pool, "", 1), addressOf(t, h, pool, "", 2)
	if err := h.Use(t.Context(), dockerID, "endpoint", []netip.Addr{netip.MustParseAddr(used)}); err != nil {
		t.Fatal(err)
	}
	look := func(after time.Duration, leases int) {
		t.Helper()
		h.clock.pass(after)
		if err := h.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := h.Status()[0].Leases; len(got) != leases {
			t.Errorf("%d leases, want %d: %v", len(got), leases, got)
		}
	}
	look(59*time.Second, 2)
	look(time.Second, 2)
	h.restart(false) // counts anew
	look(30*time.Second, 2)
	look(30*time.Second, 2)
	look(time.Second, 1)
	if got := h.Status()[0].Leases[0].Addr.String(); got != used || got == never {
		t.Errorf("%s is left", got)
	}
	if err := h.Unuse(t.Context(), "endpoint"); err != nil {
		t.Fatal(err)
	}
	h.clock.pass(releaseGrace)
	if got := addressOf(t, h, pool, used, 3); got != used {
		t.Errorf("%s", got)
	}
	look(time.Minute, 1)
	look(time.Second, 0)
}

func TestUseNeedsALease(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr(addressOf(t, h, pool, "", 1))
	for _, test := range []struct {
		network string
		addrs   []netip.Addr
		want    string
	}{
		{dockerID, []netip.Addr{a, netip.MustParseAddr("10.1.0.77")}, "address 10.1.0.77 was not handed out by this host"},
		{dockerID, []netip.Addr{netip.MustParseAddr("10.9.0.77")}, "address 10.9.0.77 is in no pool of network 0123456789ab"},
		{"other", []netip.Addr{a}, "is in no pool of network other"},
	} {
		want(t, h.Use(t.Context(), test.network, "endpoint1", test.addrs), test.want)
	}
	if err := h.Use(t.Context(), dockerID, "endpoint1", []netip.Addr{a}); err != nil {
		t.Fatal(err)
	}
	want(t, h.Use(t.Context(), dockerID, "endpoint2", []netip.Addr{a}), "is in use by endpoint endpoint1")
	if err := h.Use(t.Context(), dockerID, "endpoint3", nil); err != nil {
		t.Error(err)
	}
}

// TestDiskErrorsChangeNothing: what is not on disk was not done.
func TestDiskErrorsChangeNothing(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	ctx := t.Context()
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	a := addressOf(t, h, pool, "", 1)
	addr := netip.MustParseAddr(a)
	if err := h.Use(ctx, dockerID, "endpoint", []netip.Addr{addr}); err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(h.Status())
	h.store.setFail(syscall.ENOSPC)
	for what, call := range map[string]func() error{
		"RequestPool": func() error {
			_, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: "10.2.0.0/24"})
			return err
		},
		"RequestAddress": func() error { _, err := h.RequestAddress(ctx, pool, "", macOptions(mac(2))); return err },
		"Use":            func() error { return h.Use(ctx, dockerID, "endpoint", []netip.Addr{addr}) },
		"Unuse":          func() error { return h.Unuse(ctx, "endpoint") },
		"Unbind":         func() error { return h.Unbind(ctx, dockerID) },
		"Bind": func() error {
			return h.Bind(ctx, "other", "", []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.3.0.0/24")}})
		},
		"Bind again": func() error { return h.Bind(ctx, dockerID, h.Status()[0].Shared, []cluster.Subnet{s}) },
	} {
		if err := call(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s on a full disk: %v", what, err)
		}
		if after := fmt.Sprint(h.Status()); after != before {
			t.Errorf("%s: before %s, after %s", what, before, after)
		}
	}
	h.store.setFail(nil)
	h.restart(false)
	if after := fmt.Sprint(h.Status()); after != before {
		t.Errorf("before %s, after the restart %s", before, after)
	}
}

// TestManyAtOnce: Docker starts the containers of a host in parallel.
func TestManyAtOnce(t *testing.T) {
	w := newWorld()
	for _, shared := range []bool{false, true} {
		h := newHost(t, w.node("host1"))
		subnet := "10.1.0.0/24"
		if shared {
			subnet = "10.2.0.0/24"
		}
		pool, _, err := h.create(dockerID, PoolRequest{Pool: subnet}, shared)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		seen := map[netip.Addr]int{}
		var group sync.WaitGroup
		for n := range 60 {
			group.Go(func() {
				got, err := h.RequestAddress(t.Context(), pool, "", macOptions(mac(n)))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other, twice := seen[got.Addr()]; twice {
					t.Errorf("%s was given to %d and %d", got, other, n)
				}
				seen[got.Addr()] = n
			})
		}
		group.Wait()
		if s := h.Status()[0]; s.Used != 60 || shared && len(s.Blocks) > 5 {
			t.Errorf("%d in use in %d blocks", s.Used, len(s.Blocks))
		}
	}
}

// TestCrashInCreation: whatever was written when the process died, the driver's Unbind and Docker's ReleasePool leave
// nothing, and the network can be created again.
func TestCrashInCreation(t *testing.T) {
	for _, shared := range []bool{false, true} {
		died := 0
		for limit := 0; ; limit++ {
			h := newHost(t, newWorld().node("host1"))
			h.store.limit = limit
			pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24", SubPool: "10.1.0.64/26"}, shared)
			if err == nil {
				_, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(1)))
			}
			h.store.limit = -1
			h.restart(false)
			if err == nil {
				if got := h.Status()[0]; got.Used != 1 || got.Network != dockerID {
					t.Errorf("after everything was written: %+v", got)
				}
				break
			}
			died++
			if err := h.remove(dockerID, "carrick|10.1.0.0/24|", ""); err != nil {
				t.Fatal(err)
			}
			if len(h.store.values) != 0 {
				t.Errorf("left over after %d writes: %v", limit, h.store.values)
			}
			if pool, _, err = h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, shared); err != nil {
				t.Fatal(err)
			}
			addressOf(t, h, pool, "", 2)
		}
		if died < 4 {
			t.Errorf("only %d writes", died)
		}
	}
}

// TestGatewayThatDockerWasTold is nobody's, whatever the network has.
func TestGatewayThatDockerWasTold(t *testing.T) {
	h := newHost(t, nil)
	id, prefix, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: "10.1.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.RequestAddress(t.Context(), id, "", gatewayOption()); err != nil {
		t.Fatal(err)
	}
	if err := h.Bind(t.Context(), dockerID, "", []cluster.Subnet{{Prefix: prefix}}); err != nil {
		t.Fatal(err)
	}
	if got := addressOf(t, h, id, "", 1); got != "10.1.0.2" {
		t.Errorf("%s", got)
	}
	if got, err := h.RequestAddress(t.Context(), id, "10.1.0.1", gatewayOption()); err != nil || got.Addr().String() != "10.1.0.1" {
		t.Errorf("replay: %s %v", got, err)
	}
}
