package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// named asks for an address for a container of a name, as engines since 29 do; addr "" is any.
func (h *host) named(t *testing.T, pool, addr, name string, n int) string {
	t.Helper()
	options := macOptions(mac(n))
	options[nameOption] = name
	p, err := h.RequestAddress(t.Context(), pool, addr, options)
	if err != nil {
		t.Fatal(err)
	}
	return p.Addr().String()
}

func (h *host) released(t *testing.T, pool string, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		if err := h.ReleaseAddress(t.Context(), pool, addr); err != nil {
			t.Fatal(err)
		}
	}
}

// remembers is how many names are on a host's disk.
func (h *host) remembers() int {
	n := 0
	for range h.store.Prefix("name/") {
		n++
	}
	return n
}

// TestAnAddressComesBackToItsName: at once, after others came and went, and after a restart of the plugin.
func TestAnAddressComesBackToItsName(t *testing.T) {
	for _, test := range []struct {
		subnet string
		shared bool
	}{{"10.1.0.0/24", true}, {"10.1.0.0/26", true}, {"fd00:1::/64", true}, {"fd00:1::/120", true}, {"10.1.0.0/24", false}} {
		t.Run(fmt.Sprintf("%s %t", test.subnet, test.shared), func(t *testing.T) {
			h := newHost(t, newWorld().node("host1"))
			v6 := netip.MustParsePrefix(test.subnet).Addr().Is6()
			pool, _, err := h.create(dockerID, PoolRequest{Pool: test.subnet, V6: v6}, test.shared)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 { // has spare blocks, so that nobody needs what is remembered
				if err := h.keep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			h.clock.pass(time.Minute) // so that a release is none that was asked for before the start
			db, web := h.named(t, pool, "", "db", 1), h.named(t, pool, "", "web", 2)
			h.released(t, pool, db, web)
			if again := h.named(t, pool, "", "web", 3); again != web {
				t.Errorf("web had %s, and has %s at once", web, again)
			}
			other := h.named(t, pool, "", "other", 4)
			h.restart(false)
			h.clock.pass(time.Minute)
			if again := h.named(t, pool, "", "db", 5); again != db {
				t.Errorf("db had %s, and has %s after a restart", db, again)
			}
			h.clock.pass(10 * time.Minute)
			h.released(t, pool, other, db, web)
			for n, name := range []string{"other", "web", "db"} {
				want := map[string]string{"other": other, "web": web, "db": db}[name]
				if again := h.named(t, pool, "", name, 6+n); again != want {
					t.Errorf("%s had %s, and has %s", name, want, again)
				}
			}
			if n := h.remembers(); n != 0 {
				t.Errorf("%d names of containers that run are remembered", n)
			}
			h.released(t, pool, db)
			if err := h.Unbind(t.Context(), dockerID); err != nil {
				t.Fatal(err)
			}
			if n := h.remembers(); n != 0 {
				t.Errorf("%d names are left of a network that is gone", n)
			}
		})
	}
}

// TestANameReservesNothing: what is needed is given to others, and a name whose address is gone gets another.
func TestANameReservesNothing(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/29"}, false) // five for containers
	if err != nil {
		t.Fatal(err)
	}
	had := h.named(t, pool, "", "db", 1)
	h.released(t, pool, had)
	given := map[string]bool{}
	for n := range 5 {
		given[h.named(t, pool, "", fmt.Sprint("other", n), 2+n)] = true
	}
	if len(given) != 5 || !given[had] {
		t.Errorf("%v were given, want all five, and %s among them", given, had)
	}
	_, err = h.RequestAddress(t.Context(), pool, "", map[string]string{macOption: mac(9), nameOption: "db"})
	want(t, err, "no address left")
	h.released(t, pool, had)
	if got := h.named(t, pool, "", "db", 10); got != had {
		t.Errorf("%s, want the one that is free, %s", got, had)
	}
	// By --ip it is anybody's, too, and one that somebody asked for by --ip is not remembered: it is asked for again.
	h.released(t, pool, had)
	if got := h.named(t, pool, had, "asks", 11); got != had {
		t.Errorf("%s, want %s as asked for", got, had)
	}
	h.released(t, pool, had)
	for key, value := range h.store.Prefix("name/") {
		if strings.Contains(string(value), "asks") {
			t.Errorf("%s: %s", key, value)
		}
	}
}

// TestAnAddressOfANameGoesToAnotherHost: the name gets another here.
func TestAnAddressOfANameGoesToAnotherHost(t *testing.T) {
	w := newWorld()
	one, two := newHost(t, w.node("host1")), newHost(t, w.node("host2"))
	pool, s, err := one.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := two.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
		t.Fatal(err)
	}
	had := one.named(t, pool, "", "db", 1)
	one.released(t, pool, had)
	network := w.head().Networks()[0].ID
	two.asks(t, network, netip.MustParseAddr(had))
	if err := one.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if owner, _ := w.head().Owner(network, netip.MustParseAddr(had)); owner.Node != "host2" {
		t.Fatalf("%s of %s is still that of %s", had, s.Prefix, owner.Node)
	}
	if got := one.named(t, pool, "", "db", 2); got == had {
		t.Errorf("%s is given here although it is the other host's", got)
	}
}

// TestNamesDoNotPileUp: those of Swarm's tasks never come again, and of others the oldest go.
func TestNamesDoNotPileUp(t *testing.T) {
	h := newHost(t, nil)
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/20"}, false)
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"web.1.abcdefghijklmnopqrstuvwxy", "web.0123456789abcdefghijklmno.abcdefghijklmnopqrstuvwxy", strings.Repeat("n", 129), ""} {
		h.released(t, pool, h.named(t, pool, "", name, n))
	}
	if n := h.remembers(); n != 0 {
		t.Errorf("%d names are remembered that cannot come again, or are too long", n)
	}
	const most = 256
	var addrs []string
	for n := range most + 50 {
		addrs = append(addrs, h.named(t, pool, "", fmt.Sprint("c", n), 100+n))
	}
	h.released(t, pool, addrs...)
	if n := h.remembers(); n != most {
		t.Errorf("%d names are remembered, want %d", n, most)
	}
	h.restart(false)
	for _, n := range []int{50, most, most + 49} {
		if got := h.named(t, pool, "", fmt.Sprint("c", n), 1000+n); got != addrs[n] {
			t.Errorf("c%d had %s, and has %s", n, addrs[n], got)
		}
	}
	if got := h.named(t, pool, "", "c49", 2000); got == addrs[49] {
		t.Errorf("c49 has %s again although its name is the 257th", got)
	}
}
