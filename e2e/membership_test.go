//go:build e2e

package e2e

import (
	"fmt"

	"github.com/carricknet/carrick/lab"
)

var membership = []scenario{
	{"AHostLeavesAndComesBack", leaves},
	{"ADeadHostIsForgotten", forgotten},
}

// leaves: the others keep their network, and what the host had on it is gone.
func leaves(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	h := s.hosts[2]
	probes := s.probe(allPairs("blue", all[:2]...))
	s.must(s.sweep(h))
	s.dismiss(h)
	for _, o := range s.others(h) {
		if st, err := s.status(o); err != nil || st.joined(2) != nil {
			s.Errorf("%s: after the third has left: %+v, %v", o.Name, st, err)
		}
	}
	late := s.run(s.hosts[0], "late", "--network", "blue")
	s.reach(allPairs("blue", all[0], all[1], late))
	s.lossless("the others while a host leaves", probes, true)
	s.all(func(o *lab.Host) error {
		if o == h {
			return nil
		}
		return s.sweep(o)
	})
	s.install(s.venue.settings(), h)
	s.resume(h)
}

// forgotten: a host that lost its power for good, and comes back all the same.
func forgotten(s *scene) {
	n := s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	h := s.hosts[2]
	asked := s.run(h, "asked", "--network", "blue", "--ip", at(n.v4, 99).String())
	s.reach(allPairs("blue", append(all, asked)...))
	s.must(h.PowerOff(s.ctx))
	s.until("the others see that it is dead, and have a quorum", func() error {
		return onAll(s.others(h), func(o *lab.Host) error {
			st, err := s.status(o)
			if err != nil || st.Cluster == nil || !st.Cluster.Quorum {
				return fmt.Errorf("%s: %+v, %w", o.Name, st, err)
			}
			for _, node := range st.Cluster.Nodes {
				if node.Name == h.Name && node.Alive {
					return fmt.Errorf("%s: %s is alive: %+v", o.Name, h.Name, *st.Cluster)
				}
			}
			return nil
		})
	})
	_, err := s.hosts[0].Run(s.ctx, binary, "forget", "--yes", h.Name)
	s.must(err)
	s.joined(s.others(h)...)
	// What it had is free.
	taker := s.run(s.hosts[0], "taker", "--network", "blue", "--ip", at(n.v4, 99).String())
	s.reach(allPairs("blue", all[0], all[1], taker))
	s.must(h.PowerOn(s.ctx))
	s.says(h, "forgotten")
	s.joined(s.others(h)...)
	s.refused(h, nil, createArgs("red", "--subnet", "10.79.0.0/24")...)
	// What it still has can be removed there, and installed anew it is a new node.
	s.must(s.sweep(h))
	s.uninstall(h)
	s.install(s.venue.settings(), h)
	s.on(s.others(h), s.sweep)
	s.resume(h)
}
