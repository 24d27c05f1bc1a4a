//go:build e2e

package e2e

import (
	"slices"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var badInput = []scenario{
	{"AWrongNetworkIsRefusedAndChangesNothing", wrongNetworks},
	{"AWrongContainerIsRefusedAndChangesNothing", wrongContainers},
}

// wrong is a command line that is refused, with words that the answer has.
type wrong struct {
	flags []string
	words []string
}

func words(list ...string) []string { return list }

func wrongNetworks(s *scene) {
	h := s.hosts[0]
	v4, v6 := s.nextSubnets()
	four, six := v4.String(), v6.String()
	good := words("--ipv6", "--subnet", four, "--subnet", six)
	other := words("--subnet", "10.79.0.0/24")
	s.must(s.create(h, "good", good...))
	before, err := h.Settled(s.ctx)
	s.must(err)
	for _, w := range []wrong{
		{words("--subnet", "10.79.0.0/33"), words("10.79.0.0/33")},
		{words("--subnet", "ten.79.0.0/24"), words("ten.79.0.0/24")},
		{words("--subnet", "224.0.7.0/24"), words("224.0.7.0/24")},
		{words("--subnet", "127.0.7.0/24"), words("127.0.7.0/24")},
		{words("--subnet", "10.79.0.0/32"), words("10.79.0.0/32")},
		{words("--ipv6", "--subnet", "fe80::/64"), words("fe80::/64")},
		{words("--ipv6", "--subnet", "ff02::/64"), words("ff02::/64")},
		{words("--subnet", four), words(four, "overlaps")},
		{words("--subnet", at(v4, 128).String()+"/25"), words(at(v4, 128).String()+"/25", four)},
		{append(other, "--ip-range", "10.78.0.0/28"), words("10.78.0.0/28")},
		{append(other, "--gateway", "10.78.0.1"), words("10.78.0.1")},
		{append(other, "--gateway", "10.79.0.0"), words("10.79.0.0")},
		{append(other, "--gateway", "10.79.0.255"), words("10.79.0.255")},
		{append(other, "--aux-address", "x=10.78.0.1"), words("10.78.0.1")},
		{append(other, "--gateway", "10.79.0.9", "--aux-address", "x=10.79.0.9"), words("10.79.0.9")},
		{append(other, "--ipam-opt", "colour=red"), words("colour", "network")},
		{append(other, "--ipam-opt", "network="), words("network")},
		{append(other, "--ipam-opt", "network=sp ace"), words("sp ace")},
		{append(other, "--ipam-opt", "network=red", "-o", "mode=bridge"), words("network=red", "bridge")},
		{append(other, "-o", "mode=magic"), words("magic", "overlay", "bridge", "none")},
		{append(other, "-o", "colour=red"), words("colour=red", "allowed")},
		{append(other, "-o", mtuName+"=big"), words("big", "576")},
		{append(slices.Clone(other), "--ipv6", "--subnet", "fd79::/64", "-o", mtuName+"=1000"), words("1000", "1280")},
		{append(other, "-o", mtuName+"=9000"), words("9000", "1450")},
	} {
		s.refused(h, w.words, createArgs("bad", w.flags...)...)
		s.onlyGood(h, w.flags)
	}
	s.refused(h, words("--ipam-driver "+plugin), append([]string{"network", "create", "-d", plugin}, append(other, "bad")...)...)
	s.onlyGood(h, words("the engine's own IPAM driver"))
	if err := s.asBefore(h, before); err != nil {
		s.Errorf("refused requests have changed the host: %v", err)
	}
	// What was refused above stands in nobody's way.
	s.must(s.create(h, "later", append(other, "--gateway", "10.79.0.9")...))
	s.must(s.create(s.hosts[1], "good", good...))
	s.reach(allPairs("good", s.run(h, "c1", "--network", "good"), s.run(s.hosts[1], "c2", "--network", "good")))
}

// onlyGood checks that a refused request has left no network.
func (s *scene) onlyGood(h *lab.Host, flags []string) {
	s.Helper()
	if all := s.networks(h); len(all) != 1 {
		s.Errorf("%q: the plugin has %d networks, want the good one only: %+v", flags, len(all), all)
	}
	if left := s.docker(h, "network", "ls", "-q", "--filter", "name=bad"); left != "" {
		s.Errorf("%q: the engine has the network", flags)
		s.docker(h, "network", "rm", "bad")
	}
}

func wrongContainers(s *scene) {
	h := s.hosts[0]
	n := s.network("blue")
	taken := s.run(s.hosts[1], "taken", "--network", "blue", "--ip", at(n.v4, 77).String(), "--ip6", at(n.v6, 77).String())
	good := s.run(h, "good", "--network", "blue")
	before, err := h.Settled(s.ctx)
	s.must(err)
	run := func(flags ...string) []string {
		return append(append([]string{"run", "--rm", "--network", "blue"}, flags...), lab.Image, "true")
	}
	for _, w := range []wrong{
		{words("--ip", "10.78.0.7"), words("10.78.0.7")},
		{words("--ip", at(n.v4, 0).String()), words(at(n.v4, 0).String())},
		{words("--ip", at(n.v4, 255).String()), words(at(n.v4, 255).String())},
		{words("--ip", at(n.v4, 1).String()), words(at(n.v4, 1).String())}, // the gateway's
		{words("--ip", at(n.v4, 77).String()), words(at(n.v4, 77).String())},
		{words("--ip6", at(n.v6, 77).String()), words(at(n.v6, 77).String())},
		{words("--ip6", "fd78::7"), words("fd78::7")},
		{words("--mac-address", "01:00:5e:00:00:07"), words("01:00:5e:00:00:07")},
		{words("--mac-address", good.nets["blue"].mac), words(good.nets["blue"].mac)},
	} {
		s.refused(h, w.words, run(w.flags...)...)
		if err := s.hasEndpoints(h, 1); err != nil {
			s.Errorf("%q: %v", w.flags, err)
		}
	}
	s.refused(h, words("shape=round"), "run", "--rm", "--network", "name=blue,driver-opt=shape=round", lab.Image, "true")
	if err := s.asBefore(h, before); err != nil {
		s.Errorf("refused requests have changed the host: %v", err)
	}
	s.docker(h, run("--ip", at(n.v4, 78).String(), "--ip6", at(n.v6, 78).String())...)
	s.reach(allPairs("blue", good, taken))
	if text := s.engineLog(h); strings.Contains(text, "panic") {
		s.Error("the engine's log has a panic")
	}
}
