//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

var starts = []scenario{
	{"ContainersStartWhileThePluginIsKilled", startsUnderFire},
	{"ContainersComeBackWithTheirEngine", restartPolicy},
	{"ThePluginIsRestartedUnderItsContainers", pluginRestart},
}

// sweptAfter is how long an endpoint may stay whose container the engine has lost without a word: the driver removes it
// when it was dead at every look for a minute, and it looks every 15 s.
const sweptAfter = 75*time.Second + patience

// An attempt is a container that somebody wants on a host, with addresses of its own, and what came of it.
type attempt struct {
	host  *lab.Host
	name  string
	flags []string
	c     *container // nil: err says why
	err   error
}

// try starts all containers at once.
func (s *scene) try(all []*attempt) {
	s.Helper()
	s.must(onAll(all, func(a *attempt) error {
		a.c, a.err = s.start(a.host, a.name, a.flags...)
		return nil
	}))
}

func errorsOf(all []*attempt) []error {
	var errs []error
	for _, a := range all {
		errs = append(errs, a.err)
	}
	return errs
}

// discard removes containers, those that never ran as well.
func (s *scene) discard(all []*attempt) {
	s.Helper()
	s.must(onAll(all, func(a *attempt) error {
		_, err := a.host.Docker(s.ctx, "rm", "-f", a.name)
		return err
	}))
}

// startsUnderFire: ten containers or more on each host at once, and the plugin of each host killed meanwhile.
func startsUnderFire(s *scene) {
	perHost, kills := s.scale.starts, s.scale.startKills
	n := s.network("blue")
	var all []*attempt
	for i := range perHost * len(s.hosts) {
		// The name of one that is gone must not look like the beginning of another one's id, as c11 does: the engine would
		// remove that one.
		all = append(all, &attempt{host: s.hosts[i%len(s.hosts)], name: fmt.Sprint("start", i),
			flags: []string{"--network", "blue", "--ip", at(n.v4, 100+i).String(), "--ip6", at(n.v6, 100+i).String()}})
	}
	fire := make(chan error, len(s.hosts))
	for _, h := range s.hosts {
		go func() { fire <- s.killDuringStarts(h, kills, perHost) }()
	}
	s.try(all)
	for range s.hosts {
		s.must(<-fire)
	}
	s.joined(s.hosts...)
	s.allOrNothing(all)
	s.discard(all)
	s.until("none has anything left", func() error {
		return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, 0) })
	})
	// An address that leaked could not be given again. One that was on disk when the plugin was killed, and never
	// answered, is known to be nobody's after a while.
	s.try(all)
	took, err := s.wait(sweptAfter, func() error {
		again := slices.DeleteFunc(slices.Clone(all), func(a *attempt) bool { return a.err == nil })
		s.discard(again)
		s.try(again)
		return errors.Join(errorsOf(again)...)
	})
	s.must(err)
	s.Logf("every address was given again, the last one after %s", took)
	var running []*container
	for _, a := range all {
		running = append(running, a.c)
	}
	s.distinct("blue", running...)
	s.reach(crowd("blue", running...))
}

// allOrNothing demands that the containers that were said to run do, and that the others have left nothing.
func (s *scene) allOrNothing(all []*attempt) {
	s.Helper()
	var running []*container
	var failed []*attempt
	here := map[*lab.Host]int{}
	for _, a := range all {
		if a.err != nil {
			s.Logf("%s on %s failed: %s", a.name, a.host.Name, reason(a.err))
			failed = append(failed, a)
			continue
		}
		running = append(running, a.c)
		here[a.host]++
	}
	s.Logf("%d of %d containers run, the others failed with an error", len(running), len(all))
	if len(running) > 0 {
		s.reach(crowd("blue", running...))
	}
	s.discard(failed)
	took, err := s.wait(sweptAfter, func() error {
		return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, here[h]) })
	})
	s.must(err)
	s.Logf("those that failed have nothing left after %s", took)
}

// killDuringStarts kills the plugin of a host each time another part of the containers has an endpoint there.
func (s *scene) killDuringStarts(h *lab.Host, kills, containers int) error {
	for i := range kills {
		_, err := s.wait(patience, func() error {
			here, err := s.local(h)
			if err == nil && len(here) < 1+i*containers/(kills+1) {
				err = fmt.Errorf("%s: %d endpoints only", h.Name, len(here))
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := s.killPlugin(h); err != nil {
			return err
		}
	}
	return nil
}

// reason is the engine's sentence out of what docker run printed.
func reason(err error) string {
	for line := range strings.Lines(err.Error()) {
		if _, said, ok := strings.Cut(line, "Error response from daemon: "); ok {
			return strings.TrimSpace(said)
		}
	}
	return err.Error()
}

// restartPolicy: after SIGKILL of the engine, and after an orderly end.
func restartPolicy(s *scene) {
	n := s.network("blue")
	all := s.runOnAll("a", "--network", "blue", "--restart", "always")
	all = append(all, s.runOnAll("b", "--network", "blue", "--restart", "always")...)
	for i, h := range s.hosts {
		all = append(all, s.run(h, "asked", "--network", "blue", "--restart", "always",
			"--ip", at(n.v4, 200+i).String(), "--ip6", at(n.v6, 200+i).String()))
	}
	s.reach(allPairs("blue", all...))
	for _, end := range []func(*lab.Host) error{s.killEngine, func(h *lab.Host) error { return h.StopEngine(s.ctx) }} {
		s.all(end)
		s.all(func(h *lab.Host) error { return h.StartEngine(s.ctx) })
		all = s.again(all...)
		s.reachAgain(allPairs("blue", all...))
		s.distinct("blue", all...)
		for i, c := range all[6:] {
			if p := c.nets["blue"]; p.v4 != at(n.v4, 200+i) || p.v6 != at(n.v6, 200+i) {
				s.Errorf("%s: came back with %s %s, was promised %s %s", c, p.v4, p.v6, at(n.v4, 200+i), at(n.v6, 200+i))
			}
		}
		s.until("each host has what its containers have, and no more", func() error {
			return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, 3) })
		})
		s.joined(s.hosts...)
	}
}

func pluginRestart(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	probes := s.probe(allPairs("blue", all...))
	s.all(func(h *lab.Host) error {
		if _, err := h.Docker(s.ctx, "plugin", "disable", "-f", plugin); err != nil {
			return err
		}
		_, err := h.Docker(s.ctx, "plugin", "enable", plugin)
		return err
	})
	s.joined(s.hosts...)
	s.more(probes, 100)
	s.lossless("the plugin disabled and enabled on all hosts at once", probes, true)
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "restart", all[s.index(h)].name)
		return err
	})
	s.reach(allPairs("blue", s.again(all...)...))
}
