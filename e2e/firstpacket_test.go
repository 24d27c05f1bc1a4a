//go:build e2e

package e2e

import (
	"time"

	"github.com/carricknet/carrick/lab"
)

var firstPacket = []scenario{
	{"ANewContainerLosesNoReplyAfterItsFirst", noLossAfterFirst},
}

// noLossAfterFirst: containers of all hosts ping an address every 10 ms before the container that gets it is started.
func noLossAfterFirst(s *scene) {
	n := s.network("blue")
	peers := s.runOnAll("peer", "--network", "blue")
	s.reach(allPairs("blue", peers...))
	var hops []hop
	for i := range s.hosts {
		for _, p := range peers {
			hops = append(hops, hop{p, at(n.v4, 150+i)}, hop{p, at(n.v6, 150+i)})
		}
	}
	probes := s.probe(hops)
	s.pass(2 * time.Second)
	for _, p := range probes {
		if p.replies() > 0 {
			s.Fatalf("%s: is answered before there is such a container", p.hop)
		}
	}
	s.all(func(h *lab.Host) error {
		i := s.index(h)
		_, err := s.start(h, "new", "--network", "blue", "--ip", at(n.v4, 150+i).String(), "--ip6", at(n.v6, 150+i).String())
		return err
	})
	s.more(probes, 1)
	s.pass(s.scale.firstReply)
	s.lossless("new containers on all hosts, after their first reply", probes, false)
}
