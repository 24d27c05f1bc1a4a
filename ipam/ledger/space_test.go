package ledger

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carricknet/carrick/cluster"
)

func spaceOf(prefix string, parts ...string) *space {
	p := netip.MustParsePrefix(prefix)
	s := newSpace(cluster.Subnet{Prefix: p, Range: p})
	var prefixes []netip.Prefix
	for _, part := range parts {
		prefixes = append(prefixes, netip.MustParsePrefix(part))
	}
	s.setParts(prefixes, nil, time.Time{})
	return s
}

// give picks an address and takes it.
func give(s *space, now time.Time) netip.Addr {
	addr, ok := s.pick(now, rand.Uint64())
	if ok {
		s.take(addr, &lease{leaseRecord: leaseRecord{Addr: addr}})
	}
	return addr
}

func TestNeverUsedFirstThenOldestFreed(t *testing.T) {
	now := time.Now()
	s := spaceOf("10.1.0.0/29", "10.1.0.0/29")
	s.subnet.Gateway = netip.MustParseAddr("10.1.0.1")
	var got []string
	for range 3 {
		got = append(got, give(s, now).String())
	}
	s.release(netip.MustParseAddr("10.1.0.3"), now)
	s.release(netip.MustParseAddr("10.1.0.2"), now.Add(time.Second))
	for range 5 {
		addr, ok := s.pick(now.Add(2*time.Second), rand.Uint64())
		if !ok {
			break
		}
		s.take(addr, &lease{})
		got = append(got, addr.String())
	}
	if fmt.Sprint(got) != "[10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6 10.1.0.3 10.1.0.2]" {
		t.Error(got)
	}
}

func TestRestartGoesOnWhereItWas(t *testing.T) {
	now := time.Now()
	s := spaceOf("10.1.0.0/28", "10.1.0.0/28")
	for range 4 {
		give(s, now)
	}
	s = spaceOf("10.1.0.0/28", "10.1.0.0/28")
	s.take(netip.MustParseAddr("10.1.0.2"), &lease{})
	s.resume(map[netip.Prefix]netip.Addr{netip.MustParsePrefix("10.1.0.0/28"): netip.MustParseAddr("10.1.0.5")}, now)
	if got := give(s, now).String(); got != "10.1.0.5" {
		t.Errorf("after a restart %s is given", got)
	}
	for range 9 {
		give(s, now)
	}
	if got := give(s, now).String(); got != "10.1.0.1" {
		t.Errorf("when nothing else is left %s is given", got)
	}
}

func TestVastPartsAreDrawn(t *testing.T) {
	s := spaceOf("fd00::/64", "fd00::/80")
	seen := map[netip.Addr]bool{}
	for range 1000 {
		a := give(s, time.Now())
		if seen[a] || !s.parts[0].prefix.Contains(a) {
			t.Fatalf("%s", a)
		}
		seen[a] = true
	}
	if seen[netip.MustParseAddr("fd00::1")] && seen[netip.MustParseAddr("fd00::2")] {
		t.Error("addresses are counted, not drawn")
	}
	for _, p := range []string{"::/0", "fd00::/63", "fd00::/64", "fd00::/65", "fd00::/111"} {
		s := spaceOf(p, p)
		if a, ok := s.pick(time.Now(), rand.Uint64()); !ok || !s.parts[0].prefix.Contains(a) {
			t.Errorf("%s: %s %v", p, a, ok)
		}
	}
}

func TestEverySizeIsQuickAndSmall(t *testing.T) {
	for _, any := range []string{"10.77.205.91", "fd12:3456:789a:bcde:f012:3456:789a:bcde"} {
		addr := netip.MustParseAddr(any)
		for bits := range addr.BitLen() + 1 {
			p := netip.PrefixFrom(addr, bits).Masked()
			allocs := testing.AllocsPerRun(1, func() {
				s := newSpace(cluster.Subnet{Prefix: p, Range: p})
				s.setParts([]netip.Prefix{p}, nil, time.Time{})
				for range 10 {
					give(s, time.Now())
				}
				s.counts()
			})
			if allocs > 300 {
				t.Errorf("%s: %v allocations", p, allocs)
			}
		}
	}
}

