package kernel_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/kernel"
)

// BenchmarkProgram programs the remote endpoints of a network, from the State to the kernel's last answer, each time on a host
// that has none. Times are in milliseconds of wall clock:
//
//	set-ms        all of them, with an address of IPv4 each
//	again-ms      the same again, after a start: everything is read and compared
//	change-ms     one has moved, while Run listens
//	audit-ms      everything is compared, as Run does every 30 s
//	remove-ms     the network goes
//	dual-ms       all of them, with an address of each family
//	libnetwork-ms the same entries as set-ms without the bridge's, as libnetwork writes them: a look-up of the device by name
//	              and a request with an answer for each entry
func BenchmarkProgram(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			sums := map[string]time.Duration{}
			for b.Loop() {
				program(b, n, sums)
			}
			for unit, sum := range sums {
				b.ReportMetric(float64(sum)/float64(b.N)/float64(time.Millisecond), unit)
			}
			b.ReportMetric(float64(n)*float64(b.N)/sums["set-ms"].Seconds(), "endpoints/s")
			b.ReportMetric(float64(sums["libnetwork-ms"])/float64(sums["set-ms"]), "times-libnetwork")
		})
	}
}

func program(b *testing.B, n int, sums map[string]time.Duration) {
	h := newHost(b)
	took := func(unit string, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatalf("%s: %v", unit, err)
		}
		sums[unit] += time.Since(start)
	}
	set := func(s kernel.State) func() error {
		return func() error { return h.Set(b.Context(), "network a", s) }
	}
	empty, full, moved, dual := crowd(0), crowd(n, "ipv4"), crowd(n, "ipv4"), crowd(n, "ipv4", "ipv6")
	moved.FDB[n/2].Dst = addr("198.51.100.99")
	took("", set(empty))
	took("set-ms", set(full))
	took("again-ms", set(full))
	h.keep(b)
	took("", set(full))
	took("change-ms", set(moved))
	took("audit-ms", func() error { h.Audit(b.Context()); return nil })
	took("remove-ms", set(kernel.State{}))
	took("", set(empty))
	took("dual-ms", set(dual))
	took("", set(kernel.State{}))
	took("", set(empty))
	took("libnetwork-ms", func() error { return likeLibnetwork(b, h, full) })
	took("", set(kernel.State{}))
	delete(sums, "")
}

// likeLibnetwork does what the overlay driver of Docker 28 does for each endpoint of another host: osl's AddNeighbor once for
// the address and once for the MAC.
func likeLibnetwork(b *testing.B, h *host, s kernel.State) error {
	ns := h.shared(b)
	var handle *netlink.Handle
	if err := ns.Do(func() (err error) { handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); return err }); err != nil {
		return err
	}
	defer handle.Close()
	neighSet := func(dev string, n netlink.Neigh) error {
		link, err := handle.LinkByName(dev)
		if err != nil {
			return err
		}
		n.LinkIndex, n.State = link.Attrs().Index, netlink.NUD_PERMANENT
		return handle.NeighSet(&n)
	}
	for i, f := range s.FDB {
		mac := net.HardwareAddr(f.MAC[:])
		if err := neighSet(s.Neighs[i].Dev, netlink.Neigh{IP: s.Neighs[i].IP.AsSlice(), HardwareAddr: mac}); err != nil {
			return err
		}
		err := neighSet(f.Dev, netlink.Neigh{IP: f.Dst.AsSlice(), HardwareAddr: mac, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF})
		if err != nil {
			return err
		}
	}
	return nil
}
