//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
)

var addresses = []scenario{
	{"AddressesComeFromTheRange", ipRange},
	{"AuxiliaryAddressesAndTheGatewayAreNeverGiven", auxAddresses},
	{"AnAddressThatIsAskedForIsGivenOnce", askedFor},
	{"AnAddressStaysWithItsContainer", addressStays},
	{"ASecondSubnetIsUsedWhenTheFirstIsFull", nextSubnet},
}

func ipRange(s *scene) {
	v4, v6 := s.nextSubnets()
	within := netip.PrefixFrom(at(v4, 128), 27)
	s.network("wide") // takes the next subnets, not those above
	flags := []string{"--ipv6", "--subnet", v4.String(), "--ip-range", within.String(), "--subnet", v6.String()}
	for _, h := range s.hosts {
		s.must(s.create(h, "blue", flags...))
	}
	all := append(s.runOnAll("a", "--network", "blue"), s.runOnAll("b", "--network", "blue")...)
	s.distinct("blue", all...)
	for _, c := range all {
		if got := c.nets["blue"].v4; !within.Contains(got) {
			s.Errorf("%s: has %s, outside --ip-range %s", c, got, within)
		}
	}
	s.reach(allPairs("blue", all...))
	// The range is for addresses that nobody asked for.
	out := s.run(s.hosts[1], "out", "--network", "blue", "--ip", at(v4, 20).String())
	s.reach(between("blue", all, []*container{out}))
}

func auxAddresses(s *scene) {
	v4, _ := s.nextSubnets()
	small := netip.PrefixFrom(v4.Addr(), 29) // six addresses: a gateway, two auxiliary ones, three for containers
	flags := []string{"--subnet", small.String(), "--gateway", at(v4, 6).String(),
		"--aux-address", "printer=" + at(v4, 1).String(), "--aux-address", "router=" + at(v4, 4).String()}
	for _, h := range s.hosts {
		s.must(s.create(h, "small", flags...))
	}
	all := s.runOnAll("c", "--network", "small")
	s.distinct("small", all...)
	var got []netip.Addr
	for _, c := range all {
		got = append(got, c.nets["small"].v4)
	}
	slices.SortFunc(got, netip.Addr.Compare)
	if want := []netip.Addr{at(v4, 2), at(v4, 3), at(v4, 5)}; !slices.Equal(got, want) {
		s.Errorf("containers have %v, want %v", got, want)
	}
	s.reach(allPairs("small", all...))
	s.refused(s.hosts[0], []string{small.String()}, "run", "-d", "--name", "late", "--network", "small", "busybox")
	for _, n := range []int{1, 4, 6} {
		s.refused(s.hosts[1], []string{at(v4, n).String()}, "run", "--rm", "--network", "small", "--ip", at(v4, n).String(), "busybox", "true")
	}
}

func askedFor(s *scene) {
	n := s.network("blue")
	ask := func(i int) []string {
		return []string{"--network", "blue", "--ip", at(n.v4, 100+i).String(), "--ip6", at(n.v6, 100+i).String()}
	}
	var all []*container
	for i := range 6 { // adjacent ones on different hosts, in turn
		all = append(all, s.run(s.hosts[i%3], fmt.Sprint("c", i), ask(i)...))
	}
	for i, c := range all {
		if got, want := c.addrs("blue"), []netip.Addr{at(n.v4, 100+i), at(n.v6, 100+i)}; !slices.Equal(got, want) {
			s.Errorf("%s: has %v, was promised %v", c, got, want)
		}
	}
	s.reach(allPairs("blue", all...))
	for _, h := range s.hosts[:2] { // where c0 is, and elsewhere
		for _, flag := range [][]string{{"--ip", at(n.v4, 100).String()}, {"--ip6", at(n.v6, 100).String()}} {
			args := append([]string{"run", "-d", "--name", "second", "--network", "blue"}, flag...)
			s.refused(h, flag[1:], append(args, "busybox")...)
			s.docker(h, "rm", "-f", "second")
		}
	}
	s.must(s.hasEndpoints(s.hosts[0], 2))
	s.must(s.hasEndpoints(s.hosts[1], 2))
	s.reach(allPairs("blue", all...))
	// Those that nobody asks for avoid the ones that somebody did.
	more := s.runOnAll("more", "--network", "blue")
	s.distinct("blue", append(more, all...)...)
}

func addressStays(s *scene) {
	n := s.network("blue")
	peer := s.run(s.hosts[1], "peer", "--network", "blue")
	c := s.run(s.hosts[0], "stays", "--network", "blue", "--ip", at(n.v4, 50).String(), "--ip6", at(n.v6, 50).String())
	for _, verbs := range [][]string{{"restart"}, {"stop", "start"}, {"kill", "start"}} {
		for _, verb := range verbs {
			s.docker(c.host, verb, c.name)
		}
		now := s.again(c)[0]
		if was, is := c.nets["blue"], now.nets["blue"]; is.v4 != was.v4 || is.v6 != was.v6 {
			s.Errorf("after docker %v: %s %s, before %s %s", verbs, is.v4, is.v6, was.v4, was.v6)
		}
		s.reachAgain(allPairs("blue", now, peer))
	}
	s.docker(c.host, "rm", "-f", c.name)
	c = s.run(s.hosts[0], "stays", "--network", "blue", "--ip", at(n.v4, 50).String(), "--ip6", at(n.v6, 50).String())
	s.reachAgain(allPairs("blue", c, peer))
}
