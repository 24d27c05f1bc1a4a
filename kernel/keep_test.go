package kernel_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// keep runs the Kernel of a host until the test ends.
func (h *host) keep(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.Kernel.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for !h.Listening() {
		<-time.After(time.Millisecond)
	}
}

// kept is all there is to see of what a host keeps.
func (h *host) kept(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, command := range []string{"ip -br link show", "bridge -d link show", "bridge fdb show dev " + vx, "ip neigh show nud permanent",
		"ip -d link show " + br, "sysctl net.ipv6.conf." + br + ".accept_ra net.ipv4.ip_forward"} {
		out, _ := h.shared(t).Try("%s", command) // the device may be away
		b.WriteString(out)
	}
	var sorted []string
	for line := range strings.Lines(b.String() + h.Run(t, "nft list ruleset")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " state ") // which follows the cable, a moment later
		if i := strings.Index(line, ": "); i > 0 && i < 5 {
			line = line[i:] // indexes are new where a link is
		}
		sorted = append(sorted, volatile.ReplaceAllString(line, "$3"))
	}
	slices.Sort(sorted)
	return strings.Join(sorted, "\n")
}

// What follows the cable does so a moment later, so that it is not looked at: states of `ip -br`, and flags.
var volatile = regexp.MustCompile(`@[a-z0-9]+|\bNO-CARRIER,|,(LOWER_UP|M-DOWN)\b|\b(UP|DOWN|UNKNOWN|LOWERLAYERDOWN) +([0-9a-f]{2}:)|(gc_timer|hello_timer|tcn_timer|topology_change_timer|designated_root|root_port) +[0-9a-f.:]+`)

// drift is what somebody may do to what is ours. In the commands BR, VX and VH stand for the names of our devices.
var drift = []struct {
	name    string
	command string // in our namespace; with "host: " before it in the host's
	what    string // as it is counted
	audit   bool   // of which there is no event
}{
	{name: "bridge down", command: "ip link set BR down", what: "link"},
	{name: "vxlan down", command: "ip link set VX down", what: "link"},
	{name: "port down", command: "ip link set VH down", what: "link"},
	{name: "vxlan deleted", command: "ip link del VX", what: "link"},
	{name: "bridge deleted", command: "ip link del BR", what: "link"},
	{name: "bridge renamed", command: "ip link set BR name other", what: "link"},
	{name: "vxlan renamed", command: "ip link set VX name other", what: "link"},
	{name: "port renamed", command: "ip link set VH name other", what: "link"},
	{name: "vxlan released", command: "ip link set VX nomaster", what: "link"},
	{name: "port released", command: "ip link set VH nomaster", what: "link"},
	{name: "bridge mtu", command: "ip link set BR mtu 1300", what: "link"},
	{name: "vxlan mtu", command: "ip link set VX mtu 1300", what: "link"},
	{name: "bridge address", command: "ip link set BR address 02:00:00:00:00:77", what: "link"},
	{name: "snooping", command: "ip link set BR type bridge mcast_snooping 1", what: "link"},
	{name: "learning", command: "bridge link set dev VX learning on", what: "link"},
	{name: "suppression", command: "bridge link set dev VX neigh_suppress off", what: "link"},
	{name: "entry removed", command: "bridge fdb del 02:00:00:00:01:01 dev VX dst 198.51.100.2 self", what: "entry"},
	{name: "entry of the bridge removed", command: "bridge fdb del 02:00:00:00:01:01 dev VX master", what: "entry"},
	{name: "entry moved", command: "bridge fdb replace 02:00:00:00:01:01 dev VX dst 198.51.100.9 self static", what: "entry"},
	{name: "destination of all added", command: "bridge fdb append 00:00:00:00:00:00 dev VX dst 198.51.100.9 self permanent", what: "entry"},
	{name: "destination of all removed", command: "bridge fdb del 00:00:00:00:00:00 dev VX dst 198.51.100.2 self", what: "entry"},
	{name: "entry added", command: "bridge fdb add 02:00:00:00:01:77 dev VX dst 198.51.100.9 self static", what: "entry"},
	{name: "all entries flushed", command: "bridge fdb flush dev VX", what: "entry"},
	{name: "neighbour removed", command: "ip neigh del 10.9.0.2 dev BR", what: "entry"},
	{name: "neighbour moved", command: "ip neigh replace fd09::2 lladdr 02:00:00:00:01:77 dev BR nud permanent", what: "entry"},
	{name: "neighbours flushed", command: "ip neigh flush dev BR nud permanent", what: "entry"},
	{name: "rules flushed", command: "host: nft flush ruleset", what: "rule"},
	{name: "chain flushed", command: "host: nft flush chain inet carrick prerouting", what: "rule"},
	{name: "chain of a port flushed", command: "host: nft flush chain inet carrick prerouting-4789", what: "rule"},
	{name: "chain of a network flushed", command: "host: nft flush chain inet carrick prerouting-4789-0x100000", what: "rule"},
	{name: "sysctl of a device", command: "sysctl -qw net.ipv6.conf.BR.accept_ra=2", what: "sysctl", audit: true},
	{name: "sysctl of the namespace", command: "sysctl -qw net.ipv4.ip_forward=1", what: "sysctl", audit: true},
}

