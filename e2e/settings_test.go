//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

var settings = []scenario{
	{"WithoutASecretAHostIsOnItsOwn", withoutSecret},
	{"BadSettingsAreAnsweredAndThePluginStays", badSettings},
	{"AWrongSecretNeverJoins", wrongSecret},
	{"ASecondNodeOfOneNameIsRefused", secondName},
}

// A status is what `carrick status --json` says.
type status struct {
	State   string   `json:"state"`
	Version string   `json:"version"`
	Reason  string   `json:"reason"`
	Waiting string   `json:"waiting"`
	Alarms  []string `json:"alarms"`
	Cluster *struct {
		State   string       `json:"state"`
		Reason  string       `json:"reason"`
		Cluster string       `json:"cluster"`
		Leader  string       `json:"leader"`
		Quorum  bool         `json:"quorum"`
		Voters  []string     `json:"voters"`
		Alarms  []string     `json:"alarms"`
		Nodes   []nodeStatus `json:"nodes"`
	} `json:"cluster"`
}

// A nodeStatus is what it says of one node.
type nodeStatus struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Addr      string `json:"addr"`
	Alive     bool   `json:"alive"`
	Suspended bool   `json:"suspended"`
}

// joined is an error unless this node is in a cluster of so many nodes that are all alive, with a quorum.
func (st status) joined(nodes int) error {
	switch {
	case st.State != "ready" || st.Cluster == nil:
		return fmt.Errorf("%+v: not ready", st)
	case st.Cluster.State != "member" || !st.Cluster.Quorum || st.Cluster.Leader == "":
		return fmt.Errorf("%+v: no member with a quorum", *st.Cluster)
	case len(st.Cluster.Nodes) != nodes:
		return fmt.Errorf("%+v: want %d nodes", *st.Cluster, nodes)
	}
	for _, n := range st.Cluster.Nodes {
		if !n.Alive || n.Suspended {
			return fmt.Errorf("%s is not alive: %+v", n.Name, *st.Cluster)
		}
	}
	return nil
}

// text is everything it says in words.
func (st status) text() string {
	all := append([]string{st.State, st.Reason, st.Waiting}, st.Alarms...)
	if st.Cluster != nil {
		all = append(append(all, st.Cluster.State, st.Cluster.Reason), st.Cluster.Alarms...)
	}
	return strings.Join(all, "\n")
}

// says waits until the status of a host has these words.
func (s *scene) says(h *lab.Host, list ...string) {
	s.Helper()
	s.until(fmt.Sprintf("`carrick status` on %s says %q", h.Name, list), func() error {
		st, err := s.status(h)
		if err != nil {
			return err
		}
		for _, word := range list {
			if !strings.Contains(st.text(), word) {
				return fmt.Errorf("no %q in %q", word, st.text())
			}
		}
		return nil
	})
}

// dismiss takes a host out of the cluster and the plugin off it, and checks that nothing of it is left there.
func (s *scene) dismiss(h *lab.Host) {
	s.Helper()
	_, err := h.Run(s.ctx, binary, "leave", "--yes")
	s.must(err)
	s.uninstall(h)
	if err := s.asBefore(h, s.venue.bare[h.Name]); err != nil {
		s.Errorf("the plugin is removed: %v", err)
	}
	s.joined(s.others(h)...)
}

func (s *scene) others(h *lab.Host) []*lab.Host {
	var all []*lab.Host
	for _, o := range s.hosts {
		if o != h {
			all = append(all, o)
		}
	}
	return all
}

// set changes settings of an installed plugin and enables it.
func (s *scene) set(h *lab.Host, settings map[string]string) {
	s.Helper()
	if _, err := h.Docker(s.ctx, "plugin", "disable", "-f", plugin); err != nil && !strings.Contains(err.Error(), "already disabled") {
		s.Fatal(err)
	}
	args := []string{"plugin", "set", plugin}
	for name, value := range settings {
		args = append(args, name+"="+value)
	}
	s.docker(h, args...)
	s.docker(h, "plugin", "enable", plugin)
}

// resume puts a host that was dismissed back with the others, which its next scenario expects.
func (s *scene) resume(h *lab.Host) {
	s.Helper()
	s.joined(s.hosts...)
	s.works()
	s.must(s.sweep(h))
	// The engine gives a plugin that was installed anew another identifier, which is in its mounts.
	var err error
	s.venue.empty[h.Name], err = h.Settled(s.ctx)
	s.must(err)
}

// works makes a network on all hosts, uses it and removes it.
func (s *scene) works() {
	s.Helper()
	s.network("works")
	all := s.runOnAll("works", "--network", "works")
	s.reach(allPairs("works", all...))
	s.all(s.sweep)
}

