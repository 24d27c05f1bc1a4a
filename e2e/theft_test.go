//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/carricknet/carrick/e2e/forge"
	"github.com/carricknet/carrick/lab"
)

// theft: a container that says it has the address of one on another host, or sends with its MAC, takes nothing from it: not
// on other hosts, and on its own not what is sent to that MAC.
func theft(s *scene) {
	s.arm()
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	near, owner, far := all[0], all[1], all[2]
	thief := s.run(near.host, "thief", append([]string{"--network", "blue"}, armed...)...)
	s.reach(allPairs("blue", append(all, thief)...))
	theirs, device := owner.nets["blue"], s.device(thief, "blue")
	claims := []*forge.Frame{
		{Src: forge.MAC(thief.nets["blue"].mac), From: theirs.v4, Claim: true},
		{Src: forge.MAC(thief.nets["blue"].mac), From: theirs.v6, Claim: true},
	}
	var list []forgery
	for i, claim := range claims {
		list = append(list, forgery{name: []string{"ARP", "neighbour discovery"}[i] + " claim", by: s.by(thief),
			order: forge.Order{Device: device, Frame: claim}})
	}
	probes := s.probe(between("blue", []*container{far}, []*container{owner}))
	for i, n := range s.arrived("blue", far, owner, list) {
		if n != 0 {
			s.Errorf("%s: %d arrived on another host", list[i].name, n)
		}
	}
	s.lossless("from another host, while the address is claimed", probes, true)
	vxlan := s.deviceOf(thief.host, "ckx", "blue")
	s.unwatched(thief.host, func() {
		s.inShared(thief.host, "bridge", "link", "set", "dev", vxlan, "neigh_suppress", "off")
		for i, n := range s.arrived("blue", far, owner, list) {
			if n == 0 {
				s.Errorf("%s: does not arrive on another host without the defence either", list[i].name)
			}
		}
		s.inShared(thief.host, "bridge", "link", "set", "dev", vxlan, "neigh_suppress", "on")
	})

	// Those on the thief's own host may believe the claim, as on any bridge of Docker's. What they send to the owner's MAC
	// comes to the owner all the same.
	s.all(func(h *lab.Host) error { // begin anew
		for _, c := range append(all, thief) {
			if c.host == h {
				if _, err := h.Run(s.ctx, c.in("ip", "neigh", "flush", "all")...); err != nil {
					return err
				}
			}
		}
		return nil
	})
	s.reach(allPairs("blue", all...))
	masks := forge.Order{Device: device, Count: 200, Pause: 5 * time.Millisecond,
		Frame: &forge.Frame{Src: forge.MAC(theirs.mac), From: thief.nets["blue"].v4, To: near.nets["blue"].v4, Text: "mask"}}
	hops := between("blue", []*container{near, far}, []*container{owner})
	probes = s.probe(hops)
	s.must(s.by(thief)(masks))
	s.lossless("to the owner of a MAC, while another sends with it", probes, true)

	port := s.portOf(thief)
	s.unwatched(thief.host, func() {
		s.inShared(thief.host, "bridge", "link", "set", "dev", port, "learning", "on")
		s.must(s.by(thief)(masks))
		failed, err := s.failing(between("blue", []*container{near}, []*container{owner}))
		s.must(err)
		if len(failed) == 0 {
			s.Error("the owner of the MAC is reached where the bridge learns, too: so that this proves nothing")
		}
		s.inShared(thief.host, "bridge", "link", "set", "dev", port, "learning", "off")
		s.inShared(thief.host, "bridge", "fdb", "replace", theirs.mac, "dev", vxlan, "master", "static")
	})
	s.reach(hops)
	s.joined(s.hosts...)
}

// unwatched keeps the plugin of a host from repairing what f does. It is not to take longer than the others need to find out,
// some seconds.
func (s *scene) unwatched(h *lab.Host, f func()) {
	s.Helper()
	pid, err := h.PluginPID(s.ctx, plugin)
	s.must(err)
	_, err = h.Run(s.ctx, "kill", "-STOP", fmt.Sprint(pid))
	s.must(err)
	defer func() {
		_, err := h.Run(s.ctx, "kill", "-CONT", fmt.Sprint(pid))
		s.must(err)
	}()
	f()
}

// inShared runs a command in the plugin's namespace of a host.
func (s *scene) inShared(h *lab.Host, args ...string) string {
	s.Helper()
	out, err := h.Run(s.ctx, append([]string{"nsenter", "--net=" + sharedPath}, args...)...)
	s.must(err)
	return out
}

// deviceOf is the name of a network's bridge or VXLAN device.
func (s *scene) deviceOf(h *lab.Host, kind, network string) string {
	s.Helper()
	return kind + s.docker(h, "network", "inspect", "-f", "{{.Id}}", network)[:12]
}

// portOf is a container's port of the bridge: the one that leads to its MAC.
func (s *scene) portOf(c *container) string {
	s.Helper()
	text := s.docker(c.host, "inspect", "-f", `{{(index .NetworkSettings.Networks "blue").EndpointID}}`, c.name)
	return "ckh" + text[:12]
}

