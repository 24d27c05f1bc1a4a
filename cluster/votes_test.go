package cluster

import (
	"slices"
	"strings"
	"testing"
)

// votersAre waits until exactly those nodes vote, as each of them sees it.
func votersAre(t *testing.T, want ...*testNode) {
	t.Helper()
	var names []string
	for _, n := range want {
		names = append(names, n.cfg.Name)
	}
	slices.Sort(names)
	eventually(t, strings.Join(names, ", ")+" vote", func() bool {
		for _, n := range want {
			s := n.c.Status()
			slices.Sort(s.Voters)
			if !s.Quorum || !slices.Equal(s.Voters, names) {
				return false
			}
		}
		return true
	})
}

func voting(t *testing.T, nodes []*testNode) (voters, others []*testNode) {
	t.Helper()
	names := leader(t, nodes...).c.Status().Voters
	for _, n := range nodes {
		if slices.Contains(names, n.cfg.Name) {
			voters = append(voters, n)
		} else {
			others = append(others, n)
		}
	}
	return voters, others
}

// Of three voters one is lost, then another: while there is a fourth node its vote is given on, so that the second loss is
// survived as well. Who comes back copies the facts, and votes again when it is needed.
func TestVotesMoveOffHostsThatAreGone(t *testing.T) {
	t.Parallel()
	nodes := newLab(t).hosts(4)
	allUp(nodes)
	oneCluster(t, nodes...)
	voters, others := voting(t, nodes)
	if len(voters) != 3 {
		t.Fatalf("%d of 4 vote", len(voters))
	}
	first := leader(t, nodes...)
	voters = slices.DeleteFunc(voters, func(n *testNode) bool { return n == first })
	first.powerOff()
	votersAre(t, voters[0], voters[1], others[0])
	voters[0].powerOff()
	others[0].write(t, "a", "after two of the first three voters were lost")
	if nodes, want := len(others[0].c.Status().Nodes), 4; nodes != want {
		t.Errorf("%d nodes, want %d: silence takes nobody out of the cluster", nodes, want)
	}
	first.up()
	votersAre(t, voters[1], others[0], first)
	voters[0].up()
	oneCluster(t, nodes...)
	eventually(t, "the other one has the facts", func() bool { return voters[0].has("a", "after two of the first three voters were lost") })
	votersAre(t, voters[1], others[0], first)
}

func TestNoVoteMovesWhileTheHostLives(t *testing.T) {
	t.Parallel()
	nodes := newLab(t).hosts(4)
	allUp(nodes)
	oneCluster(t, nodes...)
	voters, others := voting(t, nodes)
	voters = slices.DeleteFunc(voters, func(n *testNode) bool { return n == leader(t, nodes...) })
	voters[0].stop() // the plugin is disabled: its host answers
	eventually(t, "it is silent, and not suspended", func() bool {
		for _, n := range others[0].c.Nodes() {
			if n.Name == voters[0].cfg.Name {
				return !n.Alive && !n.Suspended
			}
		}
		return false
	})
	others[0].write(t, "a", "1")
	pause(t.Context(), 4*quick().gone)
	if now := others[0].c.Status().Voters; !slices.Contains(now, voters[0].cfg.Name) {
		t.Errorf("%s votes no longer: %v", voters[0].cfg.Name, now)
	}
}

func TestFiveOfSixVote(t *testing.T) {
	t.Parallel()
	nodes := newLab(t).hosts(6)
	allUp(nodes)
	oneCluster(t, nodes...)
	voters, others := voting(t, nodes)
	if len(voters) != 5 {
		t.Fatalf("%d of 6 vote", len(voters))
	}
	voters[1].powerOff()
	votersAre(t, slices.Concat(voters[:1], voters[2:], others)...)
}
