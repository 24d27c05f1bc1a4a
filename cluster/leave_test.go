package cluster

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLeave(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		nodes int
		which func(t *testing.T, nodes []*testNode) *testNode
	}{
		{"the leader of three", 3, func(t *testing.T, nodes []*testNode) *testNode { return leader(t, nodes...) }},
		{"the last of three", 3, func(_ *testing.T, nodes []*testNode) *testNode { return nodes[2] }},
		{"the only voter of two", 2, func(_ *testing.T, nodes []*testNode) *testNode { return nodes[0] }},
		{"the other of two", 2, func(_ *testing.T, nodes []*testNode) *testNode { return nodes[1] }},
	} {
		t.Run(c.what, func(t *testing.T) {
			nodes := newLab(t).hosts(c.nodes)
			allUp(nodes)
			oneCluster(t, nodes...)
			leaves := c.which(t, nodes)
			var rest []*testNode
			for _, n := range nodes {
				if n != leaves {
					rest = append(rest, n)
				}
			}
			old := leaves.c.ID()
			leaves.write(t, "attend/net/"+old, "{}")
			leaves.write(t, "block/net/10.0.0.0/26", `{"v":1,"node":"`+old+`"}`)
			if err := leaves.c.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := leaves.c.Leave(t.Context()); err != nil {
				t.Errorf("leave again: %v", err)
			}
			if s := leaves.c.Status(); s.State != Left {
				t.Errorf("state %s after leaving", s.State)
			}
			oneCluster(t, rest...)
			rest[0].write(t, "after", "1")
			view := rest[0].c.View()
			for _, key := range []string{"node/" + old, "attend/net/" + old, "block/net/10.0.0.0/26"} {
				if f, ok := view.Get(key); ok {
					t.Errorf("%s is still there: %s", key, f.Value)
				}
			}
			if err := leaves.c.Rejoin(t.Context()); err != nil {
				t.Fatal(err)
			}
			leaves.again()
			if leaves.c.ID() == old {
				t.Error("it comes back under its old identity")
			}
			oneCluster(t, nodes...)
		})
	}
}

func TestTheLastOneLeaves(t *testing.T) {
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	cluster := n.c.cluster()
	if err := n.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.up()
	oneCluster(t, n)
	if n.c.cluster() == cluster {
		t.Error("it is in the cluster that it has left")
	}
}

func TestForget(t *testing.T) {
	nodes := threeUp(t)
	gone, left := nodes[2], nodes[:2]
	old := gone.c.ID()
	for _, c := range []struct{ who, want string }{
		{"node-4", "node node-4 (127.0.0.4) is alive: run `carrick leave` on it, or stop it first"},
		{"node-2", "node node-2 is this one: `carrick leave` takes it out of the cluster"},
		{"db", `no node is called "db"; there are `},
	} {
		if err := nodes[0].c.Forget(t.Context(), c.who); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("forget %s: %v, want %s", c.who, err, c.want)
		}
	}
	net, err := JoinNetwork(t.Context(), gone.c, Network{Name: "blue", Mode: "overlay", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/16")}}}, Defaults{MTU: 1450})
	if err != nil {
		t.Fatal(err)
	}
	gone.stop()
	if err := nodes[1].c.Forget(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	view := nodes[1].c.View()
	if _, ok := view.Network(net.ID); ok {
		t.Error("the network is there although its last node is gone")
	}
	if how, fenced := view.Fenced(old); !fenced || how != "forgotten" {
		t.Errorf("the identity is not fenced: %q", how)
	}
	oneCluster(t, left...)
	gone.up()
	eventually(t, "the forgotten one is refused", func() bool {
		s := gone.c.Status()
		return s.State == Refused && strings.Contains(s.Reason, "forgotten by the cluster")
	})
	if _, err := gone.c.Propose(t.Context(), Txn{Then: []Op{{Key: "a", Value: []byte("1")}}}); !errors.Is(err, ErrNotMember) {
		t.Errorf("the forgotten one writes: %v", err)
	}
	oneCluster(t, left...)
	if err := gone.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone.again()
	oneCluster(t, nodes...)
}

// A node is forgotten while it runs, by somebody who could not reach it. Nobody listens to it any more, whatever it says.
func TestForgottenWhileItRuns(t *testing.T) {
	t.Parallel()
	nodes := threeUp(t)
	gone, left := nodes[2], nodes[:2]
	old := gone.c.ID()
	says := func(n *testNode, key string) bool {
		for _, row := range n.c.Remote("net") {
			if row.Node.ID == old && row.Records[key] != nil {
				return true
			}
		}
		return false
	}
	for _, n := range nodes {
		n.c.Attend("net", true)
	}
	gone.c.Publish("net", "before", []byte("1"))
	for _, n := range left {
		eventually(t, n.cfg.Name+" hears it before", func() bool { return says(n, "before") })
	}
	txn, err := PlanForget(left[0].c.View(), old)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := left[0].c.Propose(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
	for _, n := range left {
		eventually(t, n.cfg.Name+" drops what it said", func() bool { return !says(n, "before") })
	}
	gone.c.Publish("net", "after", []byte("2"))
	eventually(t, "it knows", func() bool { return gone.state() == Refused })
	if err := gone.c.Undisputed(t.Context()); !errors.Is(err, ErrNotMember) {
		t.Errorf("it may hand out addresses: %v", err)
	}
	for begin := time.Now(); time.Since(begin) < 2*time.Second; pause(t.Context(), 20*time.Millisecond) {
		for _, n := range left {
			if says(n, "before") || says(n, "after") {
				t.Fatalf("%s listens to it", n.cfg.Name)
			}
			if _, _, ok := n.c.gossip.contacts.live(old); ok {
				t.Fatalf("%s asks it", n.cfg.Name)
			}
		}
	}
	oneCluster(t, left...)
	if err := gone.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone.again()
	oneCluster(t, nodes...)
}
