//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/lab"
)

var partitions = []scenario{
	{"AHostThatWasCutOffIsOneOfThemAgain", hostCut},
	{"TwoHostsThatDoNotHearEachOtherDoNotDisturbTheThird", pairCut},
}

// aim is how long healing should take. Longer is said, not failed: the machine may be busy.
const aim = "aim: 10 s"

func hostCut(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	away := s.hosts[2]
	probes := s.probe(allPairs("blue", all[0], all[1]))
	s.must(s.venue.lab.Cut(s.ctx, away))
	cut := time.Now()
	// Both sides start containers from the addresses they own.
	for i := range 2 {
		all = append(all, s.runOnAll(fmt.Sprint("during", i, "-"), "--network", "blue")...)
	}
	var near, far []*container
	for _, c := range all {
		if c.host == away {
			far = append(far, c)
		} else {
			near = append(near, c)
		}
	}
	s.reach(append(allPairs("blue", near...), allPairs("blue", far...)...))
	s.apart([]hop{{near[0], far[0].nets["blue"].v4}})
	// What needs the others is refused by the side that is alone, in words, and leaves nothing.
	v4, _ := s.nextSubnets()
	s.refused(away, words("quorum"), createArgs("alone", "--subnet", v4.String())...)
	if left := s.networks(away); len(left) != 1 {
		s.Errorf("%s: a network that was refused is there: %v", away.Name, left)
	}
	theirs := s.beside(near[0], all)
	s.refused(away, words(theirs.String()), "run", "-d", "--name", "asked", "--network", "blue", "--ip", theirs.String(), lab.Image)
	s.docker(away, "rm", "-f", "asked")
	s.pass(time.Until(cut.Add(s.scale.away)))
	s.must(s.venue.lab.Heal(s.ctx, away))
	took := s.reach(allPairs("blue", all...))
	s.Logf("healed: every container reaches every other after %s (%s)", took, aim)
	s.lossless("the other two hosts while the third is cut off", probes, true)
	s.distinct("blue", all...)
	s.joined(s.hosts...)
	all = append(all, s.runOnAll("after", "--network", "blue")...)
	s.distinct("blue", all...)
	s.reach(allPairs("blue", all...))
	s.must(s.create(away, "alone", "--subnet", v4.String()))
}

// beside is an address that nobody has, in the block of a container's host: the networks of scenarios are /24, of 16 blocks.
func (s *scene) beside(c *container, all []*container) netip.Addr {
	s.Helper()
	taken := func(a netip.Addr) bool {
		return slices.ContainsFunc(all, func(o *container) bool { return o.nets["blue"].v4 == a })
	}
	block := netip.PrefixFrom(c.nets["blue"].v4, 28)
	for i := 2; i < 15; i++ { // 0, 1 and 15 may be the subnet's, the gateway's and the broadcast address
		if a := at(block, i); !taken(a) {
			return a
		}
	}
	s.Fatalf("no address of %s is free", block)
	return netip.Addr{}
}

func pairCut(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	third := between("blue", all[:2], all[2:])
	probes := s.probe(append(third, between("blue", all[2:], all[:2])...))
	s.must(s.venue.lab.CutPair(s.ctx, s.hosts[0], s.hosts[1]))
	all = append(all, s.runOnAll("during", "--network", "blue")...)
	// Both still have the third host, and what is new on it.
	s.reach(append(between("blue", all[:2], []*container{all[2], all[5]}), between("blue", all[3:5], []*container{all[2], all[5]})...))
	s.pass(s.scale.pairAway)
	s.must(s.venue.lab.HealPair(s.ctx, s.hosts[0], s.hosts[1]))
	took := s.reach(allPairs("blue", all...))
	s.Logf("healed: every container reaches every other after %s (%s)", took, aim)
	s.lossless("the third host while two do not hear each other", probes, true)
	s.distinct("blue", all...)
	s.joined(s.hosts...)
}
