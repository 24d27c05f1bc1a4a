//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/carricknet/carrick/lab"
)

// hostsComeAndGo: what happens to hosts, and to the wire between them.
var hostsComeAndGo = []scenario{
	{"AHostLosesItsPower", powerCord},
	{"AHostIsSuspendedWhenItIsGoneAndNotWhenItsPluginIs", suspension},
	{"AHostGetsAnotherAddress", otherAddress},
	{"AllHostsGetOtherAddressesAtOnce", renumbered},
	{"ANetworkCardGoesDownAndUp", cardDown},
	{"TheUnderlayBecomesSmaller", smallerUnderlay},
	{"AForgottenHostIsShutOut", shutOut},
	{"AHostIsInstalledAnew", reinstalled},
	{"OneOfTwoHostsIsLostForGood", recovered},
	{"ADiskIsCopied", cloned},
	{"AHostAndACopyOfItBootTogether", clonedTogether},
	{"ADiskGoesBackInTime", oldDisk},
}

// powerCord: what the others send to a host without power is lost, so they stop soon; and it is back as soon as it is up.
func powerCord(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue", "--restart", "always")
	h := s.hosts[2]
	s.reach(allPairs("blue", all...))
	others := s.probe(allPairs("blue", all[0], all[1]))
	s.more(s.probe(between("blue", all[:2], all[2:])), 20) // goes on until the end: somebody talks to it all the time
	cord := time.Now()
	s.must(h.PowerOff(s.ctx))
	s.stopSending(h, cord)
	s.on(s.others(h), func(o *lab.Host) error {
		if said, err := sees(s, o, 2*time.Second, "eth0", "udp port 4789 and dst host "+h.IPv4); err != nil || said != "" {
			return fmt.Errorf("%s still sends to %s: %s, %w", o.Name, h.Name, said, err)
		}
		return nil
	})
	power := time.Now()
	s.must(h.PowerOn(s.ctx))
	s.Logf("power is on, the engine answers after %s", since(power))
	engine := time.Now()
	all = s.again(all...)
	s.reachAgain(allPairs("blue", all...))
	s.Logf("every container reaches every other %s after the power, %s after the engine was back", since(power), since(engine))
	s.lossless("the others meanwhile", others, true)
	s.joined(s.hosts...)
	s.fresh(h)
}

// stopSending waits until no host has anything that leads to h, and prints how long that took from the beginning, and from
// memberlist's word on that host that the node is dead.
func (s *scene) stopSending(h *lab.Host, began time.Time) {
	s.Helper()
	var mu sync.Mutex
	said := map[string]string{}
	s.until("nothing is sent to "+h.Name, func() error {
		return onAll(s.others(h), func(o *lab.Host) error {
			dead, err := s.since(began, func() error { return s.silent(o, h) })
			if err != nil {
				return err
			}
			gone, err := s.since(began, func() error { return s.forwards(o, h.IPv4, false) })
			mu.Lock()
			defer mu.Unlock()
			if said[o.Name] == "" && err == nil {
				said[o.Name] = fmt.Sprintf("%s: dead after %s, no entry towards it after %s: %s later (aim: 1 s)", o.Name, dead, gone, gone-dead)
			}
			return err
		})
	})
	for _, line := range said {
		s.Log(line)
	}
}

// since waits for f and tells when it was true first.
func (s *scene) since(began time.Time, f func() error) (time.Duration, error) {
	_, err := s.wait(patience, f)
	return since(began), err
}

// node is what a host's status says of another node.
func (s *scene) node(on, of *lab.Host) (nodeStatus, error) {
	st, err := s.status(on)
	if err != nil {
		return nodeStatus{}, err
	}
	if st.Cluster != nil {
		for _, n := range st.Cluster.Nodes {
			if n.Name == of.Name {
				return n, nil
			}
		}
	}
	return nodeStatus{}, fmt.Errorf("%s: has no node %s: %+v", on.Name, of.Name, st)
}