// Who undoes a repair again and again is met with patience: the two do not keep each other busy. In the end it is as it should be.
func TestRepairsAreNoFight(t *testing.T) {
	h := newHost(t)
	h.keep(t)
	h.set(t, "network a", network(t))
	fight, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	undone := 0
	for fight.Err() == nil {
		if !strings.Contains(h.shared(t).Run(t, "ip link show %s", br), ",UP") {
			<-time.After(10 * time.Millisecond)
			continue
		}
		undone++
		h.shared(t).Run(t, "ip link set %s down", br)
	}
	// At once, and 0.2, 0.4, 0.8, 1.6 s after one another, each 0.2 s late; without patience there would be 20.
	if undone < 2 || undone > 7 {
		t.Errorf("undone %d times in 4 s", undone)
	}
	start := time.Now()
	for !strings.Contains(h.shared(t).Run(t, "ip link show %s", br), ",UP") && time.Since(start) < patience {
		<-time.After(10 * time.Millisecond)
	}
	wantLines(t, h.shared(t).Run(t, "ip link show %s", br), ",UP")
	t.Logf("undone %d times in 4 s; at peace %v later", undone, time.Since(start).Round(time.Millisecond))
}

// A pair whose host's end somebody has deleted leads nowhere, and is not made anew: its container would have nothing of it.
func TestALostPairStaysLost(t *testing.T) {
	h := newHost(t)
	h.keep(t)
	h.set(t, "network a", network(t))
	h.set(t, "endpoint b", endpoint(t))
	h.shared(t).Run(t, "ip link del %s", vh)
	h.Audit(t.Context())
	if _, err := h.shared(t).Try("ip link show %s", vh); err == nil {
		t.Error("the pair was made anew")
	}
	if got := owned(t, h); len(got) != 1 || got[0].Owner != "network a" {
		t.Errorf("owners: %v", got)
	}
}

// Whatever others change is as it was, soon, and counted. The time until then is printed.
func TestWhatOthersChangeIsRepaired(t *testing.T) {
	h := newHost(t)
	h.NoAudits()
	h.keep(t)
	h.set(t, "network a", network(t))
	h.set(t, "endpoint b", endpoint(t))
	before := h.kept(t)
	names := strings.NewReplacer("BR", br, "VX", vx, "VH", vh)
	for _, c := range drift {
		repaired := t.Run(c.name, func(t *testing.T) {
			counted := h.Stats().Repairs[c.what]
			command, inHost := strings.CutPrefix(names.Replace(c.command), "host: ")
			run := h.shared(t).Run
			if inHost {
				run = h.Run
			}
			run(t, "%s", command)
			if c.audit {
				h.Audit(t.Context())
			}
			start, after := time.Now(), ""
			for after = h.kept(t); after != before && time.Since(start) < patience; after = h.kept(t) {
				<-time.After(50 * time.Millisecond)
			}
			if after != before {
				t.Fatalf("before:\n%s\nafter:\n%s", before, after)
			}
			if h.Stats().Repairs[c.what] == counted {
				t.Errorf("no repair of a %s is counted", c.what)
			}
			t.Logf("repaired after %v", time.Since(start).Round(time.Millisecond))
			h.Forgive()
		})
		if !repaired {
			t.Fatal("the others begin where this one should have ended")
		}
	}
}
