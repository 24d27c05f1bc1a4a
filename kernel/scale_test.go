package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/kernel"
)

// crowd is a network of n remote containers behind 50 hosts, each with an address of every family that is asked for.
func crowd(n int, families ...string) kernel.State {
	s := network(nil)
	s.FDB, s.Neighs = nil, nil
	for i := range n {
		m := kernel.MAC{2, 0, 1, byte(i >> 16), byte(i >> 8), byte(i)}
		vtep := netip.AddrFrom4([4]byte{198, 51, 100, byte(2 + i%50)})
		s.FDB = append(s.FDB, kernel.FDB{NS: kernel.Shared, Dev: vx, MAC: m, Dst: vtep, Bridge: true})
		for _, family := range families {
			ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if family == "ipv6" {
				ip = netip.AddrFrom16([16]byte{0xfd, 9, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
			}
			s.Neighs = append(s.Neighs, kernel.Neigh{NS: kernel.Shared, Dev: br, IP: ip, MAC: m, Announce: true})
		}
	}
	return s
}

// timed prints how long something takes.
func timed(t testing.TB, what string, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	if err := f(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	took := time.Since(start)
	t.Logf("%-40s %v", what, took.Round(10*time.Microsecond))
	return took
}

// Ten thousand remote containers: how long it takes is printed, that it is complete is tested.
func TestTenThousandEntries(t *testing.T) {
	h := newHost(t)
	const n = 10_000
	want := crowd(n, "ipv4")
	set := func(s kernel.State) func() error {
		return func() error { return h.Set(t.Context(), "network a", s) }
	}
	timed(t, "set 10,000 of three entries each", set(want))
	timed(t, "the same again", set(want))
	want.FDB[7].Dst = addr("198.51.100.99")
	timed(t, "one has moved", set(want))
	timed(t, "all commands as text", func() error { _ = want.String(); return nil })
	ops, err := h.Plan("network a", crowd(n, "ipv4"))
	if err != nil || len(ops) != 1 {
		t.Errorf("%v: %d requests to move one back, want 1", err, len(ops))
	}
	h.set(t, "network a", want)
	less := want
	less.FDB, less.Neighs = less.FDB[:100], less.Neighs[:100]
	timed(t, "all but 100 gone", set(less))
	h.set(t, "network a", less)
	before := transmitted(t, h.shared(t), br)
	timed(t, "10,000 again, and the bridge is told", set(want))
	if sent := transmitted(t, h.shared(t), br) - before; sent != n-100 {
		t.Errorf("%d frames were sent to announce %d new entries", sent, n-100)
	}
	timed(t, "network removed", set(kernel.State{}))
}

// A hundred thousand: all of them, one more change while Run listens, which must find it without reading the others, and what
// somebody else has done to one of them. The figures are printed.
func TestHundredThousandEntries(t *testing.T) {
	h := newHost(t)
	h.keep(t)
	want := crowd(100_000, "ipv4")
	set := func(s kernel.State) func() error {
		return func() error { return h.Set(t.Context(), "network a", s) }
	}
	timed(t, "network made", set(crowd(0)))
	timed(t, "set 100,000", set(want))
	timed(t, "the same again", set(want))
	want.FDB[50_000].Dst = addr("198.51.100.99")
	timed(t, "one has moved", set(want))
	moved := want.FDB[50_000].MAC
	for _, dst := range []string{"198.51.100.99", "198.51.100.98"} {
		if out := h.shared(t).Run(t, "bridge fdb get %s dev %s self", moved, vx); !strings.Contains(out, "dst 198.51.100.99 ") {
			t.Errorf("the entry is %s", out)
		}
		h.shared(t).Run(t, "bridge fdb replace %s dev %s dst %s self static", moved, vx, dst)
		timed(t, "audit of what is "+dst, func() error { h.Audit(t.Context()); return nil })
	}
	if got := h.Stats().Repairs["entry"]; got != 1 {
		t.Errorf("%d repairs of entries, want the one", got)
	}
	timed(t, "network removed", set(kernel.State{}))
}

// What the kernel was given is there, each entry of it: a batch loses none.
func TestEntriesAreComplete(t *testing.T) {
	h := newHost(t)
	const n = 1000 // some batches, and a part of one
	h.set(t, "network a", crowd(n, "ipv4", "ipv6"))
	fdb, neighs := h.shared(t).Run(t, "bridge fdb show dev %s", vx), h.shared(t).Run(t, "ip neigh show dev %s nud permanent", br)
	for _, c := range []struct {
		what, in string
		want     int
	}{{" self static", fdb, n}, {" master " + br + " static", fdb, n}, {"lladdr 02:00:01", neighs, 2 * n}} {
		if got := strings.Count(c.in, c.what); got != c.want {
			t.Errorf("%q: %d, want %d", c.what, got, c.want)
		}
	}
}

// Entries that the kernel refuses are named, in bounds, and keep the others from nothing.
func TestRefusedEntries(t *testing.T) {
	h := newHost(t)
	want := crowd(300, "ipv4")
	for i := range want.FDB {
		if i%30 == 7 {
			want.FDB[i].Dst = addr("2001:db8::2") // of another family than the device
		}
	}
	err := h.Set(t.Context(), "network a", want)
	if err == nil {
		t.Fatal("nothing was refused")
	}
	t.Log(err)
	first := "bridge -n shared fdb replace 02:00:01:00:00:07 dev " + vx + " dst 2001:db8::2 self master static: "
	if text := err.Error(); !strings.HasPrefix(text, first) || !strings.HasSuffix(text, "; and 5 more") || strings.Count(text, "replace") != 5 {
		t.Errorf("got  %s\nwant %s…; and 5 more", text, first)
	}
	if !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("the reason is lost: %v", err)
	}
	if got := strings.Count(h.shared(t).Run(t, "bridge fdb show dev %s", vx), " self static"); got != 290 {
		t.Errorf("%d entries are there, want all but the ten", got)
	}
	if got := strings.Count(h.shared(t).Run(t, "ip neigh show dev %s nud permanent", br), "lladdr"); got != 300 {
		t.Errorf("%d neighbours are there, want 300", got)
	}
	h.set(t, "network a", crowd(300, "ipv4"))
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
	set(t.Context(), 0, 10, true)
	h.shared(t).Run(t, "ip link add foreign group 77 type bridge")
	var rest []string
	for i := 10; i < n; i++ {
		owner, _ := one(i)
		rest = append(rest, owner)
	}
	timed(t, fmt.Sprintf("%d endpoints at once", len(rest)), func() error { return h.Remove(t.Context(), rest...) })
	if list := owned(t, h); len(list) != 1 || list[0].Owner != "network a" {
		t.Errorf("left are %v", list)
	}
	wantLines(t, h.shared(t).Run(t, "ip -br link show"), "foreign", br, vx)
	h.shared(t).Run(t, "ip link del foreign")
	h.set(t, "network a", kernel.State{})
}
