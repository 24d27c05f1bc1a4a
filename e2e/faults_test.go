//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"time"

	"github.com/carricknet/carrick/lab"
)

var faults = []scenario{
	{"TrafficGoesOnWhileThePluginIsKilled", pluginKilled},
	{"TrafficGoesOnWhileThePluginIsDisabled", pluginDisabled},
	{"TrafficGoesOnWhileTheEngineIsDead", engineKilled},
	{"TrafficGoesOnThroughALiveRestore", liveRestore},
}

func pluginKilled(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	for range s.scale.pluginKills {
		for _, h := range s.hosts {
			s.must(s.killPlugin(h))
			s.joined(s.hosts...)
		}
		s.all(s.killPlugin)
		s.joined(s.hosts...)
	}
	s.more(probes, 100)
	s.lossless("kill -9 of the plugin, on each host and on all at once", probes, true)
	s.all(func(h *lab.Host) error { return s.hasEndpoints(h, 1) })
	more := s.runOnAll("more", "--network", "blue")
	s.reach(allPairs("blue", append(all, more...)...))
}

// accepted is how long an engine that has started a plugin again waits before it looks for its socket. One that was killed
// once more until then it gives up for good (moby, plugin/manager_linux.go, pluginPostStart: 500 ms).
const accepted = 2500 * time.Millisecond

// killPlugin ends the plugin's process on a host and returns when the engine has started it again.
func (s *scene) killPlugin(h *lab.Host) error {
	was, err := h.PluginPID(s.ctx, plugin)
	if err != nil {
		return err
	}
	s.venue.figures.pluginKills.Add(1)
	if err := h.KillPlugin(s.ctx, plugin); err != nil {
		return err
	}
	return s.started(h, was)
}

// started waits until the engine has started a plugin again that was this process.
func (s *scene) started(h *lab.Host, was int) error {
	_, err := s.wait(patience, func() error {
		is, err := h.PluginPID(s.ctx, plugin)
		if err == nil && is == was {
			err = fmt.Errorf("%s: the engine does not start the plugin again", h.Name)
		}
		return err
	})
	return errors.Join(err, s.rest(accepted))
}

func pluginDisabled(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	away := s.hosts[1]
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	s.docker(away, "plugin", "disable", "-f", plugin)
	late := s.run(s.hosts[2], "late", "--network", "blue")
	s.docker(s.hosts[0], "rm", "-f", s.run(s.hosts[0], "short", "--network", "blue").name)
	s.pass(s.scale.away)
	s.on(s.others(away), func(o *lab.Host) error { return errors.Join(s.silent(o, away), s.suspended(o, away, false)) })
	s.docker(away, "plugin", "enable", plugin)
	s.joined(s.hosts...)
	s.more(probes, 100)
	s.lossless(fmt.Sprintf("the plugin of one host disabled for %s, and enabled", s.scale.away), probes, true)
	s.reach(allPairs("blue", append(all, late)...))
	s.must(s.hasEndpoints(s.hosts[0], 1))
	s.reach(allPairs("blue", append(all, late, s.run(away, "more", "--network", "blue"))...))
}

func engineKilled(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	s.all(s.killEngine)
	s.pass(s.scale.engineAway)
	s.lossless("dockerd killed on all hosts", probes, true)
	s.all(func(h *lab.Host) error { return h.StartEngine(s.ctx) })
	s.joined(s.hosts...)
	// An engine that starts without --live-restore kills what still runs.
	s.until("the dead containers have nothing left", func() error {
		return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, 0) })
	})
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "start", all[s.index(h)].name)
		return err
	})
	all = s.again(all...)
	s.reach(allPairs("blue", all...))
}

func liveRestore(s *scene) {
	s.all(func(h *lab.Host) error { return h.RestartEngine(s.ctx, "--live-restore") })
	s.joined(s.hosts...)
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	s.all(s.killEngine)
	s.pass(s.scale.restored)
	s.all(func(h *lab.Host) error { return h.StartEngine(s.ctx, "--live-restore") })
	s.joined(s.hosts...)
	s.pass(s.scale.restored)
	s.lossless("dockerd killed on all hosts and started again with --live-restore", probes, true)
	s.all(func(h *lab.Host) error { return s.hasEndpoints(h, 1) })
	more := s.runOnAll("more", "--network", "blue")
	s.reach(allPairs("blue", append(all, more...)...))
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "rm", "-f", all[s.index(h)].name)
		return err
	})
	s.until("containers of before the restore have nothing left", func() error {
		return onAll(s.hosts, func(h *lab.Host) error { return s.hasEndpoints(h, 1) })
	})
	s.reach(allPairs("blue", more...))
	s.all(func(h *lab.Host) error { return h.RestartEngine(s.ctx) })
	s.joined(s.hosts...)
}
