package kernel_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// tracked is how many connections the namespace's conntrack knows.
func tracked(t *testing.T, ns *kerneltest.NetNS) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(ns.Run(t, "cat /proc/sys/net/netfilter/nf_conntrack_count")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Frames of a network that says so leave conntrack alone, on a host whose firewall has it on; those of another do not.
func TestFramesAreNotTracked(t *testing.T) {
	h := newHost(t)
	member := kerneltest.NewNetNS(t)
	kerneltest.Join(t, h.NetNS, member, "u0", []string{"198.51.100.1/24", "2001:db8:1::1/64"}, []string{"198.51.100.2/24", "2001:db8:1::2/64"})
	h.Run(t, "nft add table inet firewall")
	for _, hook := range []string{"prerouting", "output"} { // as Docker's NAT rules do
		h.Run(t, "nft add chain inet firewall %s { type filter hook %s priority 0; }", hook, hook)
		h.Run(t, "nft add rule inet firewall %s ct state new counter", hook)
	}
	var rules []kernel.Rule
	ways := []struct {
		from *kerneltest.NetNS
		to   string
	}{{member, "198.51.100.1"}, {member, "2001:db8:1::1"}, {h.NetNS, "198.51.100.2"}, {h.NetNS, "2001:db8:1::2"}}
	for _, way := range ways[:2] {
		rules = append(rules, kernel.Rule{Chain: kernel.Prerouting, UDPPort: 4789, VNI: guarded,
			To: []netip.Addr{addr(way.to)}, Verdict: kernel.NoTrack})
	}
	rules = append(rules, kernel.Rule{Chain: kernel.Output, UDPPort: 4789, VNI: guarded, Verdict: kernel.NoTrack})
	for _, c := range []struct {
		rules []kernel.Rule
		new   int // connections by one frame on each way
	}{{nil, len(ways)}, {rules, 0}, {nil, len(ways)}} {
		h.set(t, "network", kernel.State{Rules: c.rules})
		before := tracked(t, h.NetNS)
		for _, vni := range []uint32{guarded, other} { // once those of the other are counted, the first ones have passed
			for _, way := range ways {
				send(t, way.from, way.to, vxlanFrame(vni))
			}
		}
		want := c.new + len(ways)
		for end := time.Now().Add(patience); tracked(t, h.NetNS)-before < want && time.Now().Before(end); {
			continue
		}
		if n := tracked(t, h.NetNS) - before; n != want {
			t.Errorf("rules %v: %d connections more, want %d", c.rules, n, want)
		}
	}
}