// silent is an error while a host takes another for alive.
func (s *scene) silent(on, of *lab.Host) error {
	n, err := s.node(on, of)
	if err == nil && n.Alive {
		err = fmt.Errorf("%s: %s is alive: %+v", on.Name, of.Name, n)
	}
	return err
}

// suspended is an error unless a host has suspended another, or has not.
func (s *scene) suspended(on, of *lab.Host, want bool) error {
	n, err := s.node(on, of)
	if err == nil && n.Suspended != want {
		err = fmt.Errorf("%s: %s is suspended: %t, want %t: %+v", on.Name, of.Name, n.Suspended, want, n)
	}
	return err
}

// shared is where a plugin keeps its namespace on a host.
const shared = "/run/docker/carrick/shared"

// forwards is an error unless a host has forwarding entries towards a VTEP, or has none.
func (s *scene) forwards(on *lab.Host, vtep string, want bool) error {
	fdb, err := on.Run(s.ctx, "nsenter", "--net="+shared, "bridge", "fdb", "show")
	if err != nil {
		return err
	}
	var towards []string
	for line := range strings.Lines(fdb) {
		if strings.Contains(line, " dst "+vtep+" ") {
			towards = append(towards, strings.TrimSpace(line))
		}
	}
	if len(towards) > 0 != want {
		return fmt.Errorf("%s: entries towards %s: %q, want some: %t", on.Name, vtep, towards, want)
	}
	return nil
}

// sees returns the first packet that passes a device of a host within some time; "" if there was none.
func sees(s *scene, on *lab.Host, limit time.Duration, dev, filter string) (string, error) {
	return on.Run(s.ctx, "sh", "-c", fmt.Sprintf("timeout %g tcpdump -l -n -c 1 -i %s '%s' 2>/dev/null || [ $? = 124 ]",
		limit.Seconds(), dev, filter))
}

// suspension: the containers of a host whose plugin is gone are reached, and its return is seen by nobody. When the host is
// gone the others say so, and take it back before its plugin is there.
func suspension(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	h := s.hosts[2]
	others := s.probe(allPairs("blue", all[0], all[1]))
	probes := s.probe(between("blue", all[:2], all[2:]))
	s.more(probes, 20)
	s.docker(h, "plugin", "disable", "-f", plugin)
	s.until("the others find that its plugin is gone", func() error {
		return onAll(s.others(h), func(o *lab.Host) error { return s.silent(o, h) })
	})
	until := time.Now().Add(s.scale.away / 6)
	for time.Now().Before(until) {
		s.pass(time.Second)
		s.on(s.others(h), func(o *lab.Host) error { return s.suspended(o, h, false) })
	}
	for _, o := range s.others(h) {
		s.shows(o, "silent, but their hosts answer: "+h.Name)
	}
	s.lossless("a host without its plugin", probes, true)
	s.must(s.venue.lab.Cut(s.ctx, h))
	s.until("its host is gone: it is suspended", func() error {
		return onAll(s.others(h), func(o *lab.Host) error { return s.suspended(o, h, true) })
	})
	for _, o := range s.others(h) {
		s.shows(o, "suspended, for their hosts do not answer: "+h.Name)
		s.must(s.forwards(o, h.IPv4, false))
	}
	s.must(s.venue.lab.Heal(s.ctx, h))
	s.reach(allPairs("blue", all...))
	s.on(s.others(h), func(o *lab.Host) error { return s.suspended(o, h, false) })
	s.docker(h, "plugin", "enable", plugin)
	s.joined(s.hosts...)
	s.lossless("the others meanwhile", others, true)
	s.reach(allPairs("blue", append(all, s.run(h, "more", "--network", "blue"))...))
}

// shows demands words of the table that `carrick status` prints.
func (s *scene) shows(h *lab.Host, words string) {
	s.Helper()
	out, err := h.Run(s.ctx, "sh", "-c", binary+" status || true") // it fails when not all is well
	if err != nil || !strings.Contains(out, words) {
		s.Errorf("%s: carrick status: no %q in it, %v:\n%s", h.Name, words, err, out)
	}
}

