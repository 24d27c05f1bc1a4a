//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

// otherAddress: the host that leads gets another address while everything runs, as from a DHCP server that has lost its
// leases; and the old one again while it is off.
func otherAddress(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue", "--restart", "always")
	s.reach(allPairs("blue", all...))
	st, err := s.status(s.hosts[0])
	s.must(err)
	h := s.venue.lab.Host(st.Cluster.Leader)
	was4, was6 := h.IPv4, h.IPv6
	s.Logf("%s leads, and gets another address", h.Name)
	var near []*container
	for _, c := range all {
		if c.host != h {
			near = append(near, c)
		}
	}
	others := s.probe(allPairs("blue", near...))
	s.more(s.probe(between("blue", near, all)), 20)
	began := time.Now()
	s.must(h.Readdress(s.ctx, "198.51.100.177", "2001:db8::177"))
	s.until("the others send to its new address, and not to the old one", func() error { return s.followed(h, was4) })
	s.Logf("the others' forwarding entries follow %s after the change", since(began))
	s.reach(allPairs("blue", all...))
	s.Logf("every container reaches every other %s after the change", since(began))
	s.joined(s.hosts...)
	s.Logf("all agree %s after the change", since(began))
	s.lossless("the others meanwhile", others, true)
	s.works2(h, "green")

	s.must(h.PowerOff(s.ctx))
	s.must(h.Readdress(s.ctx, was4, was6))
	began = time.Now()
	s.must(h.PowerOn(s.ctx))
	all = s.again(all...)
	s.reachAgain(allPairs("blue", all...))
	s.Logf("booted with another address: every container reaches every other %s after the power", since(began))
	s.joined(s.hosts...)
	s.must(s.followed(h, "198.51.100.177"))
	s.works2(h, "red")
	s.fresh(h)
}

// renumbered: all hosts get other addresses at once, and JOIN has names, which lead to the new ones. And back.
func renumbered(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	byAddress := s.venue.settings()["JOIN"]
	for _, h := range s.hosts {
		s.set(h, map[string]string{"JOIN": s.byName()})
	}
	s.joined(s.hosts...)
	was := map[*lab.Host][2]string{}
	for _, h := range s.hosts {
		was[h] = [2]string{h.IPv4, h.IPv6}
	}
	for _, back := range []bool{false, true} {
		began := time.Now()
		for i, h := range s.hosts {
			to := [2]string{fmt.Sprintf("198.51.100.%d", 201+i), fmt.Sprintf("2001:db8::%d", 201+i)}
			if back {
				to = was[h]
			}
			s.must(h.Readdress(s.ctx, to[0], to[1]))
		}
		s.reach(allPairs("blue", all...))
		s.Logf("every container reaches every other %s after the first host was given another address", since(began))
		s.joined(s.hosts...)
		s.Logf("all agree after %s", since(began))
	}
	s.works2(s.hosts[2], "green")
	for _, h := range s.hosts {
		s.set(h, map[string]string{"JOIN": byAddress})
	}
	s.joined(s.hosts...)
}

// byName is a JOIN of names: they resolve on the hosts.
func (s *scene) byName() string {
	var names []string
	for _, h := range s.hosts {
		names = append(names, h.Name)
	}
	return strings.Join(names, ",")
}

// works2 makes a network on two hosts, of which this is one, and a container on each.
func (s *scene) works2(h *lab.Host, name string) {
	s.Helper()
	v4, _ := s.nextSubnets()
	two := []*lab.Host{h, s.others(h)[0]}
	var made []*container
	for _, o := range two {
		s.must(s.create(o, name, "--subnet", v4.String()))
		made = append(made, s.run(o, name, "--network", name))
	}
	s.reach(allPairs(name, made...))
}

// followed is an error while other hosts send to an address that a host had, or say that it is there.
func (s *scene) followed(h *lab.Host, was string) error {
	return onAll(s.others(h), func(o *lab.Host) error {
		if n, err := s.node(o, h); err != nil || n.Addr != h.IPv4 || n.Suspended {
			return fmt.Errorf("%s: %s is at %s: %+v, %w", o.Name, h.Name, h.IPv4, n, err)
		}
		if err := s.forwards(o, was, false); err != nil {
			return err
		}
		return s.forwards(o, h.IPv4, true)
	})
}

// shutOut: a host that was forgotten while it was off is switched on again. What it sends is dropped by the others, until it
// has given up its identity and is a new node.
func shutOut(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue", "--restart", "always")
	s.reach(allPairs("blue", all...))
	h, victim := s.hosts[2], all[0]
	vni := s.networks(h)[0].VNI
	if !s.injects(all[2], victim, vni) {
		s.Fatal("a frame of a member does not arrive: the test proves nothing")
	}
	s.must(h.PowerOff(s.ctx))
	s.until("the others see that it is gone", func() error {
		return onAll(s.others(h), func(o *lab.Host) error { return s.silent(o, h) })
	})
	_, err := s.hosts[0].Run(s.ctx, binary, "forget", "--yes", h.Name)
	s.must(err)
	s.must(h.PowerOn(s.ctx))
	s.says(h, "forgotten", "carrick leave")
	if s.injects(all[2], victim, vni) {
		s.Errorf("a frame of a host that was forgotten arrives in %s", victim)
	}
	s.joined(s.others(h)...)
	// It does what it was told to do, and is a new node.
	_, err = h.Run(s.ctx, binary, "leave", "--yes")
	s.must(err)
	s.joined(s.hosts...)
	// Its network is the cluster's still, and its container, which was given no address meanwhile, starts.
	s.until("its container starts", func() error { // the new node has to be given addresses first
		_, err := h.Docker(s.ctx, "start", all[2].name)
		return err
	})
	all = s.again(all...)
	s.distinct("blue", all...)
	s.reachAgain(allPairs("blue", all...))
	if !s.injects(all[2], victim, vni) {
		s.Errorf("a frame of a member again does not arrive in %s", victim)
	}
	s.fresh(h)
}