func withoutSecret(s *scene) {
	h := s.hosts[2]
	s.dismiss(h)
	s.install(nil, h)
	now, err := h.Settled(s.ctx)
	s.must(err)
	was, is := s.venue.bare[h.Name].Section("host: listen"), now.Section("host: listen")
	if strings.Join(was, "\n") != strings.Join(is, "\n") {
		s.Errorf("without SECRET the plugin listens:\n%s\nbefore:\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
	}
	pid, err := h.PluginPID(s.ctx, plugin)
	s.must(err)
	// Neither does it talk: of all its sockets none is of the internet families.
	out, err := h.Run(s.ctx, "sh", "-c", fmt.Sprintf("ss -H -n -a -p -t -u | grep 'pid=%d,' || true", pid))
	s.must(err)
	if out != "" {
		s.Errorf("without SECRET the plugin has sockets:\n%s", out)
	}
	v4, v6 := s.nextSubnets()
	flags := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	s.refused(h, words("overlay", "SECRET", "docker plugin set "+plugin), createArgs("blue", append(flags, "-o", "mode=overlay")...)...)
	s.must(s.create(h, "alone", flags...))
	if all := s.networks(h); len(all) != 1 || all[0].Mode != "bridge" {
		s.Errorf("without SECRET the default mode is bridge, got %+v", all)
	}
	s.reach(allPairs("alone", s.run(h, "c1", "--network", "alone"), s.run(h, "c2", "--network", "alone")))
	// Everything is chosen: subnets out of the plugin's own pools.
	s.must(s.create(h, "chosen"))
	s.reach(allPairs("chosen", s.run(h, "c3", "--network", "chosen"), s.run(h, "c4", "--network", "chosen")))
	s.must(s.sweep(h))
	s.set(h, s.venue.settings())
	s.resume(h)
}

func badSettings(s *scene) {
	h := s.hosts[2]
	good := s.venue.settings()
	s.dismiss(h)
	s.install(map[string]string{"JOIN": good["JOIN"]}, h)
	v4, _ := s.nextSubnets()
	for _, bad := range []struct {
		settings map[string]string
		words    []string
	}{
		{map[string]string{"JOIN": good["JOIN"]}, words("JOIN", "SECRET")},
		{map[string]string{"SECRET": "hunter2"}, words("SECRET", "carrick secret")},
		{map[string]string{"SECRET": strings.Repeat("secret", 10)}, words("SECRET", "carrick secret")},
		{map[string]string{"GOSSIP_PORT": "70000"}, words("GOSSIP_PORT=70000")},
		{map[string]string{"JOIN": "198.51.100.999"}, words("198.51.100.999")},
		{map[string]string{"ADVERTISE": "eth7"}, words("eth7")},
		{map[string]string{"POOLS": "10.0.0.0/33"}, words("10.0.0.0/33")},
		{map[string]string{"LOG_LEVEL": "loud", "NODE": "no de"}, words("loud", "no de")},
	} {
		all := map[string]string{"SECRET": "", "JOIN": "", "GOSSIP_PORT": "", "POOLS": "", "LOG_LEVEL": "", "NODE": "", "ADVERTISE": ""}
		if _, ok := bad.settings["SECRET"]; !ok && bad.settings["JOIN"] != good["JOIN"] {
			all["SECRET"] = good["SECRET"]
		}
		maps.Copy(all, bad.settings)
		s.set(h, all)
		s.says(h, bad.words...)
		s.refused(h, bad.words, createArgs("blue", "--subnet", v4.String(), "-o", "mode=bridge")...)
		if secret := bad.settings["SECRET"]; secret != "" && strings.Contains(s.engineLog(h), "SECRET="+secret) {
			s.Errorf("the secret %q is in the log", secret)
		}
		if enabled := s.docker(h, "plugin", "inspect", "-f", "{{.Enabled}}", plugin); enabled != "true" {
			s.Errorf("%v: the plugin is disabled: it has ended", bad.settings)
		}
	}
	s.set(h, map[string]string{"SECRET": good["SECRET"], "JOIN": good["JOIN"], "GOSSIP_PORT": "", "POOLS": "", "LOG_LEVEL": "",
		"NODE": "", "ADVERTISE": ""})
	s.resume(h)
}

func wrongSecret(s *scene) {
	h := s.hosts[2]
	s.dismiss(h)
	other := s.venue.settings()
	secret, err := h.Run(s.ctx, binary, "secret")
	s.must(err)
	other["SECRET"] = secret
	s.install(other, h)
	s.says(h, "SECRET")
	for _, o := range s.others(h) {
		s.says(o, "SECRET", h.IPv4)
	}
	// Not even later: twice as long as founding a cluster takes.
	until := time.Now().Add(20 * time.Second)
	_, err = s.wait(patience, func() error {
		st, err := s.status(h)
		if err == nil && st.Cluster != nil && st.Cluster.Cluster != "" {
			s.Errorf("%s is in a cluster: %+v", h.Name, *st.Cluster)
		}
		if time.Now().Before(until) {
			return errors.New("wait")
		}
		return err
	})
	s.must(err)
	s.joined(s.others(h)...)
	s.refused(h, words("cluster"), createArgs("blue", "--subnet", "10.79.0.0/24")...)
	s.set(h, s.venue.settings())
	s.resume(h)
}

func secondName(s *scene) {
	h := s.hosts[2]
	s.dismiss(h)
	taken := s.venue.settings()
	taken["NODE"] = s.hosts[1].Name
	s.install(taken, h)
	s.says(h, s.hosts[1].Name, "carrick forget "+s.hosts[1].Name, "NODE")
	s.joined(s.others(h)...)
	s.set(h, map[string]string{"NODE": h.Name})
	s.resume(h)
}
