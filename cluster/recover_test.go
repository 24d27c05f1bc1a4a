package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// recovered runs `carrick recover` on a node that has no quorum, and does what the plugin does then.
func recovered(t *testing.T, n *testNode) {
	t.Helper()
	var why error
	eventually(t, n.cfg.Name+" recovers", func() bool {
		why = n.c.Recover(t.Context())
		if why != nil && !strings.Contains(why.Error(), "has a quorum") {
			t.Fatal(why)
		}
		return why == nil
	})
	n.again()
}

func alarmed(n *testNode, what string) bool {
	return strings.Contains(strings.Join(n.c.Status().Alarms, "\n"), what)
}

// The one of two that had no vote goes on when the other is lost for good. When that one comes back it is never listened to,
// whether it was forgotten before or not, and with another identity it is welcome.
func TestRecoverOfTwo(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgotten before it comes back: %v", before), func(t *testing.T) {
			nodes := newLab(t).hosts(2)
			allUp(nodes)
			oneCluster(t, nodes...)
			lost, left := nodes[0], nodes[1]
			left.write(t, "a", "1")
			eventually(t, "the copy is complete", func() bool { return left.has("a", "1") })
			id, was := lost.c.ID(), left.c.View().Index()
			lost.powerOff()
			recovered(t, left)
			votersAre(t, left)
			if !left.has("a", "1") || left.c.View().Index() < generationStride || left.c.View().Index() <= was {
				t.Errorf("after the recovery: index %d, before %d", left.c.View().Index(), was)
			}
			left.write(t, "a", "2")
			if !alarmed(left, "without node-2: run `carrick forget`") {
				t.Errorf("no alarm: %q", left.c.Status().Alarms)
			}
			left.stop()
			left.up()
			votersAre(t, left)
			left.write(t, "a", "3")
			if before {
				if err := left.c.Forget(t.Context(), lost.cfg.Name); err != nil {
					t.Fatal(err)
				}
			}
			lost.up()
			eventually(t, "the lost one is refused", func() bool {
				s := lost.c.Status()
				return s.State == Refused && strings.Contains(s.Reason, "run `carrick leave` here")
			})
			left.write(t, "a", "4")
			votersAre(t, left)
			if lost.has("a", "4") || left.c.ID() == id {
				t.Error("the two have met")
			}
			if !before {
				eventually(t, "the alarm on the other side", func() bool { return alarmed(left, "is back, and the cluster was recovered without it") })
			}
			if err := lost.c.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			lost.again()
			if lost.c.ID() == id {
				t.Error("it has kept its identity")
			}
			if !before {
				eventually(t, "its name is taken", func() bool { return lost.state() == Refused })
				if err := left.c.Forget(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			oneCluster(t, nodes...)
			eventually(t, "it has the facts", func() bool { return lost.has("a", "4") })
			if alarms := left.c.Status().Alarms; strings.Contains(fmt.Sprint(alarms), "was recovered on") {
				t.Errorf("an alarm is left: %q", alarms)
			}
		})
	}
}

// Two of three voters are lost. The third recovers, the fourth, which has no vote, follows with its identity, and one that
// joins afterwards joins them. A lost one that comes back does not disturb them.
func TestRecoverOfFour(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	nodes := l.hosts(4)
	allUp(nodes)
	oneCluster(t, nodes...)
	voters, others := voting(t, nodes)
	left, follows := voters[0], others[0]
	left.write(t, "a", "1")
	eventually(t, "the copies are complete", func() bool { return left.has("a", "1") && follows.has("a", "1") })
	id := follows.c.ID()
	voters[1].powerOff()
	voters[2].powerOff()
	recovered(t, left)
	follows.again()
	if follows.c.ID() != id {
		t.Error("who follows has another identity")
	}
	left.write(t, "a", "2")
	eventually(t, "it has what is decided now", func() bool { return follows.has("a", "2") && follows.state() == Member })
	follows.write(t, "a", "3")
	joins := l.host(follows.at()).up()
	eventually(t, "a new one joins", func() bool { return joins.state() == Member && joins.has("a", "3") })
	votersAre(t, left, follows, joins)
	voters[1].up()
	eventually(t, "the lost one is refused", func() bool { return voters[1].state() == Refused })
	voters[2].up()
	eventually(t, "the other lost one is refused", func() bool { return voters[2].state() == Refused })
	joins.write(t, "a", "4")
	votersAre(t, left, follows, joins)
	left.stop()
	follows.write(t, "a", "5")
	left.up()
	votersAre(t, left, follows, joins)
}

func TestRecoverRefuses(t *testing.T) {
	nodes := newLab(t).hosts(4)
	allUp(nodes)
	oneCluster(t, nodes...)
	refused := func(n *testNode, want string) {
		t.Helper()
		var last error
		eventually(t, "refused: "+want, func() bool {
			last = n.c.Recover(t.Context())
			if last == nil {
				t.Fatal("it recovers")
			}
			return strings.Contains(last.Error(), want)
		})
	}
	voters, others := voting(t, nodes)
	refused(others[0], "leads it: there is nothing to recover")
	others[0].stop()
	voters[0].write(t, "a", "1")
	eventually(t, "a voter has it", func() bool { return voters[1].has("a", "1") })
	voters[0].powerOff()
	voters[2].powerOff()
	others[0].up()
	refused(others[0], voters[1].cfg.Name+" ("+voters[1].cfg.Advertise.String()+") has a newer copy")
	voters[0].up()
	for _, n := range nodes {
		if n != voters[2] {
			eventually(t, n.cfg.Name+" goes on", func() bool { return n.c.Status().Quorum && n.has("a", "1") })
		}
	}
	refused(voters[1], "has a quorum")
}