// cardDown: a wire that is pulled for a second, and one that is pulled until the others have given the host up.
func cardDown(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	h := s.hosts[1]
	local := s.run(h, "local", "--network", "blue")
	s.reach(allPairs("blue", append(all, local)...))
	pid, err := h.PluginPID(s.ctx, plugin)
	s.must(err)
	others := s.probe(allPairs("blue", all[0], all[2]))
	inside := s.probe(allPairs("blue", all[1], local))
	for _, down := range []struct {
		what string
		wait func()
	}{
		{"a second", func() { s.pass(time.Second) }},
		{"so long that the others give it up", func() {
			s.until("it is suspended", func() error {
				return onAll(s.others(h), func(o *lab.Host) error { return s.suspended(o, h, true) })
			})
		}},
	} {
		s.must(h.LinkDown(s.ctx))
		down.wait()
		s.must(h.LinkUp(s.ctx))
		took := s.reach(allPairs("blue", append(all, local)...))
		s.Logf("eth0 was down for %s: every container reaches every other %s after it was up", down.what, took)
		s.joined(s.hosts...)
	}
	s.lossless("the others meanwhile", others, true)
	s.lossless("within the host meanwhile", inside, true)
	if now, err := h.PluginPID(s.ctx, plugin); err != nil || now != pid {
		s.Errorf("the plugin was process %d and is %d, %v", pid, now, err)
	}
}

// smallerUnderlay: somebody lowers the MTU below what a network needs.
func smallerUnderlay(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	h := s.hosts[1]
	id := s.docker(h, "network", "inspect", "-f", "{{.Id}}", "blue")[:12]
	large := func(from *container, want bool) error {
		_, err := h.Run(s.ctx, from.in("ping", "-q", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", all[0].nets["blue"].v4.String())...)
		if (err == nil) != want {
			return fmt.Errorf("packets of 1428 bytes pass: want %t: %w", want, err)
		}
		return nil
	}
	s.until("large packets pass", func() error { return large(all[1], true) })
	probes := s.probe(allPairs("blue", all...))
	s.must(h.SetMTU(s.ctx, 1400))
	warning := []string{"network " + id, "MTU 1450", "eth0 has 1400 bytes", "1350 remain", "raise the MTU of eth0 to 1500"}
	s.says(h, warning...)
	s.must(large(all[1], false))
	// It stays so for a plugin that starts now, and what is new runs on the old network, too.
	s.must(s.killPlugin(h))
	s.joined(s.hosts...)
	s.says(h, warning...)
	more := s.run(h, "more", "--network", "blue")
	s.reach(allPairs("blue", append(all, more)...))
	// A new network is as large as what is there now, on all hosts if this one makes it.
	v4, v6 := s.nextSubnets()
	green := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	s.must(s.create(h, "green", green...))
	s.on(s.others(h), func(o *lab.Host) error { return s.create(o, "green", green...) })
	for _, c := range s.runOnAll("green", "--network", "green") {
		if mtu := s.exec(c, "cat", "/sys/class/net/eth0/mtu"); mtu != "1350" {
			s.Errorf("%s: the MTU of a new network is %s, want 1350", c, mtu)
		}
	}
	v4, _ = s.nextSubnets()
	s.must(s.create(s.hosts[0], "red", "--subnet", v4.String()))
	s.refused(h, words("1450", "eth0", "1400", "1350"), createArgs("red", "--subnet", v4.String())...)
	s.must(h.SetMTU(s.ctx, 1500))
	s.until("the warning goes", func() error {
		st, err := s.status(h)
		if err == nil && strings.Contains(st.text(), "does not fit") {
			err = fmt.Errorf("%s", st.text())
		}
		return err
	})
	// The other one remembers that the way was narrow, for 10 minutes (net.ipv4.route.mtu_expires).
	s.until("large packets pass again", func() error { return large(more, true) })
	s.lossless("small packets all the while", probes, true)
	s.must(s.create(h, "red", "--subnet", v4.String()))
}
