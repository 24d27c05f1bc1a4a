package ipam

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// A host comes back as another node. The addresses that its containers have are its own again, those of blocks that nobody
// has and those that their new owner has not given away; one that another host has given is that one's, and is said.
func TestReown(t *testing.T) {
	w := newWorld()
	old, other := newHost(t, w.node("a")), newHost(t, w.node("c"))
	pool, subnet, err := old.create("net1", PoolRequest{Pool: "10.1.0.0/16"}, true)
	if err != nil {
		t.Fatal(err)
	}
	theirs, _, err := other.create("net1", PoolRequest{Pool: "10.1.0.0/16"}, true)
	if err != nil {
		t.Fatal(err)
	}
	shared := cluster.NetworkID("", []cluster.Subnet{subnet})
	mine := map[string]string{"free": addressOf(t, old, pool, "", 1)}
	for n, want := range map[string]string{"idle": "10.1.240.5", "given": "10.1.240.9"} {
		mine[n] = addressOf(t, old, pool, want, len(mine)+1)
	}
	for n, addr := range mine {
		if err := old.Use(t.Context(), "net1", n, []netip.Addr{netip.MustParseAddr(addr)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.LeaveNetwork(t.Context(), old.node, shared, "a"); err != nil { // as forget does
		t.Fatal(err)
	}
	addressOf(t, other, theirs, mine["given"], 9) // claims the block that "idle" lies in, too
	old.node = w.node("b")
	old.restart(false)
	if err := cluster.ReattendNetwork(t.Context(), old.node, shared, network(t, w, shared).VNI); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := other.keep(ctx); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			<-time.After(lookEvery)
		}
		done <- nil
	}()
	if err := old.Reown(ctx, "net1"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for n, want := range map[string]string{"free": "b", "idle": "b", "given": "c"} {
		owner, _ := old.node.View().Owner(shared, netip.MustParseAddr(mine[n]))
		if owner.Node != want {
			t.Errorf("%s %s: is of %q, want %q", n, mine[n], owner.Node, want)
		}
	}
	alarms := strings.Join(old.Alarms(), "\n")
	if !strings.Contains(alarms, "address "+mine["given"]+" of endpoint given is not this host's any more, it is that of host c") || strings.Count(alarms, "not this host's") != 1 {
		t.Errorf("alarms: %s", alarms)
	}
	for range 40 { // nothing that is in use is given out
		got := addressOf(t, old, pool, "", 1000+len(mine))
		for n, addr := range mine {
			if got == addr {
				t.Fatalf("%s is given out again, which %s has", got, n)
			}
		}
		mine[got] = got
	}
}

func network(t *testing.T, w *world, shared string) cluster.Network {
	t.Helper()
	n, ok := w.head().Network(shared)
	if !ok {
		t.Fatal("no network")
	}
	return n
}
