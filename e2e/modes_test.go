//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var modes = []scenario{
	{"OverlayContainersOnThreeHostsReachEachOther", overlayReaches},
	{"OverlayCarriesPacketsOfExactlyItsMTU", overlayMTU},
	{"OverlayCarriesMulticastAndBroadcast", overlayMulticast},
	{"OverlayIsOneNetworkAndNoOther", overlayIsolated},
	{"OverlayWorksWithChosenSubnets", overlayChosenSubnets},
	{"AContainerGetsOutAndPublishesPorts", outwards},
	{"AnInternalNetworkHasNoWayOut", internal},
	{"BridgeContainersOfOneHostReachEachOther", bridgeReaches},
	{"NoneLeavesAContainerItsLoopbackOnly", noneMode},
}

func overlayReaches(s *scene) {
	s.network("blue")
	var all []*container
	for _, h := range s.hosts {
		all = append(all, s.serve(h, "web-"+h.Name, "--network", "blue"))
	}
	s.distinct("blue", all...)
	s.reach(allPairs("blue", all...))
	for i, c := range all {
		s.fetch(c, all[(i+1)%len(all)], "blue")
	}
	// The container's own tools see the same as those of the host.
	s.exec(all[0], "ping", "-c", "1", "-W", "5", all[2].nets["blue"].v4.String())
	s.exec(all[0], "ping", "-c", "1", "-W", "5", all[2].nets["blue"].v6.String())
	s.exec(all[1], "wget", "-q", "-O", "-", "http://"+all[0].nets["blue"].v4.String()+"/")
}

// Headers of an echo request in bytes: IPv4 20 (RFC 791), IPv6 40 (RFC 8200), ICMP 8 (RFC 792, RFC 4443).
const (
	echo4 = 20 + 8
	echo6 = 40 + 8
)

func overlayMTU(s *scene) {
	// The underlay's 1500 less what VXLAN over IPv4 adds: 50 bytes (RFC 7348 section 5).
	s.network("blue")
	s.network("small", "-o", "com.docker.network.driver.mtu=1300")
	for network, mtu := range map[string]int{"blue": 1450, "small": 1300} {
		all := s.runOnAll(network, "--network", network)
		s.reach(allPairs(network, all...))
		for _, c := range all {
			if link := s.exec(c, "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, fmt.Sprintf(" mtu %d ", mtu)) {
				s.Errorf("%s: want MTU %d: %s", c, mtu, link)
			}
		}
		s.must(onAll(allPairs(network, all...), func(h hop) error {
			if err := s.pingWhole(h, mtu); err != nil {
				return fmt.Errorf("%s: a packet of %d bytes does not arrive: %w", h, mtu, err)
			}
			if s.pingWhole(h, mtu+1) == nil {
				return fmt.Errorf("%s: a packet of %d bytes arrives unfragmented, the MTU is %d", h, mtu+1, mtu)
			}
			return nil
		}))
	}
}

// pingWhole sends one packet of so many bytes that may not be fragmented.
func (s *scene) pingWhole(h hop, bytes int) error {
	headers := echo4
	if h.to.Is6() {
		headers = echo6
	}
	_, err := h.from.host.Run(s.ctx, h.from.in("ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", fmt.Sprint(bytes-headers), h.to.String())...)
	return err
}

func overlayMulticast(s *scene) {
	n := s.network("blue")
	// By default Linux answers no echo request to a broadcast address.
	all := s.runOnAll("c", "--network", "blue", "--sysctl", "net.ipv4.icmp_echo_ignore_broadcasts=0")
	s.reach(allPairs("blue", all...))
	for _, to := range []string{at(n.v4, 255).String(), "ff02::1%eth0"} {
		s.until("all containers answer "+to+" from each of them", func() error {
			return onAll(all, func(c *container) error {
				// Several: a broadcast that is lost is not sent again.
				out, _ := c.host.Run(s.ctx, c.in("ping", "-n", "-b", "-c", "4", "-i", "0.2", "-W", "1", to)...)
				if n := answering(out); n != len(all) {
					return fmt.Errorf("%s: %d of %d answer: %s", c, n, len(all), out)
				}
				return nil
			})
		})
	}
}

// answering counts the addresses that a ping had answers from.
func answering(out string) int {
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, " bytes from "); ok {
			addr, _, _ := strings.Cut(rest, " ")
			seen[strings.TrimSuffix(addr, ":")] = true
		}
	}
	return len(seen)
}