// frameScript sends one VXLAN packet (RFC 7348): perl -e SCRIPT FROM TO VNI FRAME, the last one in hexadecimal.
const frameScript = `use IO::Socket::INET; my ($from, $to, $vni, $frame) = @ARGV;
	my $s = IO::Socket::INET->new(Proto => "udp", LocalAddr => $from, PeerAddr => $to, PeerPort => 4789) or die $@;
	$s->send(pack("NN", 0x08000000, $vni << 8) . pack("H*", $frame)) or die $!`

// injects tells whether a frame that a host sends by hand, as of a container there, arrives in a container of another host.
func (s *scene) injects(from, to *container, vni uint32) bool {
	s.Helper()
	// Of a protocol that nobody speaks (IEEE 802, local experimental ethertype 1).
	frame := strings.ReplaceAll(to.nets["blue"].mac+from.nets["blue"].mac, ":", "") + "88b5" + strings.Repeat("00", 46)
	arrived := make(chan string, 1)
	go func() {
		defer close(arrived)
		out, err := to.host.Run(s.ctx, to.in("timeout", "3", "tcpdump", "-l", "-n", "-c", "1", "-i", "eth0", "ether proto 0x88b5")...)
		if err == nil {
			arrived <- out
		}
	}()
	for {
		if _, err := from.host.Run(s.ctx, "perl", "-e", frameScript, from.host.IPv4, to.host.IPv4, fmt.Sprint(vni), frame); err != nil {
			s.Fatal(err)
		}
		select {
		case packet := <-arrived:
			return packet != ""
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// reinstalled: the disk of a host is replaced. It is another node of the same name at the same address, and is let in when the
// old one is forgotten.
func reinstalled(s *scene) {
	n := s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	h := s.hosts[2]
	asked := s.run(h, "asked", "--network", "blue", "--ip", at(n.v4, 99).String())
	s.reach(allPairs("blue", append(all, asked)...))
	others := s.probe(allPairs("blue", all[0], all[1]))
	s.must(h.Reinstall(s.ctx))
	s.must(s.makeGatewayBridge(h))
	settings := s.venue.settings()
	settings["JOIN"] = s.byName()
	s.install(settings, h)
	s.says(h, "another node is called", "carrick forget "+h.Name)
	s.refused(h, words("carrick forget "+h.Name), createArgs("blue", "--subnet", n.v4.String())...)
	pid, err := h.PluginPID(s.ctx, plugin)
	s.must(err)
	began := time.Now()
	_, err = s.hosts[0].Run(s.ctx, binary, "forget", "--yes", h.Name)
	s.must(err)
	s.joined(s.hosts...)
	s.Logf("forgotten, it has joined by itself after %s", since(began))
	if now, err := h.PluginPID(s.ctx, plugin); err != nil || now != pid {
		s.Errorf("the plugin was process %d and is %d, %v", pid, now, err)
	}
	s.until("what its old self had is gone", func() error {
		return onAll(s.others(h), func(o *lab.Host) error { return s.hasNothingOf(o, h) })
	})
	s.until("it votes instead of its old self", func() error {
		return onAll(s.hosts, func(o *lab.Host) error { return s.votes(o, s.hosts...) })
	})
	taker := s.run(s.hosts[0], "taker", "--network", "blue", "--ip", at(n.v4, 99).String())
	s.must(s.create(h, "blue", "--ipv6", "--subnet", n.v4.String(), "--subnet", n.v6.String()))
	now := []*container{all[0], all[1], taker, s.run(h, "anew1", "--network", "blue"), s.run(h, "anew2", "--network", "blue")}
	s.distinct("blue", now...)
	s.reach(allPairs("blue", now...))
	s.lossless("the others meanwhile", others, true)
	s.fresh(h)
}

// votes is an error unless these hosts are the voters, as another one says.
func (s *scene) votes(on *lab.Host, voters ...*lab.Host) error {
	st, err := s.status(on)
	if err != nil || st.Cluster == nil {
		return fmt.Errorf("%s: %+v, %w", on.Name, st, err)
	}
	var want []string
	for _, h := range voters {
		want = append(want, h.Name)
	}
	if got := slices.Sorted(slices.Values(st.Cluster.Voters)); !slices.Equal(got, want) {
		return fmt.Errorf("%s: voters %q, want %q", on.Name, got, want)
	}
	return nil
}

// hasNothingOf is an error while a host knows endpoints of another one.
func (s *scene) hasNothingOf(on, of *lab.Host) error {
	var all []endpointStatus
	if err := s.carrick(on, &all, "endpoints"); err != nil {
		return err
	}
	for _, e := range all {
		if vtep, err := netip.ParseAddr(e.VTEP); err == nil && vtep.String() == of.IPv4 {
			return fmt.Errorf("%s: %+v is there", on.Name, e)
		}
	}
	return nil
}
