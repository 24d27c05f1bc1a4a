package driver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

// The guard is kept while there is one to keep, without a network of ours; what fails is an alarm, and tried again.
func TestTheGuardIsKept(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	state := kernel.State{}
	rules := func(port uint16) kernel.State {
		return kernel.State{Rules: []kernel.Rule{{Chain: kernel.Forward, UDPPort: port, Verdict: kernel.Drop}}}
	}
	h.Guard = func() kernel.State { return state }
	must(t, h.KeepGuard(t.Context()))
	if h.kernel.String() != "" {
		t.Errorf("without a guard there is:\n%s", h.kernel)
	}
	state = rules(1)
	h.kernel.FailNth(1, errPlanned)
	if err := h.KeepGuard(t.Context()); !errors.Is(err, errPlanned) || !strings.Contains(strings.Join(h.Alarms(), ""), "forged frames") {
		t.Errorf("the kernel refused: said %v, alarms %q", err, h.Alarms())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	wake, _ := h.node.Watch()
	go func() { done <- h.Run(ctx, wake) }()
	holds := func(port string) func() bool {
		return func() bool { return strings.Contains(h.kernel.String(), "forward-"+port+" drop") }
	}
	eventually(t, "the guard is tried again", holds("1"))
	eventually(t, "the alarm ends", func() bool { return len(h.Alarms()) == 0 })
	cancel()
	must(t, <-done)

	// A start brings it to what is wanted by then, and one without a guard clears it away.
	config := h.Config
	state = rules(2)
	h.Driver = New(config)
	must(t, h.Restore(t.Context()))
	if !holds("2")() {
		t.Errorf("after a start:\n%s", h.kernel)
	}
	h.restart(t)
	if h.kernel.String() != "" {
		t.Errorf("a start without a guard leaves:\n%s", h.kernel)
	}
}

// A node that leaves is asked once, and must not wait for Run.
func TestTheGuardGoesAtOnce(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	state := kernel.State{Rules: []kernel.Rule{{Chain: kernel.Forward, UDPPort: 1, Verdict: kernel.Drop}}}
	h.Guard = func() kernel.State { return state }
	must(t, h.KeepGuard(t.Context()))
	state = kernel.State{}
	must(t, h.KeepGuard(t.Context()))
	if h.kernel.String() != "" {
		t.Errorf("left:\n%s", h.kernel)
	}
}

// The end of the plugin leaves nothing on a host without networks.
func TestTheGuardGoesWithThePlugin(t *testing.T) {
	h := newHost(t, &clustertest.Cluster{}, "host1")
	h.Guard = func() kernel.State {
		return kernel.State{Rules: []kernel.Rule{{Chain: kernel.Forward, UDPPort: 1, Verdict: kernel.Drop}}}
	}
	must(t, h.KeepGuard(t.Context()))
	must(t, h.write(Network{Version: recordVersion, ID: "n1", Mode: "overlay"}))
	h.read()
	must(t, h.DropGuard(t.Context()))
	if h.kernel.String() == "" {
		t.Error("a host with a network is left without a guard")
	}
	clear(h.networks)
	must(t, h.DropGuard(t.Context()))
	if h.kernel.String() != "" {
		t.Errorf("left:\n%s", h.kernel)
	}
}
