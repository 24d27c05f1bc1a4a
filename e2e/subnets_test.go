//go:build e2e

package e2e

import "net/netip"

// nextSubnet: where the first of two subnets is full, containers get addresses of the second. The engine asks for the first only.
// Both are one wire, and each container has a way out.
func nextSubnet(s *scene) {
	v4, _ := s.nextSubnets()
	first, second := netip.PrefixFrom(v4.Addr(), 29), netip.PrefixFrom(at(v4, 8), 29)
	for _, h := range s.hosts {
		s.must(s.create(h, "two", "--subnet", first.String(), "--subnet", second.String()))
	}
	// The first has five addresses.
	all := append(s.runOnAll("a", "--network", "two"), s.runOnAll("b", "--network", "two")...)
	s.distinct("two", all...)
	var in1, in2 []*container
	for _, c := range all {
		switch got := c.nets["two"].v4; {
		case first.Contains(got):
			in1 = append(in1, c)
		case second.Contains(got):
			in2 = append(in2, c)
		default:
			s.Errorf("%s: has %s, which is in neither subnet", c, got)
		}
	}
	if len(in1) == 0 || len(in2) == 0 {
		s.Fatalf("%d containers are in %s and %d in %s, want both", len(in1), first, len(in2), second)
	}
	s.reach(allPairs("two", all...))
	s.reach([]hop{{in2[0], netip.MustParseAddr(s.hosts[0].IPv4)}, {in1[0], netip.MustParseAddr(s.hosts[2].IPv4)}})

	c := in2[0]
	s.docker(c.host, "restart", c.name)
	now := s.again(c)[0]
	s.reachAgain(allPairs("two", append(in1, now)...))
	s.docker(c.host, "rm", "-f", c.name)
	s.tells(c.host, now.nets["two"].v4, "it rests", func(a addressStatus) bool { return a.State == "resting" })
	asked := now.nets["two"].v4
	named := s.run(c.host, "named", "--network", "two", "--ip", asked.String())
	if got := named.nets["two"].v4; got != asked {
		s.Errorf("--ip %s: has %s", asked, got)
	}
	s.reachAgain(allPairs("two", append(in1, named)...))
}