func overlayIsolated(s *scene) {
	s.network("blue")
	s.network("green")
	blue := s.runOnAll("blue", "--network", "blue")
	green := s.runOnAll("green", "--network", "green")
	s.reach(append(allPairs("blue", blue...), allPairs("green", green...)...))
	s.apart(between("green", blue, green))
	s.apart(between("blue", green, blue))
}

func overlayChosenSubnets(s *scene) {
	// Only a name, at the same time on all hosts: whoever is first has chosen for the others.
	s.all(func(h *lab.Host) error { return s.create(h, "chosen", "--ipv6", "--ipam-opt", "network=chosen") })
	all := s.runOnAll("c", "--network", "chosen")
	s.distinct("chosen", all...)
	s.reach(allPairs("chosen", all...))
	if !all[0].nets["chosen"].v6.IsValid() {
		s.Error("--ipv6 without a subnet: the containers have no IPv6 address")
	}
}

func outwards(s *scene) {
	s.network("blue")
	web := s.serve(s.hosts[0], "web", "--network", "blue", "-p", "8080:80")
	client := s.run(s.hosts[1], "client", "--network", "blue")
	if names := s.interfaces(web); len(names) != 2 {
		s.Errorf("interfaces %v, want two: ours and docker_gwbridge's", names)
	}
	s.reach([]hop{{client, netip.MustParseAddr(s.hosts[2].IPv4)}, {web, netip.MustParseAddr(s.hosts[2].IPv4)}})
	url := "http://" + s.hosts[0].IPv4 + ":8080/"
	for _, from := range []*lab.Host{s.hosts[1], s.hosts[0]} {
		got, err := from.Run(s.ctx, "curl", "-s", "-S", "-m", "10", url)
		if err != nil || got != "web" {
			s.Errorf("%s: %s: got %q, %v", from.Name, url, got, err)
		}
	}
}

func internal(s *scene) {
	s.network("inner", "--internal")
	all := s.runOnAll("c", "--network", "inner")
	s.reach(allPairs("inner", all...))
	for _, c := range all {
		if names := s.interfaces(c); !slices.Equal(names, []string{"eth0"}) {
			s.Errorf("%s: interfaces %v, want eth0 alone", c, names)
		}
		if routes := s.exec(c, "ip", "route", "show", "default") + s.exec(c, "ip", "-6", "route", "show", "default"); routes != "" {
			s.Errorf("%s: has a way out: %s", c, routes)
		}
	}
	var out []hop
	for _, h := range s.hosts {
		out = append(out, hop{all[0], netip.MustParseAddr(h.IPv4)})
	}
	s.apart(out)
}

func bridgeReaches(s *scene) {
	const mode = "mode=bridge"
	subnets := map[string]net{}
	for _, name := range []string{"one", "two"} {
		n := net{name: name}
		n.v4, n.v6 = s.nextSubnets()
		subnets[name] = n
		// The same subnets on every host: these networks have nothing to do with each other.
		s.all(func(h *lab.Host) error {
			return s.create(h, name, "-o", mode, "--ipv6", "--subnet", n.v4.String(), "--subnet", n.v6.String())
		})
	}
	h := s.hosts[0]
	one := []*container{s.run(h, "one1", "--network", "one"), s.serve(h, "one2", "--network", "one")}
	two := []*container{s.run(h, "two1", "--network", "two")}
	// The same addresses on another host are other containers.
	far := s.run(s.hosts[1], "far", "--network", "one", "--ip", one[1].nets["one"].v4.String())
	s.reach(allPairs("one", one...))
	s.fetch(one[0], one[1], "one")
	s.apart(between("one", two, one))
	s.apart(between("two", one, two))
	if got := far.nets["one"].v4; got != one[1].nets["one"].v4 {
		s.Errorf("a bridge network's address is free on another host, yet it got %s", got)
	}
	s.apart([]hop{{far, one[0].nets["one"].v4}})
	if link := s.exec(one[0], "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, " mtu 1500 ") {
		s.Errorf("want MTU 1500: %s", link)
	}
}

func noneMode(s *scene) {
	h := s.hosts[0]
	s.must(s.create(h, "void", "-o", "mode=none"))
	c := s.run(h, "hermit", "--network", "void")
	if names := s.interfaces(c); len(names) > 0 {
		s.Errorf("interfaces %v, want loopback only", names)
	}
	s.exec(c, "ping", "-c", "1", "127.0.0.1")
}