func TestManyFreedAddressesAreReused(t *testing.T) {
	now := time.Now()
	s := spaceOf("10.0.0.0/8", "10.0.0.0/8")
	for range manyFreed + 1000 {
		s.release(give(s, now), now)
	}
	if len(s.freed) <= manyFreed {
		t.Fatalf("%d resting", len(s.freed))
	}
	now = now.Add(cooldown)
	for range 5000 {
		s.release(give(s, now), now)
		now = now.Add(time.Millisecond)
	}
	if len(s.freed) > manyFreed+1001 || len(s.queue) > 2*len(s.freed)+65 {
		t.Errorf("%d resting, %d in the queue", len(s.freed), len(s.queue))
	}
}

// TestSpaceModel compares with a model that knows for each address when it was last given and released.
func TestSpaceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subnet := cluster.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/25"), Gateway: netip.MustParseAddr("10.1.0.1")}
		subnet.Range = subnet.Prefix
		s := newSpace(subnet)
		now := time.Now()
		blocks := []netip.Prefix{}
		for k := range 8 {
			blocks = append(blocks, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(16 * k)}), 28))
		}
		parts, barred := map[netip.Prefix]bool{}, map[netip.Addr]bool{}
		given, released, out := map[netip.Addr]bool{}, map[netip.Addr]time.Time{}, map[netip.Addr]bool{}
		mine := func(a netip.Addr) bool {
			p, _ := a.Prefix(28)
			return parts[p] && !barred[a] && subnet.Usable(a) && !out[a]
		}
		t.Repeat(map[string]func(*rapid.T){
			"parts": func(t *rapid.T) {
				p := rapid.SampledFrom(blocks).Draw(t, "block")
				parts[p] = true // a block is given back only with the network
				var list []netip.Prefix
				for _, b := range blocks {
					if parts[b] {
						list = append(list, b)
					}
				}
				a := p.Addr()
				for range rapid.IntRange(0, 15).Draw(t, "host") {
					a = a.Next()
				}
				before := barred[a]
				if barred[a] = rapid.Bool().Draw(t, "barred") && !out[a]; !barred[a] {
					delete(barred, a)
					if before {
						released[a], given[a] = now, true
					}
				}
				s.setParts(list, maps.Clone(barred), now)
			},
			"pick": func(t *rapid.T) {
				addr, ok := s.pick(now, rand.Uint64())
				fresh, old := netip.Addr{}, netip.Addr{}
				for _, b := range blocks {
					for a := b.Addr(); b.Contains(a); a = a.Next() {
						if !mine(a) {
							continue
						}
						if !given[a] && !fresh.IsValid() {
							fresh = a
						}
						if given[a] && (!old.IsValid() || released[a].Before(released[old])) {
							old = a
						}
					}
				}
				switch {
				case ok != (fresh.IsValid() || old.IsValid()):
					t.Fatalf("pick says %v, fresh %s, old %s", ok, fresh, old)
				case ok && fresh.IsValid() && addr != fresh:
					t.Fatalf("%s is given, the lowest never given is %s", addr, fresh)
				case ok && !fresh.IsValid() && !released[addr].Equal(released[old]):
					t.Fatalf("%s is given, the oldest is %s", addr, old)
				}
				if ok {
					s.take(addr, &lease{})
					given[addr], out[addr] = true, true
				}
			},
			"take": func(t *rapid.T) {
				a := netip.AddrFrom4([4]byte{10, 1, 0, rapid.Byte().Draw(t, "host") & 0x7f})
				if mine(a) {
					s.take(a, &lease{})
					given[a], out[a] = true, true
				}
			},
			"release": func(t *rapid.T) {
				if len(out) == 0 {
					return
				}
				a := rapid.SampledFrom(slices.SortedFunc(maps.Keys(out), netip.Addr.Compare)).Draw(t, "address")
				delete(out, a)
				released[a] = now
				s.release(a, now)
			},
			"time": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second) },
			"": func(t *rapid.T) {
				free, total := uint64(0), uint64(0)
				for b := range parts {
					for a := b.Addr(); b.Contains(a); a = a.Next() {
						if subnet.Usable(a) {
							total++
						}
						if mine(a) {
							free++
						}
					}
				}
				if gotTotal, gotFree := s.counts(); gotTotal != total || gotFree != free {
					t.Fatalf("counts %d, %d, want %d, %d", gotTotal, gotFree, total, free)
				}
			},
		})
	})
}
