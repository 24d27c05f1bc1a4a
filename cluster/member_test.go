package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

func threeUp(t *testing.T) []*testNode {
	t.Helper()
	nodes := newLab(t).hosts(3)
	allUp(nodes)
	oneCluster(t, nodes...)
	return nodes
}

func TestRestartOfEachAndOfAll(t *testing.T) {
	nodes := threeUp(t)
	nodes[0].write(t, "a/b", "before")
	cluster, ids := nodes[0].c.cluster(), map[string]bool{}
	for _, n := range nodes {
		ids[n.c.ID()] = true
		n.stop()
		n.cfg.Join = nil // not needed by who is in a cluster
		n.up()
		oneCluster(t, nodes...)
	}
	for _, n := range nodes {
		eventually(t, n.cfg.Name+" has seen the fact", func() bool { return n.has("a/b", "before") })
	}
	for _, n := range nodes {
		n.stop()
	}
	allUp(nodes)
	for _, n := range nodes {
		if !n.has("a/b", "before") {
			t.Errorf("%s: has not the fact at once after the restart, without the others", n.cfg.Name)
		}
	}
	oneCluster(t, nodes...)
	for _, n := range nodes {
		if n.c.cluster() != cluster || !ids[n.c.ID()] {
			t.Errorf("%s: is node %s of cluster %s after the restart", n.cfg.Name, n.c.ID(), n.c.cluster())
		}
		n.write(t, "a/"+n.cfg.Name, "after")
	}
}

func TestOthersGoOnWithoutTheLeader(t *testing.T) {
	nodes := threeUp(t)
	lost := leader(t, nodes...)
	lost.stop()
	var rest []*testNode
	for _, n := range nodes {
		if n != lost {
			rest = append(rest, n)
		}
	}
	begin := time.Now()
	for i, n := range rest {
		n.write(t, "after", fmt.Sprint(i))
	}
	t.Logf("writes after the leader was lost took %v", time.Since(begin).Round(time.Millisecond))
	lost.up()
	eventually(t, "the lost one has what was written", func() bool { return lost.has("after", "1") })
}

func TestNoQuorumSaysWhoIsMissing(t *testing.T) {
	nodes := threeUp(t)
	nodes[0].write(t, "a", "1")
	nodes[1].stop()
	nodes[2].stop()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := nodes[0].c.Propose(ctx, Txn{Then: []Op{{Key: "a", Value: []byte("2")}}})
	if !errors.Is(err, ErrNoQuorum) {
		t.Fatalf("got %v, want ErrNoQuorum", err)
	}
	for _, want := range []string{"2 of 3 voters do not answer", "node-3 (127.0.0.3)", "node-4 (127.0.0.4)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if !nodes[0].has("a", "1") {
		t.Error("the fact cannot be read without a quorum")
	}
	eventually(t, "Status says that there is no quorum", func() bool { return !nodes[0].c.Status().Quorum })
}

