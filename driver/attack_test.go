package driver

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

// victims are a host that watches, one that has an endpoint of each family, and one that has joined the network to steal.
func victims(t *testing.T, credulous bool) (here, victim, insider *host, mac kernel.MAC) {
	t.Helper()
	c := &clustertest.Cluster{}
	// The name of the insider comes first, so that it wins where only the order of names decides.
	here, victim, insider = newHost(t, c, "here"), newHost(t, c, "victim"), newHost(t, c, "a")
	here.credulous = credulous
	for i, h := range []*host{here, victim, insider} {
		must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24", "fd00:1::/64")))
		made, err := h.CreateEndpoint(t.Context(), epRequest("a1", fmt.Sprint("e", i),
			fmt.Sprintf("10.1.0.%d/24", 10+i), fmt.Sprintf("fd00:1::%d/64", 10+i)))
		must(t, err)
		if h == victim {
			mac = made
		}
	}
	return here, victim, insider, mac
}

func (h *host) look(t *testing.T) {
	t.Helper()
	h.reconcile(t.Context(), func(*network) bool { return true })
}

func sharedOfBoth() string { return sharedID("10.1.0.0/24", "fd00:1::/64") }

// leadsTo is the host to which the kernel sends frames for a MAC, "" if it sends them to all.
func (h *host) leadsTo(mac kernel.MAC) string {
	for line := range strings.Lines(h.kernel.String()) {
		if _, dst, ok := strings.Cut(line, " dst "); ok && strings.Contains(line, mac.String()) {
			return strings.Fields(dst)[0]
		}
	}
	return ""
}

func (h *host) vtep() string {
	for _, n := range h.node.Nodes() {
		if n.ID == h.node.ID() {
			return n.Addr.String()
		}
	}
	return "none"
}

// claim has a node tell of an endpoint.
func (h *host) claim(eid string, mac kernel.MAC, addrs ...string) {
	h.node.Publish(sharedOfBoth(), id(eid), encodeRecord(Endpoint{MAC: mac, Addrs: epRequest("", "", addrs...).Addrs}))
}

// A host that has the key and has joined the network says that a container of another host is its own. Without a look at
// the facts the order of the nodes' identifiers decides, and the stranger gets the traffic.
func TestAttackAddressOfAnother(t *testing.T) {
	for name, addr := range map[string]string{"IPv4": "10.1.0.11/24", "IPv6": "fd00:1::11/64"} {
		for _, credulous := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/without defence %v", name, credulous), func(t *testing.T) {
				here, victim, insider, mac := victims(t, credulous)
				stolen := kernel.MAC{2, 0, 0, 0, 0, 66}
				insider.claim("f1", stolen, addr)
				here.look(t) // for the first time since the two others are there
				diverted := here.leadsTo(stolen) == insider.vtep() && here.leadsTo(mac) == ""
				if diverted != credulous || !diverted && here.leadsTo(mac) != victim.vtep() {
					t.Errorf("diverted: %v\n%s", diverted, here.kernel.String())
				}
				want := "what node a says of endpoint"
				if !credulous && !strings.Contains(fmt.Sprint(here.Alarms()), want) {
					t.Errorf("alarms %q: want %q", here.Alarms(), want)
				}
			})
		}
	}
}

// The same with the other's MAC and an address that is the insider's own: who had the MAC keeps it.
func TestAttackMACOfAnother(t *testing.T) {
	here, victim, insider, mac := victims(t, false)
	shared := sharedOfBoth()
	grant(insider.node, shared, netip.MustParsePrefix("10.1.0.64/28"), insider.node.ID())
	insider.claim("f1", mac, "10.1.0.65/24")
	here.look(t)
	if got := here.leadsTo(mac); got != insider.vtep() {
		t.Fatalf("who claims a MAC that nobody is known to have gets it, by the order of names; it leads to %q", got)
	}
	insider.node.Publish(shared, id("f1"), nil)
	here.look(t)
	if got := here.leadsTo(mac); got != victim.vtep() {
		t.Fatalf("frames for the victim go to %q", got)
	}
	insider.claim("f1", mac, "10.1.0.65/24")
	for range 2 {
		here.look(t)
		if got := here.leadsTo(mac); got != victim.vtep() {
			t.Errorf("frames for the victim go to %q", got)
		}
	}
	if want := "MAC address " + mac.String(); !strings.Contains(fmt.Sprint(here.Alarms()), want) {
		t.Errorf("alarms %q: want %q", here.Alarms(), want)
	}
}

// A record that is here before the fact that it rests on counts as soon as the fact is here, and no longer than it is.
func TestRecordWaitsForItsFact(t *testing.T) {
	here, _, other, _ := victims(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wake, stop := here.node.Watch()
	defer stop()
	go func() { done <- here.Run(ctx, wake) }()
	mac := kernel.MAC{2, 0, 0, 0, 0, 67}
	other.claim("f1", mac, "10.1.0.70/24")
	eventually(t, "the record is refused", func() bool { return len(here.Alarms()) == 1 })
	block := netip.MustParsePrefix("10.1.0.64/28")
	grant(other.node, sharedOfBoth(), block, other.node.ID())
	eventually(t, "the record counts", func() bool { return here.leadsTo(mac) == other.vtep() && len(here.Alarms()) == 0 })
	grant(other.node, sharedOfBoth(), netip.MustParsePrefix("10.1.0.70/32"), here.node.ID()) // carved out of it
	eventually(t, "the record is refused again", func() bool { return here.leadsTo(mac) == "" })
	cancel()
	must(t, <-done)
}

// A host that has lost its copy of the facts cannot judge, and traffic goes on.
func TestWithoutFactsNothingIsTakenAway(t *testing.T) {
	here, victim, _, mac := victims(t, false)
	here.look(t)
	here.Facts = (&clustertest.Cluster{}).Node("here")
	here.look(t)
	if got := here.leadsTo(mac); got != victim.vtep() {
		t.Errorf("frames for the victim go to %q", got)
	}
}
