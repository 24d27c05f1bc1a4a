package kernel_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
)

// crowd is a network of n remote containers behind 50 hosts.
func crowd(n int) kernel.State {
	s := network(nil)
	s.FDB, s.Neighs = nil, nil
	for i := range n {
		m := kernel.MAC{2, 0, 1, byte(i >> 16), byte(i >> 8), byte(i)}
		vtep := netip.AddrFrom4([4]byte{198, 51, 100, byte(2 + i%50)})
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: vx, MAC: m, Dst: vtep, Bridge: true})
		s.Neighs = append(s.Neighs, kernel.Neigh{NS: kernel.Shared, Dev: br, IP: ip, MAC: m, Announce: true})
	}
	return s
}

// Ten thousand remote containers: how long it takes is printed, that it is complete is tested.
func TestTenThousandEntries(t *testing.T) {
	h := newHost(t)
	const n = 10_000
	want := crowd(n)
	timed := func(what string, f func() error) {
		t.Helper()
		start := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%-40s %v", what, time.Since(start).Round(10*time.Microsecond))
	}
	set := func(s kernel.State) func() error {
		return func() error { return h.Set(t.Context(), "network a", s) }
	}
	timed("set 10,000 of three entries each", set(want))
	timed("the same again", set(want))
	want.FDB[7].Dst = addr("198.51.100.99")
	timed("one has moved", set(want))
	timed("all commands as text", func() error { _ = want.String(); return nil })
	ops, err := h.Plan("network a", crowd(n))
	if err != nil || len(ops) != 1 {
		t.Errorf("%v: %d requests to move one back, want 1", err, len(ops))
	}
	h.set(t, "network a", want)
	less := want
	less.FDB, less.Neighs = less.FDB[:100], less.Neighs[:100]
	timed("all but 100 gone", set(less))
	h.set(t, "network a", less)
	before := transmitted(t, h.shared(t), br)
	timed("10,000 again, and the bridge is told", set(want))
	if sent := transmitted(t, h.shared(t), br) - before; sent != n-100 {
		t.Errorf("%d frames were sent to announce %d new entries", sent, n-100)
	}
	timed("network removed", set(kernel.State{}))
}

// What the start of a container costs beside 300 others.
func TestManyEndpoints(t *testing.T) {
	h := newHost(t)
	h.set(t, "network a", network(t))
	const n = 300
	one := func(i int) (string, kernel.State) {
		id := fmt.Sprintf("%012x", i)
		return "endpoint " + id, kernel.State{Links: []kernel.Link{{Name: kernel.Name(kernel.KindHostEnd, id), NS: kernel.Shared,
			MTU: 1450, Master: br, Up: true, Veth: &kernel.Veth{Peer: kernel.Name(kernel.KindContainerEnd, id), PeerMTU: 1450}}}}
	}
	set := func(ctx context.Context, from, to int, gone bool) {
		start := time.Now()
		for i := from; i < to; i++ {
			owner, want := one(i)
			if gone {
				want = kernel.State{}
			}
			if err := h.Set(ctx, owner, want); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("endpoints %d to %d, gone %v: %v each", from, to, gone, (time.Since(start) / time.Duration(to-from)).Round(time.Microsecond))
	}
	set(t.Context(), 0, 10, false)
	set(t.Context(), 10, n-10, false)
	set(t.Context(), n-10, n, false)
	start := time.Now()
	list := owned(t, h)
	if len(list) != n+1 {
		t.Errorf("%d owners, want %d", len(list), n+1)
	}
	t.Logf("owners: %v", time.Since(start).Round(time.Microsecond))
	for _, o := range list {
		if o.Waiting == (o.Owner == "network a") {
			t.Errorf("%s: waiting %v", o.Owner, o.Waiting)
		}
	}
	set(t.Context(), 0, 10, false) // nothing to do
	set(t.Context(), 0, 20, true)
	h.set(t, "network a", kernel.State{})
}
