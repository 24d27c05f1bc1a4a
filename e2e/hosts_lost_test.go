//go:build e2e

package e2e

import (
	"errors"
	"fmt"

	"github.com/carricknet/carrick/lab"
)

// recovered: of two hosts, the one that votes is lost for good. The other goes on without it, and gives its addresses to
// nobody before it is forgotten.
func recovered(s *scene) {
	third := s.hosts[2]
	_, err := third.Run(s.ctx, binary, "leave", "--yes")
	s.must(err)
	two := s.hosts[:2]
	var st status
	s.until("one of two votes", func() (err error) {
		if st, err = s.status(two[0]); err == nil {
			err = s.votes(two[0], s.venue.lab.Host(st.Cluster.Leader))
		}
		return err
	})
	lost := s.venue.lab.Host(st.Cluster.Leader)
	h := two[1-s.index(lost)]
	v4, v6 := s.nextSubnets()
	blue := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	s.on(two, func(o *lab.Host) error { return s.create(o, "blue", blue...) })
	// Both own addresses; the lost one has given out one that a user has asked for, too.
	gone := []*container{s.run(lost, "gone", "--network", "blue"), s.run(lost, "asked", "--network", "blue", "--ip", at(v4, 99).String())}
	stays := s.run(h, "stays", "--network", "blue")
	s.reach(allPairs("blue", append(gone, stays)...))
	s.must(lost.PowerOff(s.ctx))
	s.until("there is no quorum, and the other host is suspended", func() error {
		if st, err = s.status(h); err == nil && st.Cluster.Quorum {
			err = fmt.Errorf("%s: %+v", h.Name, *st.Cluster)
		}
		return errors.Join(err, s.suspended(h, lost, true))
	})
	s.reach(allPairs("blue", stays, s.run(h, "during", "--network", "blue")))
	out, err := h.Run(s.ctx, binary, "recover", "--yes")
	s.must(err)
	s.Logf("carrick recover said:\n%s", out)
	s.must(s.votes(h, h))
	red4, _ := s.nextSubnets()
	s.must(s.create(h, "red", "--subnet", red4.String()))
	s.reach(allPairs("red", s.run(h, "red1", "--network", "red"), s.run(h, "red2", "--network", "red")))
	// What the lost host may have given out is nobody's.
	asked := at(v4, 99).String()
	s.refused(h, words(asked), "run", "-d", "--name", "taker", "--network", "blue", "--ip", asked, lab.Image)
	s.docker(h, "rm", "-f", "taker")
	after := s.run(h, "after", "--network", "blue")
	s.distinct("blue", append(gone, stays, after)...)
	_, err = h.Run(s.ctx, binary, "forget", "--yes", lost.Name)
	s.must(err)
	taker := s.run(h, "taker", "--network", "blue", "--ip", asked)
	s.reach(allPairs("blue", stays, after, taker))

	s.must(lost.Reinstall(s.ctx))
	s.must(s.makeGatewayBridge(lost))
	s.install(s.venue.settings(), lost)
	s.joined(two...)
	s.must(s.create(lost, "blue", blue...))
	s.reach(allPairs("blue", stays, after, taker, s.run(lost, "anew", "--network", "blue")))
	s.on(two, s.sweep)
	_, err = third.Run(s.ctx, binary, "join", "--yes")
	s.must(err)
	s.joined(s.hosts...)
	s.works()
	s.fresh(s.hosts...)
}
