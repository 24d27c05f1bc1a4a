//go:build e2e

package e2e

import (
	"github.com/carricknet/carrick/lab"
)

var leftovers = []scenario{
	{"NothingIsLeftWhenThePluginIsDisabled", nothingLeft},
}

// nothingLeft compares with the dump that was taken before the plugin was installed.
func nothingLeft(s *scene) {
	s.network("blue")
	s.network("inner", "--internal")
	all := s.runOnAll("c", "--network", "blue")
	v4, v6 := s.nextSubnets()
	s.all(func(h *lab.Host) error {
		return s.create(h, "local", "-o", "mode=bridge", "--ipv6", "--subnet", v4.String(), "--subnet", v6.String())
	})
	s.all(func(h *lab.Host) error { return s.create(h, "void", "-o", "mode=none") })
	s.all(func(h *lab.Host) error {
		for _, network := range []string{"inner", "local"} {
			if _, err := h.Docker(s.ctx, "network", "connect", network, all[s.index(h)].name); err != nil {
				return err
			}
		}
		_, err := s.start(h, "hermit", "--network", "void")
		return err
	})
	s.reach(allPairs("blue", all...))
	s.reach(allPairs("inner", s.again(all...)...))
	s.all(s.sweep)
	s.nothingReserved()
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "plugin", "disable", plugin)
		return err
	})
	if err := onAll(s.hosts, func(h *lab.Host) error { return s.asBefore(h, s.venue.bare[h.Name]) }); err != nil {
		s.Errorf("networks are removed, the plugin is disabled: %v", err)
	}
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "plugin", "enable", plugin)
		return err
	})
	s.joined(s.hosts...)
	s.works()
}

// nothingReserved: the cluster has no network any more that overlaps one of all those that scenarios have made so far.
func (s *scene) nothingReserved() {
	s.Helper()
	s.until("the cluster has forgotten all networks", func() error {
		return s.create(s.hosts[0], "wide", "--ipv6", "--subnet", "10.80.0.0/16", "--subnet", "fd00:80::/32")
	})
	s.must(s.sweep(s.hosts[0]))
}