func TestCallersWishToStopIsNoLackOfQuorum(t *testing.T) {
	nodes := newLab(t).hosts(2)
	nodes[0].up() // waits for the other
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := nodes[0].c.Propose(ctx, Txn{Then: []Op{{Key: "a", Value: []byte("2")}}})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoQuorum) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestNotYetAMemberSaysWhatItWaitsFor(t *testing.T) {
	nodes := newLab(t).hosts(2)
	nodes[0].up()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := nodes[0].c.Propose(ctx, Txn{Then: []Op{{Key: "a", Value: []byte("2")}}})
	if !errors.Is(err, ErrNotMember) || !strings.Contains(err.Error(), "founding: waiting for 127.0.0.3") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyJoinWaits(t *testing.T) {
	n := newLab(t).host().up()
	eventually(t, "it says that it waits", func() bool {
		s := n.c.Status()
		return s.State == Joining && strings.Contains(s.Reason, "JOIN is empty")
	})
	<-time.After(3 * quick().found)
	if s := n.c.Status(); s.State != Joining || s.Cluster != "" {
		t.Errorf("state %s, cluster %q: it must go on waiting", s.State, s.Cluster)
	}
}

func TestTwoNodesLoseTheOneWithoutAVote(t *testing.T) {
	nodes := newLab(t).hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	nodes[1].write(t, "a", "1")
	nodes[1].stop()
	nodes[0].write(t, "a", "2")
	nodes[1].up()
	eventually(t, "the other catches up", func() bool { return nodes[1].has("a", "2") })
	oneCluster(t, nodes...)
}

func TestCounterOfAllNodesIsExact(t *testing.T) {
	nodes := newLab(t).hosts(4) // one of them has no vote
	allUp(nodes)
	oneCluster(t, nodes...)
	const each = 20
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error {
			view := n.c.View()
			for done := 0; done < each; {
				f, _ := view.Get("counter")
				have, _ := strconv.Atoi(string(f.Value))
				next, err := n.c.Propose(ctx, Txn{
					If:   []Cond{{"counter", view.Index()}},
					Then: []Op{{"counter", []byte(strconv.Itoa(have + 1))}},
				})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, ErrConflict):
					return err
				}
				view = next
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(each * len(nodes))
	for _, n := range nodes {
		eventually(t, n.cfg.Name+" counts "+want, func() bool { return n.has("counter", want) })
	}
}

func TestOneNameTwice(t *testing.T) {
	l := newLab(t)
	nodes := l.hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	second := l.host(nodes[0].at())
	second.cfg.Name = nodes[1].cfg.Name
	second.up()
	eventually(t, "the second of one name is refused", func() bool {
		s := second.c.Status()
		return s.State == Refused && strings.Contains(s.Reason, "run `carrick forget node-3` on a member first") &&
			strings.Contains(s.Reason, "set NODE to another name")
	})
	nodes[1].stop()
	if err := nodes[0].c.Forget(t.Context(), nodes[1].cfg.Name); err != nil {
		t.Fatal(err)
	}
	oneCluster(t, nodes[0], second)
}

func TestLostDiskIsANewNode(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(*testNode){
		"log":      func(n *testNode) { n.kv.data = map[string][]byte{} },
		"key":      func(n *testNode) { os.Remove(filepath.Join(n.cfg.Dir, keyFile)) },
		"one line": func(n *testNode) { delete(n.kv.data, logKey(3)) },
		"all":      func(n *testNode) { n.kv.data = map[string][]byte{}; os.RemoveAll(n.cfg.Dir) },
	} {
		t.Run(what, func(t *testing.T) {
			nodes := threeUp(t)
			lost := nodes[2]
			lost.write(t, "a", "1")
			old := lost.c.ID()
			lost.stop()
			lose(lost)
			lost.up()
			if lost.c.ID() == old {
				t.Fatal("it is the same node, which may vote again where it has voted")
			}
			eventually(t, "it is refused under the name of the old one", func() bool { return lost.state() == Refused })
			if err := nodes[0].c.Forget(t.Context(), lost.cfg.Name); err != nil {
				t.Fatal(err)
			}
			oneCluster(t, nodes...)
			eventually(t, "it has the facts", func() bool { return lost.has("a", "1") })
		})
	}
}

func TestTwoClustersNeverMerge(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	a.cfg.Join, b.cfg.Join = []string{a.at()}, []string{b.at()}
	a.up()
	b.up()
	oneCluster(t, a)
	oneCluster(t, b)
	a.stop()
	a.cfg.Join = []string{a.at(), b.at()}
	a.up()
	eventually(t, "both raise an alarm", func() bool {
		return strings.Contains(fmt.Sprint(a.c.Status().Alarms), "127.0.0.3 (node-3) is in another cluster") &&
			strings.Contains(fmt.Sprint(b.c.Status().Alarms), "127.0.0.2 (node-2) is in another cluster")
	})
	if a.c.cluster() == b.c.cluster() || len(a.c.Nodes()) != 1 || len(b.c.Nodes()) != 1 {
		t.Error("the clusters have merged")
	}
	lost := l.host(a.at(), b.at()).up()
	eventually(t, "who is told both does not choose", func() bool {
		s := lost.c.Status()
		return s.State == Refused && strings.Contains(s.Reason, "JOIN must name nodes of one cluster")
	})
}

func TestUnknownEntryStopsTheNodeAndSaysSo(t *testing.T) {
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	n.write(t, "a", "1")
	newer := []byte(`{"v":2,"id":"x","txn":{"then":[{"key":"a","value":"Mg=="}]}}`)
	if err := n.c.running().Apply(newer, patience).Error(); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		eventually(t, "the alarm", func() bool {
			return strings.Contains(fmt.Sprint(n.c.Status().Alarms), "format version 2, this node knows 1")
		})
		if !n.has("a", "1") {
			t.Error("the facts before it are gone")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.c.Propose(ctx, Txn{Then: []Op{{Key: "a", Value: []byte("3")}}}); err == nil {
			t.Error("a later write succeeded: the entry was skipped")
		}
		if err := n.c.running().Snapshot().Error(); err == nil {
			t.Error("a snapshot was made that skips the entry")
		}
	}
	check()
	n.stop()
	if alarms := opened(t, n).Status().Alarms; !strings.Contains(fmt.Sprint(alarms), "format version 2") {
		t.Errorf("no alarm before raft runs: %v", alarms)
	}
	n.up()
	check()
}

func TestOneWithoutAVoteDoesNotStopForAnUnknownRequest(t *testing.T) {
	nodes := newLab(t).hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	var r result
	_, err := nodes[1].c.call(t.Context(), nodes[0].c.transport.local, opPropose, rawBody(`{"v":1,"id":"x","txn":{"unless":[]}}`), &r)
	if codeOf(err) != codeRefused || !strings.Contains(err.Error(), "does not understand") {
		t.Errorf("the leader took a transaction with an unknown part: %v", err)
	}
	nodes[0].write(t, "a", "1")
}

func TestBrokenDiskOfAVoterStopsNothingElse(t *testing.T) {
	nodes := threeUp(t)
	lost := leader(t, nodes...)
	lost.kv.fail(errors.New("no space left on device"))
	var other *testNode
	for _, n := range nodes {
		if n != lost {
			other = n
		}
	}
	other.write(t, "a", "1")
	eventually(t, "the alarm", func() bool { return strings.Contains(fmt.Sprint(lost.c.Status().Alarms), "cannot be written") })
	lost.stop()
	lost.kv.fail(nil)
	lost.up()
	eventually(t, "it catches up", func() bool { return lost.has("a", "1") })
	oneCluster(t, nodes...)
}
