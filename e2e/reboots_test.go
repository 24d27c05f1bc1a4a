//go:build e2e

package e2e

import (
	"sync"
	"time"

	"github.com/carricknet/carrick/lab"
)

var reboots = []scenario{
	{"AHostIsRebooted", reboot},
	{"AllHostsLosePowerAtOnce", powerCut},
}

func reboot(s *scene) {
	n := s.network("blue")
	all := s.runOnAll("c", "--network", "blue", "--restart", "always")
	h := s.hosts[0]
	asked := s.run(h, "asked", "--network", "blue", "--restart", "always", "--ip", at(n.v4, 99).String(), "--ip6", at(n.v6, 99).String())
	all = append(all, asked)
	s.reach(allPairs("blue", all...))
	probes := s.probe(allPairs("blue", all[1], all[2]))
	began := time.Now()
	s.must(h.Reboot(s.ctx))
	all = s.again(all...)
	s.reachAgain(allPairs("blue", all...))
	s.Logf("rebooted: every container reaches every other %s after the power cut", since(began))
	s.lossless("the other two hosts meanwhile", probes, true)
	s.joined(s.hosts...)
	s.distinct("blue", all...)
	if now := all[3].nets["blue"]; now.v4 != asked.nets["blue"].v4 || now.v6 != asked.nets["blue"].v6 {
		s.Errorf("%s: came back as %+v, was %+v", asked, now, asked.nets["blue"])
	}
	s.until("the host has what its containers have, and no more", func() error { return s.hasEndpoints(h, 2) })
	s.fresh(h)
}

func powerCut(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue", "--restart", "always")
	s.reach(allPairs("blue", all...))
	s.all(func(h *lab.Host) error { return h.PowerOff(s.ctx) })
	began := time.Now()
	s.all(func(h *lab.Host) error { return h.PowerOn(s.ctx) })
	s.joined(s.hosts...)
	s.Logf("power is back: a cluster with a quorum after %s", since(began))
	all = s.again(all...)
	s.reach(allPairs("blue", all...))
	s.Logf("power is back: every container reaches every other after %s", since(began))
	s.distinct("blue", all...)
	s.until("each host has what its containers have, and no more", func() error {
		return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, 1) })
	})
	s.fresh(s.hosts...)
	s.works()
}

// fresh replaces what an empty host is compared with, on hosts that were switched off: docker_gwbridge has another MAC
// address then.
// In a soak others come after this one that compare with the dump from before the plugin: they get new hosts.
func (s *scene) fresh(hosts ...*lab.Host) {
	s.Helper()
	s.all(s.sweep)
	if s.scale == soak {
		s.spoiled = true
		return
	}
	var mu sync.Mutex
	s.on(hosts, func(h *lab.Host) error {
		dump, err := h.Settled(s.ctx)
		mu.Lock()
		defer mu.Unlock()
		s.venue.empty[h.Name] = dump
		return err
	})
}
