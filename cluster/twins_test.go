package cluster

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// cloned is a host with a copy of another's disk, and an address of its own. The other one must not be up.
func cloned(t *testing.T, of *testNode) *testNode {
	t.Helper()
	c := &testNode{t: t, lab: of.lab, kv: newMemKV(), cfg: of.cfg}
	c.kv.data = maps.Clone(of.kv.data)
	c.cfg.Log, c.cfg.Dir = c.kv, t.TempDir()
	if err := os.CopyFS(c.cfg.Dir, os.DirFS(of.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	c.cfg.Advertise = of.lab.host().cfg.Advertise
	c.cfg.Logger = testLogger(t, "clone")
	return c
}

// A host is cloned while the cluster runs. Everybody knows within seconds, neither of the two decides or hands out anything,
// the others go on and keep to the one that they knew first. The clone leaves, which takes nothing from the original, and
// becomes a node of its own; the original is well again by itself.
func TestClonedHost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	nodes := l.hosts(4)
	allUp(nodes)
	oneCluster(t, nodes...)
	original := leader(t, nodes...) // the worst one to be cloned
	original.stop()
	clone := cloned(t, original)
	original.up()
	oneCluster(t, nodes...)
	id := original.c.ID()
	if err := original.c.Undisputed(t.Context()); err != nil {
		t.Fatal(err)
	}
	original.c.Attend("net", true)
	original.c.Publish("net", "endpoint", []byte("of the original"))
	begin := time.Now()
	clone.up()
	clone.c.Attend("net", true)
	clone.c.Publish("net", "endpoint", []byte("of the clone"))
	for n, other := range map[*testNode]*testNode{original: clone, clone: original} {
		eventually(t, n.cfg.Advertise.String()+" is quarantined", func() bool {
			s := n.c.Status()
			return s.State == Quarantined && strings.Contains(s.Reason, other.cfg.Advertise.String()+" has the identity of this node") &&
				alarmed(n, other.cfg.Advertise.String()+" has the identity of this node too")
		})
		if err := n.c.Undisputed(t.Context()); err == nil || !strings.Contains(err.Error(), "so neither gives out addresses") {
			t.Errorf("%s may hand out addresses: %v", n.cfg.Advertise, err)
		}
		if _, err := n.c.Propose(t.Context(), Txn{Then: []Op{{Key: "a", Value: []byte("1")}}}); err == nil {
			t.Errorf("%s writes facts", n.cfg.Advertise)
		}
	}
	// Both say it themselves. One of the others has to; that each of them does is not promised: one was seen that never did.
	eventually(t, "another node names both", func() bool {
		return slices.ContainsFunc(nodes, func(n *testNode) bool {
			return n != original && alarmed(n, original.cfg.Advertise.String()+" and "+clone.cfg.Advertise.String()+" have the same identity")
		})
	})
	var rest []*testNode
	for _, n := range nodes {
		if n == original {
			continue
		}
		rest = append(rest, n)
		n.c.Attend("net", true)
		eventually(t, n.cfg.Name+" has what the original says", func() bool {
			rows := n.c.Remote("net")
			i := slices.IndexFunc(rows, func(r Row) bool { return r.Node.ID == id })
			return i >= 0 && rows[i].Node.Addr == original.cfg.Advertise && string(rows[i].Records["endpoint"]) == "of the original"
		})
	}
	t.Logf("all of this took %v", time.Since(begin).Round(time.Millisecond))
	rest[0].write(t, "a", "2")
	if r, _ := rest[0].c.View().registration(id); r.Addr != original.cfg.Advertise {
		t.Errorf("the facts have it at %s", r.Addr)
	}

	clone.cfg.Name = "clone" // as the operator must, for names are unique
	if err := clone.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	clone.again()
	oneCluster(t, append(nodes, clone)...)
	if original.c.ID() != id || clone.c.ID() == id {
		t.Error("the wrong one has another identity")
	}
	if err := original.c.Undisputed(t.Context()); err != nil {
		t.Error(err)
	}
	original.write(t, "a", "3")
	eventually(t, "no alarm is left", func() bool {
		for _, n := range append(nodes, clone) {
			if alarmed(n, "identity") {
				return false
			}
		}
		return true
	})
}

// The only voter of two is cloned: nothing is decided until it is clear who is who.
func TestClonedOnlyVoter(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	nodes := l.hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	original, other := nodes[0], nodes[1]
	original.stop()
	clone := cloned(t, original)
	clone.cfg.Name = "clone"
	original.up()
	oneCluster(t, nodes...)
	clone.up()
	for _, n := range []*testNode{original, clone} {
		eventually(t, n.cfg.Advertise.String()+" is quarantined", func() bool { return n.state() == Quarantined })
	}
	if err := clone.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	clone.again()
	oneCluster(t, original, other, clone)
	if r, _ := other.c.View().registration(original.c.ID()); r.Addr != original.cfg.Advertise || r.Name != original.cfg.Name {
		t.Errorf("the facts have the original as %+v", r)
	}
}

// A host that has dialled itself, through an address that is not its own to its knowledge, has no rival.
func TestOwnAddressIsNoTwin(t *testing.T) {
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := n.c.gossip.who(ctx, netip.AddrPortFrom(n.cfg.Advertise, n.cfg.RaftPort), n.c.ID())
	if seen != elsewhere {
		t.Errorf("seen %d", seen)
	}
}