// A start that is cut short in the middle of the recovery does it again.
func TestRecoveryCutShort(t *testing.T) {
	nodes := newLab(t).hosts(2)
	allUp(nodes)
	oneCluster(t, nodes...)
	left := nodes[1]
	left.write(t, "a", "1")
	eventually(t, "the copy is complete", func() bool { return left.has("a", "1") })
	nodes[0].powerOff()
	eventually(t, "no leader", func() bool { return left.c.leader() == "" })
	if err := left.c.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-left.done
	before := maps.Clone(left.kv.data)
	first := opened(t, left) // the snapshot is written, and what follows never comes to the disk
	generation := first.generationNow()
	left.kv.data = before
	left.err = nil
	left.up()
	votersAre(t, left)
	if left.c.generationNow() != generation || !left.has("a", "1") {
		t.Errorf("generation %q, want %q", left.c.generationNow(), generation)
	}
	left.write(t, "a", "2")
}

func TestJudgeGeneration(t *testing.T) {
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	term, last, _, err := lastEntry(n.c.store, n.c.snapshots)
	if err != nil {
		t.Fatal(err)
	}
	copied := recovery{Version: 1, ID: "1-a", By: "host-b", Term: term, Last: last}
	older, without := copied, copied
	older.Last--
	without.Lost = map[string]string{n.c.ID(): "me"}
	next := recovery{Version: 1, ID: "2-b", Parent: "1-a", By: "host-c"}
	for _, c := range []struct {
		what, own string
		recovered []recovery
		want      string // "": follows
	}{
		{"an equal copy", "", []recovery{copied}, ""},
		{"an equal copy, and on", "", []recovery{copied, next}, ""},
		{"an older copy", "", []recovery{older}, fmt.Sprintf("from a copy that ends at entry %d, and this node has entry %d", last-1, last)},
		{"left behind", "", []recovery{without}, "without this node, which did not answer"},
		{"left behind, and on", "", []recovery{without, next}, "without this node, which did not answer"},
		{"on two sides", "1-c", []recovery{copied}, "recovered on two sides"},
		{"on two sides, and on", "1-c", []recovery{copied, next}, "recovered on two sides"},
	} {
		v := n.c.judgeGeneration(c.own, greeting{Generation: c.recovered[len(c.recovered)-1].ID, Recovered: c.recovered})
		if (v.follow != "") != (c.want == "") || !strings.Contains(v.refuse, c.want) {
			t.Errorf("%s: %+v, want %q", c.what, v, c.want)
		}
	}
}

// Where a node that was left behind would have claimed next, nobody claims until it is forgotten.
func TestMarginOfTheLost(t *testing.T) {
	for _, subnet := range []string{"10.0.0.0/16", "10.0.0.0/24", "10.0.0.0/26", "10.0.0.0/28", "fd00::/64", "fd00::/120"} {
		s := Subnet{Prefix: netip.MustParsePrefix(subnet), Range: netip.MustParsePrefix(subnet)}
		l := s.layout()
		var hidden []netip.Prefix // what the lost one has claimed last, and the copy lacks
		lacks := map[netip.Prefix]string{}
		for range l.margin() {
			p, ok := l.next(s, "net", "lost", lacks)
			if !ok {
				t.Fatal("no block")
			}
			hidden, lacks[p] = append(hidden, p), "lost"
		}
		if len(hidden) == 0 {
			t.Fatalf("%s: no margin", subnet)
		}
		view := facts(t, Op{belowNode + "lost", []byte(`{"v":1,"name":"host-a"}`)},
			Op{belowRecovered + "1-a", []byte(`{"v":1,"id":"1-a","lost":{"lost":"host-a"}}`)})
		for i := 0; i < 200; i++ {
			p, err := freeBlock(view, "net", s, l, fmt.Sprint("node", i%3))
			if err != nil {
				break
			}
			if slices.Contains(hidden, p) {
				t.Fatalf("%s: block %s is given to another after %d", subnet, p, i)
			}
			op, _ := BlockOp("net", p, "other")
			if view, err = view.Apply(Txn{Then: []Op{op}}); err != nil {
				t.Fatal(err)
			}
		}
		forgotten, err := view.Apply(Txn{Then: []Op{{Key: belowNode + "lost"}}})
		if err != nil {
			t.Fatal(err)
		}
		if p, err := freeBlock(forgotten, "net", s, l, "lost"); err != nil || !slices.Contains(hidden, p) {
			t.Errorf("%s: after it was forgotten: %s, %v", subnet, p, err)
		}
	}
}

func facts(t *testing.T, ops ...Op) View {
	t.Helper()
	view, err := View{}.Apply(Txn{Then: ops})
	if err != nil {
		t.Fatal(err)
	}
	return view
}
