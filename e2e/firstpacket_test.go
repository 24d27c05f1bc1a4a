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
	for i, h := range []*lab.Host{s.hosts[1], s.hosts[2]} {
		v4, v6 := at(n.v4, 150+i), at(n.v6, 150+i)
		var hops []hop
		for _, p := range peers {
			hops = append(hops, hop{p, v4}, hop{p, v6})
		}
		probes := s.probe(hops)
		s.pass(time.Second)
		for _, p := range probes {
			if p.replies() > 0 {
				s.Fatalf("%s: is answered before there is such a container", p.hop)
			}
		}
		c := s.run(h, "new", "--network", "blue", "--ip", v4.String(), "--ip6", v6.String())
		s.more(probes, 1)
		s.pass(10 * time.Second)
		s.lossless("a new container on "+h.Name+" after its first reply", probes, false)
		s.docker(h, "rm", "-f", c.name)
	}
}