// forgottenStranger: a host that is forgotten while it lives on with its containers is heard no more.
func forgottenStranger(s *scene) {
	s.arm()
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	victim, friend, h := all[0], all[1], s.hosts[2]
	order := forge.Order{To: netip.AddrPortFrom(vtep(victim.host, false), vxlanPort), VXLAN: &forge.VXLAN{VNI: s.vni(h, "blue")},
		Frame: unasked(victim, "blue")["datagram"]}
	list := []forgery{{name: h.Name, by: s.from(h), order: order}}
	heard := func(when string, want bool) {
		s.Helper()
		if n := s.arrived("blue", victim, friend, list)[0]; (n != 0) != want {
			s.Errorf("%s: %d of %d frames of %s arrived, heard it should be: %v", when, n, burst, h.Name, want)
		}
	}
	heard("as a node", true)
	s.docker(h, "plugin", "disable", "-f", plugin)
	heard("while its plugin is disabled", true)
	s.until("it is forgotten", func() error {
		_, err := s.hosts[0].Run(s.ctx, binary, "forget", "--yes", h.Name)
		return err
	})
	s.joined(s.others(h)...)
	s.until("the rules follow", func() error {
		out, err := victim.host.Run(s.ctx, "nft", "list", "table", "inet", "carrick")
		if err == nil && strings.Contains(out, h.IPv4) {
			err = fmt.Errorf("%s is still in\n%s", h.IPv4, out)
		}
		return err
	})
	heard("forgotten", false)
	s.apart(between("blue", all[2:], all[:2]))
	s.docker(h, "plugin", "enable", plugin)
	s.says(h, "forgotten")
	heard("back again", false)
	s.apart(between("blue", all[2:], all[:2]))
	s.reach(allPairs("blue", all[:2]...))
	s.must(s.sweep(h))
	s.uninstall(h)
	s.install(s.venue.settings(), h)
	s.on(s.others(h), s.sweep)
	s.resume(h)
}

// garbage: who has no key changes nothing, whatever he sends to the ports of the control plane, and however much.
func garbage(s *scene) {
	s.arm()
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	inside := s.run(s.hosts[0], "inside", armed...)
	s.reach(allPairs("blue", all...))
	_, by := s.stranger()
	h := s.hosts[0]
	gossip, raft := netip.AddrPortFrom(vtep(h, false), 7947), netip.AddrPortFrom(vtep(h, false), 7948)

	// What one host says to another, to be said again.
	said := s.capture(h, gossip.Port(), 30)

	before := s.weigh(h)
	probes := s.probe(allPairs("blue", all...))
	stop, healthy := make(chan struct{}), make(chan error, 1)
	go func() { healthy <- s.stayWell(stop) }()
	for what, o := range map[string]forge.Order{
		"garbage":                {To: gossip, Count: 20_000, Garbage: 700, Pause: 50 * time.Microsecond},
		"short garbage":          {To: gossip, Count: 5_000, Garbage: 7, Pause: 50 * time.Microsecond},
		"gossip again":           {To: gossip, Count: 100, Payloads: said, Pause: 200 * time.Microsecond},
		"gossip as its sender":   {To: gossip, Count: 100, Payloads: said, From: vtep(s.hosts[1], false), Pause: 200 * time.Microsecond},
		"garbage over gossip":    {To: gossip, Count: 300, Garbage: 3000, Stream: true},
		"garbage over raft":      {To: raft, Count: 300, Garbage: 3000, Stream: true},
		"connections to raft":    {To: raft, Count: 300, Text: "", Stream: true},
		"gossip again over raft": {To: raft, Count: 10, Payloads: said, Stream: true},
	} {
		if err := by(o); err != nil {
			s.Errorf("%s: %v", what, err)
		}
	}
	s.must(s.by(inside)(forge.Order{To: gossip, Count: 5_000, Garbage: 700, Pause: 50 * time.Microsecond}))
	close(stop)
	if err := <-healthy; err != nil {
		s.Error(err)
	}
	s.lossless("under garbage", probes, true)
	now := s.weigh(h)
	const packets, kilobytes = 30_000, 64 << 10 // 64 MiB: twice what the plugin has
	if now.datagrams-before.datagrams < packets {
		s.Errorf("only %d datagrams came in: this proves nothing", now.datagrams-before.datagrams)
	}
	if now.resident-before.resident > kilobytes {
		s.Errorf("the plugin's memory grew from %d to %d kB", before.resident, now.resident)
	}
	st, err := s.status(h)
	s.must(err)
	s.Logf("%d datagrams; the plugin's memory was %d kB and is %d; alarms: %q", now.datagrams-before.datagrams,
		before.resident, now.resident, append(st.Alarms, st.Cluster.Alarms...))
	if n := len(st.Alarms) + len(st.Cluster.Alarms); n > 4 {
		s.Errorf("%d alarms", n)
	}
	s.joined(s.hosts...)
	late := s.run(h, "late", "--network", "blue")
	s.reach(allPairs("blue", append(all, late)...))
}

// stayWell looks at the cluster again and again until it is told to stop, and says what was wrong.
func (s *scene) stayWell(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(time.Second):
		}
		err := onAll(s.hosts, func(h *lab.Host) error {
			st, err := s.status(h)
			if err == nil {
				err = st.joined(len(s.hosts))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("under garbage: %w", err)
		}
	}
}

// A weight is what a plugin has received and keeps.
type weight struct {
	datagrams int // of the whole host
	resident  int // kB
}

func (s *scene) weigh(h *lab.Host) weight {
	s.Helper()
	pid, err := h.PluginPID(s.ctx, plugin)
	s.must(err)
	out, err := h.Run(s.ctx, "sh", "-euc", `awk '/^Udp: [0-9]/ { print $2 }' /proc/net/snmp
		awk '/^VmRSS:/ { print $2 }' "/proc/$0/status"`, fmt.Sprint(pid))
	s.must(err)
	var w weight
	_, err = fmt.Sscan(out, &w.datagrams, &w.resident)
	s.must(err)
	return w
}
