package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// Who joins when the beginning of the log is gone gets a snapshot; a restart begins with one; a snapshot that cannot be
// read makes a new node, and an older one does not hide what the log has.
func TestSnapshotsCarryNodes(t *testing.T) {
	l := newLab(t)
	a := l.host()
	a.cfg.Join = []string{a.at()}
	a.up()
	oneCluster(t, a)
	for i := range 50 {
		a.write(t, fmt.Sprintf("k/%d", i), "v")
	}
	if _, err := a.c.Propose(t.Context(), Txn{Then: []Op{{Key: "k/7"}}}); err != nil {
		t.Fatal(err)
	}
	if err := a.c.running().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.write(t, "k/after", "v")
	last, _ := a.c.store.LastIndex()
	if err := a.c.store.DeleteRange(1, last-1); err != nil { // as raft does it after 2048 entries
		t.Fatal(err)
	}
	b := l.host(a.at()).up()
	oneCluster(t, a, b)
	same := func() bool { return dump(t, a.c.fsm) == dump(t, b.c.fsm) }
	eventually(t, "the new one has the same facts, marks and requests", same)
	for _, n := range []*testNode{a, b} {
		n.stop()
		n.up()
	}
	oneCluster(t, a, b)
	eventually(t, "they are the same after a restart", same)
	if !b.has("k/after", "v") || b.has("k/7", "v") {
		t.Error("facts are missing, or back")
	}
	b.stop()
	damageSnapshots(t, b)
	old := b.c.ID()
	b.up()
	if b.c.ID() == old {
		t.Error("a node whose snapshot is damaged goes on with a part of the log")
	}
}

func damageSnapshots(t *testing.T, n *testNode) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(n.cfg.Dir, snapshotDir, "*"))
	if err != nil || len(states) == 0 {
		t.Fatalf("no snapshots: %v", err)
	}
	for _, path := range states {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Three nodes make, join and leave networks of the same names at the same time.
func TestNetworksUnderConcurrency(t *testing.T) {
	nodes := threeUp(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	names := []string{"blue", "green", "red"}
	var g errgroup.Group
	pools := make([]map[string]netip.Prefix, len(nodes))
	for i, n := range nodes {
		pools[i] = map[string]netip.Prefix{}
		g.Go(func() error {
			for round := range 3 {
				for k, name := range names {
					candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100*k + 10*i + round), 0, 0}), 16)
					pool, err := ReservePool(ctx, n.c, name, candidate)
					if err != nil {
						return fmt.Errorf("%s: reserve %s: %w", n.cfg.Name, name, err)
					}
					want := Network{Name: name, Mode: "overlay", Subnets: []Subnet{{Prefix: pool}}}
					net, err := JoinNetwork(ctx, n.c, want, Defaults{MTU: 1450})
					if err != nil && !strings.Contains(err.Error(), "this request") {
						// The last one may have left in between, and the name has another subnet now.
						return fmt.Errorf("%s: join %s: %w", n.cfg.Name, name, err)
					}
					pools[i][name] = pool
					if err == nil && round < 2 {
						if err := LeaveNetwork(ctx, n.c, net.ID, n.c.ID()); err != nil {
							return fmt.Errorf("%s: leave %s: %w", n.cfg.Name, name, err)
						}
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.write(t, "barrier/"+n.cfg.Name, "1")
	}
	eventually(t, "all see the same", func() bool {
		return dump(t, nodes[0].c.fsm) == dump(t, nodes[1].c.fsm) && dump(t, nodes[0].c.fsm) == dump(t, nodes[2].c.fsm)
	})
	view := nodes[0].c.View()
	vnis := map[uint32]string{}
	for _, net := range view.Networks() {
		if other, taken := vnis[net.VNI]; taken {
			t.Errorf("%s and %s have VNI %d", net.Name, other, net.VNI)
		}
		vnis[net.VNI] = net.Name
		if len(view.Attendants(net.ID)) == 0 {
			t.Errorf("%s has no node", net.Name)
		}
	}
	for _, n := range nodes {
		for _, net := range view.Networks() {
			if err := LeaveNetwork(ctx, n.c, net.ID, n.c.ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	view = nodes[2].c.View()
	for _, below := range []string{"network/", "attend/", "block/", "reserve/"} {
		for f := range view.Prefix(below) {
			t.Errorf("%s is left although nobody is in a network", f.Key)
		}
	}
}

// An answer that is lost does not make a write happen twice.
func TestRepeatedProposalIsOne(t *testing.T) {
	nodes := newLab(t).hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	data, err := encodeEntry(entry{ID: "same", Txn: Txn{If: []Cond{{"n", nodes[1].c.View().Index()}}, Then: []Op{{"n", []byte("1")}}}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := nodes[1].c.submit(t.Context(), data)
	if err != nil || first.Failed {
		t.Fatalf("%+v, %v", first, err)
	}
	nodes[0].write(t, "n", "2")
	again, err := nodes[1].c.submit(t.Context(), data)
	if err != nil || again != first {
		t.Errorf("again: %+v, %v, want %+v", again, err, first)
	}
	if !nodes[0].has("n", "2") {
		t.Error("it was applied again")
	}
}

func TestConflictBringsTheViewUpToDate(t *testing.T) {
	nodes := newLab(t).hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	old := nodes[1].c.View()
	nodes[0].write(t, "n", "1")
	view, err := nodes[1].c.Propose(t.Context(), Txn{If: []Cond{{"n", old.Index()}}, Then: []Op{{"n", []byte("2")}}})
	if !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v, want ErrConflict", err)
	}
	if f, ok := view.Get("n"); !ok || string(f.Value) != "1" {
		t.Errorf("the view to retry from has %q: the retry would fail again", f.Value)
	}
}

func TestRivalFoundersFoundNothing(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	a.cfg.Join, b.cfg.Join = []string{a.at(), b.at()}, []string{b.at(), a.at()}
	a.up()
	b.up()
	for _, n := range []*testNode{a, b} {
		eventually(t, n.cfg.Name+" says why", func() bool {
			return strings.Contains(n.c.Status().Reason, "would found one as well: JOIN must be the same line on every host")
		})
	}
	if a.c.cluster() != "" || b.c.cluster() != "" {
		t.Error("a cluster was founded")
	}
	a.stop()
	a.cfg.Join = b.cfg.Join
	a.up()
	oneCluster(t, a, b)
}

func TestNothingRunsAfterRun(t *testing.T) {
	nodes := threeUp(t)
	nodes[1].write(t, "a", "1")
	for _, n := range nodes {
		n.stop()
	}
	var left string
	eventually(t, "nothing of ours or of raft runs", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		for _, stack := range strings.Split(string(stacks), "\n\n") {
			if strings.Contains(stack, "hashicorp/raft.") || strings.Contains(stack, "carrick/cluster.(*") {
				left = stack
				return false
			}
		}
		left = ""
		return true
	})
	if left != "" {
		t.Error(left)
	}
}
