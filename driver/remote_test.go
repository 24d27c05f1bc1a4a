package driver

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

func TestWhatOthersHaveArrives(t *testing.T) {
	c := &clustertest.Cluster{}
	h1, h2 := newHost(t, c, "host1"), newHost(t, c, "host2")
	must(t, h1.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	must(t, h2.CreateNetwork(t.Context(), netRequest("shared", "b2", "10.1.0.0/24"))) // Docker's ids differ
	mac, err := h1.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	_, err = h2.CreateEndpoint(t.Context(), epRequest("b2", "e2", "10.1.0.3/24"))
	must(t, err)

	entry := mac.String() + " dev " + kernel.Name("ckb", id("b2")) + " dst 192.0.2.1"
	if !strings.Contains(h2.kernel.String(), entry) {
		t.Errorf("host2 has no entry %q:\n%s", entry, h2.kernel.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wake, _ := h2.node.Watch()
	go func() { done <- h2.Run(ctx, wake) }()
	must(t, h1.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
	eventually(t, "host2 forgets the endpoint of host1", func() bool { return !strings.Contains(h2.kernel.String(), mac.String()) })
	cancel()
	must(t, <-done)
}

func TestNobodyIsBelievedEverything(t *testing.T) {
	c := &clustertest.Cluster{}
	h, liar := newHost(t, c, "host1"), newHost(t, c, "liar")
	log, lines := logtest.NewNullLogger()
	h.Driver.Logger = log
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	record := func(mac byte, addr string) []byte {
		return encodeRecord(Endpoint{MAC: kernel.MAC{2, 5: mac}, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}})
	}
	// Of that part of the subnet that is the liar's.
	grant(liar.node, sharedID("10.1.0.0/24"), netip.MustParsePrefix("10.1.0.64/28"), liar.node.ID())
	for key, value := range map[string][]byte{
		id("b1"):  record(1, "10.1.0.66/24"),
		id("b2"):  record(2, "10.1.0.1/24"),                                                                   // the gateway
		id("b3"):  record(3, "10.1.0.255/24"),                                                                 // everybody
		id("b4"):  record(4, "10.9.0.4/24"),                                                                   // elsewhere
		id("b5"):  record(5, "10.1.0.2/24"),                                                                   // ours
		id("b6"):  encodeRecord(Endpoint{Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.65/24")}}),       // all unknown frames
		id("b7"):  encodeRecord(Endpoint{MAC: kernel.MAC{1}, Addrs: epRequest("", "", "10.1.0.67/24").Addrs}), // a group
		"\x1b[2J": record(8, "10.1.0.68/24"),
	} {
		liar.node.Publish(sharedID("10.1.0.0/24"), key, value)
	}
	for range 3 {
		h.reconcile(t.Context(), func(*network) bool { return true })
		h.Networks()
	}
	if got := h.behind("a1"); len(got) != 1 || got[0].ID != id("b1") {
		t.Errorf("believed %+v", got)
	}
	if state := h.kernel.String(); !strings.Contains(state, "02:00:00:00:00:01") {
		t.Errorf("the one that is right is not there:\n%s", state)
	}
	said := 0
	for _, line := range lines.AllEntries() {
		if line.Level <= logrus.WarnLevel {
			said++
		}
	}
	if want := "(and 6 more)"; said != 1 || !strings.Contains(fmt.Sprint(h.Alarms()), want) {
		t.Errorf("%d lines in the log, alarms %q: want one line, and %q", said, h.Alarms(), want)
	}
}

func TestEndpointThatComesBackIsKnownAgain(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for i, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
		_, err := host.CreateEndpoint(t.Context(), epRequest("a1", fmt.Sprint("e", i), fmt.Sprintf("10.1.0.%d/24", 2+i)))
		must(t, err)
	}
	for want, call := range []func() error{
		func() error { return h.Leave(t.Context(), id("a1"), id("e0")) },
		func() error { _, err := h.Join(t.Context(), id("a1"), id("e0"), ""); return err },
	} {
		must(t, call())
		if got := len(other.behind("a1")); got != want {
			t.Errorf("host2 knows %d endpoints of host1, want %d", got, want)
		}
	}
}

func TestNetworkThatIsBusyIsNotForgotten(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	for i, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
		_, err := host.CreateEndpoint(t.Context(), epRequest("a1", fmt.Sprint("e", i), fmt.Sprintf("10.1.0.%d/24", 2+i)))
		must(t, err)
	}
	busy := h.networks[id("a1")]
	must(t, busy.turn.take(t.Context()))
	h.reconcile(t.Context(), func(*network) bool { return true })
	entry := " dst 192.0.2.2"
	if strings.Contains(h.kernel.String(), entry) {
		t.Fatal("somebody else's turn was taken")
	}
	busy.turn.give()
	h.reconcile(t.Context(), func(nw *network) bool { return nw.missed })
	if !strings.Contains(h.kernel.String(), entry) {
		t.Errorf("what was missed did not come later:\n%s", h.kernel.String())
	}
}

// deaf is a node that has lost what it knew of the others and hears of them again.
type deaf struct {
	*clustertest.Node
	heard atomic.Bool
}

func (n *deaf) Remote(network string) []cluster.Row {
	if !n.heard.Load() {
		return nil
	}
	return n.Node.Remote(network)
}

func (n *deaf) Sync(ctx context.Context, network string) error {
	n.heard.Store(true)
	return n.Node.Sync(ctx, network)
}

// twoInStep are two hosts with a network, an endpoint on each, and the first knows of the other's.
func twoInStep(t *testing.T) (h, other *host) {
	t.Helper()
	c := &clustertest.Cluster{}
	h, other = newHost(t, c, "host1"), newHost(t, c, "host2")
	for i, host := range []*host{h, other} {
		must(t, host.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
		_, err := host.CreateEndpoint(t.Context(), epRequest("a1", fmt.Sprint("e", i), fmt.Sprintf("10.1.0.%d/24", 2+i)))
		must(t, err)
	}
	h.reconcile(t.Context(), func(*network) bool { return true })
	return h, other
}

func TestTrafficGoesOnUntilTheOthersAreHeardAgain(t *testing.T) {
	h, other := twoInStep(t)
	before := h.kernel.String()
	if !strings.Contains(before, " dst 192.0.2.2") {
		t.Fatalf("nothing of host2 in\n%s", before)
	}
	config := h.Config
	config.Records = &deaf{Node: h.node}
	h.Driver = New(config)
	must(t, h.Restore(t.Context()))
	h.reconcile(t.Context(), func(*network) bool { return true })
	if after := h.kernel.String(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	must(t, other.DeleteEndpoint(t.Context(), id("a1"), id("e1")))
	h.hear(t.Context())
	if after := h.kernel.String(); strings.Contains(after, " dst 192.0.2.2") {
		t.Errorf("what is gone stays:\n%s", after)
	}
}

// TestWhatIsHeard: all that others tell and that can be read, where this host listens.
func TestWhatIsHeard(t *testing.T) {
	c := &clustertest.Cluster{}
	h, other := newHost(t, c, "host1"), newHost(t, c, "host2")
	shared := sharedID("10.1.0.0/24")
	must(t, h.CreateNetwork(t.Context(), netRequest("shared", "a1", "10.1.0.0/24")))
	other.node.Publish(shared, id("b1"), encodeRecord(Endpoint{MAC: kernel.MAC{2, 5: 1}, Addrs: epRequest("", "", "10.1.0.66/24").Addrs}))
	other.node.Publish(shared, id("b2"), []byte("garbage"))
	if all, heard := h.Heard(shared); heard || len(all) > 0 {
		t.Errorf("without an endpoint: %+v", all)
	}
	_, err := h.CreateEndpoint(t.Context(), epRequest("a1", "e1", "10.1.0.2/24"))
	must(t, err)
	all, heard := h.Heard(shared)
	if !heard || len(all) != 1 || all[0].ID != id("b1") || all[0].Node != other.node.ID() || all[0].Addrs[0].String() != "10.1.0.66/24" {
		t.Errorf("%v: %+v", heard, all)
	}
	if all, heard := h.Heard(""); heard || len(all) > 0 {
		t.Errorf("of no network: %+v", all)
	}
	if modes := h.ModeOf(); len(modes) != 1 || modes[id("a1")] != "shared" {
		t.Errorf("modes %v", modes)
	}
}
