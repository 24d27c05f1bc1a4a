//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var upgrades = []scenario{
	{"InstalledFromARegistryAndUpgradedUnderLoad", upgraded},
}

const (
	previousDir = "../build/previous/plugin" // of the commit before this one
	repository  = "/carrick"                 // at the registry
)

// upgraded installs the previous build from a registry on all hosts, and upgrades one after the other to this one.
func upgraded(s *scene) {
	s.uninstall(s.hosts...)
	s.all(func(h *lab.Host) error { return s.asBefore(h, s.venue.bare[h.Name]) })
	registry, err := s.hosts[0].StartRegistry(s.ctx)
	s.must(err)
	old, now := registry+repository+":previous", registry+repository+":latest"
	s.push(s.hosts[0], old, previousDir)
	s.push(s.hosts[0], now, pluginDir)
	s.all(func(h *lab.Host) error { return s.installFrom(h, old) })
	s.joined(s.hosts...)
	was := s.versions()
	n := s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	asked := s.run(s.hosts[1], "asked", "--network", "blue", "--ip", at(n.v4, 99).String(), "--ip6", at(n.v6, 99).String())
	all = append(all, asked)
	s.reach(allPairs("blue", all...))
	ids := s.nodeIDs()
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	for i, h := range s.hosts {
		s.upgrade(h, now)
		s.joined(s.hosts...)
		// Old and new in one cluster: each makes a network that the other joins, and starts what the other reaches.
		name := fmt.Sprint("mixed", i)
		s.network(name)
		mixed := s.runOnAll(name, "--network", name)
		s.reach(allPairs(name, mixed...))
		late := s.run(h, fmt.Sprint("late", i), "--network", "blue")
		s.reach(allPairs("blue", append(all, late)...))
		all = append(all, late)
	}
	s.more(probes, 100)
	s.lossless("docker plugin upgrade on one host after the other", probes, true)
	s.distinct("blue", all...)
	if after := s.nodeIDs(); !maps.Equal(ids, after) {
		s.Errorf("nodes were %v, are %v: the upgrade lost who they are", ids, after)
	}
	is := s.versions()
	s.Logf("upgraded from %v to %v", was, is)
	for host, version := range is {
		if version == was[host] {
			s.Errorf("%s: the plugin's version is %s as before", host, version)
		}
	}
	s.until("each host has its endpoints, and no more", func() error {
		return onAll(s.hosts, func(h *lab.Host) error {
			want := 5 // c, late, three of mixed
			if h == asked.host {
				want++
			}
			return s.hasEndpoints(h, want)
		})
	})
	// What the previous build has leased is leased.
	taken := asked.nets["blue"].v4.String()
	s.refused(s.hosts[2], []string{taken}, "run", "-d", "--network", "blue", "--ip", taken, lab.Image)
	s.docker(s.hosts[2], "container", "prune", "-f")
	s.docker(asked.host, "restart", asked.name)
	all = s.again(all...)
	s.reachAgain(allPairs("blue", all...))

	s.all(s.sweep)
	s.uninstall(s.hosts...)
	s.must(s.hosts[0].StopRegistry(s.ctx))
	s.all(func(h *lab.Host) error { return s.asBefore(h, s.venue.bare[h.Name]) })
	s.install(s.venue.settings(), s.hosts...)
	s.joined(s.hosts...)
	s.fresh(s.hosts...)
}

// push makes a plugin of a directory under the name by which a registry knows it, and leaves it only there.
func (s *scene) push(h *lab.Host, name, dir string) {
	s.Helper()
	const at = "/var/tmp/push"
	s.must(h.Copy(s.ctx, dir, at))
	s.docker(h, "plugin", "create", name, at)
	s.docker(h, "plugin", "push", name)
	s.docker(h, "plugin", "rm", name)
	_, err := h.Run(s.ctx, "rm", "-r", at)
	s.must(err)
}

// installFrom is what the documentation tells users to do.
func (s *scene) installFrom(h *lab.Host, name string) error {
	alias, _, _ := strings.Cut(plugin, ":")
	args := []string{"plugin", "install", "--grant-all-permissions", "--alias", alias, name}
	for key, value := range s.venue.settings() {
		args = append(args, key+"="+value)
	}
	_, err := h.Docker(s.ctx, args...)
	return err
}

// upgrade: the reference differs from the one it was installed from by its tag, which the engine would ask about.
func (s *scene) upgrade(h *lab.Host, name string) {
	s.Helper()
	s.docker(h, "plugin", "disable", "-f", plugin)
	s.docker(h, "plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", plugin, name)
	s.docker(h, "plugin", "enable", plugin)
}

// versions of the plugin by host.
func (s *scene) versions() map[string]string {
	s.Helper()
	all := map[string]string{}
	for _, h := range s.hosts {
		st, err := s.status(h)
		s.must(err)
		all[h.Name] = st.Version
	}
	return all
}

// nodeIDs by name, as all hosts agree on them.
func (s *scene) nodeIDs() map[string]string {
	s.Helper()
	ids := map[string]string{}
	for _, h := range s.hosts {
		st, err := s.status(h)
		s.must(err)
		for _, n := range st.Cluster.Nodes {
			if other, ok := ids[n.Name]; ok && other != n.ID {
				s.Errorf("%s: %s is node %s, for another host it is %s", h.Name, n.Name, n.ID, other)
			}
			ids[n.Name] = n.ID
		}
	}
	return ids
}
