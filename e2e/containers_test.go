//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var containers = []scenario{
	{"AContainerIsOnSeveralNetworks", severalNetworks},
	{"RunningContainersAreConnectedAndDisconnected", connectAndDisconnect},
	{"ContainersAreRestartedStoppedAndRemoved", lifeCycle},
	{"ContainersShareANamespace", sharedNamespace},
	{"InspectShowsWhatIs", inspect},
	{"PruneRemovesWhatIsUnused", prune},
	{"ManyNetworksStandBesideEachOther", manyNetworks},
	{"ManyContainersStartAtOnce", manyContainers},
}

func severalNetworks(s *scene) {
	s.network("blue")
	s.network("green", "--internal")
	h := s.hosts[0]
	v4, v6 := s.nextSubnets()
	s.must(s.create(h, "local", "-o", "mode=bridge", "--ipv6", "--subnet", v4.String(), "--subnet", v6.String()))
	neighbour := s.run(h, "neighbour", "--network", "local")
	blue := s.run(s.hosts[1], "blue", "--network", "blue")
	green := s.run(s.hosts[2], "green", "--network", "green")
	// Created, connected twice, and only then started: the engine joins the networks in an order of its own.
	s.docker(h, "create", "--name", "all", "--network", "blue", lab.Image)
	s.docker(h, "network", "connect", "green", "all")
	s.docker(h, "network", "connect", "local", "all")
	s.docker(h, "start", "all")
	for range 2 {
		c, err := s.look(h, "all")
		s.must(err)
		if names := s.interfaces(c); len(names) != 4 { // and docker_gwbridge's
			s.Errorf("interfaces %v, want four", names)
		}
		s.reach(slices.Concat(allPairs("blue", c, blue), allPairs("green", c, green), allPairs("local", c, neighbour)))
		s.docker(h, "restart", "all")
	}
	s.apart(between("green", []*container{blue}, []*container{green}))
}

func connectAndDisconnect(s *scene) {
	s.network("blue")
	s.network("green")
	blue, green := s.runOnAll("blue", "--network", "blue"), s.runOnAll("green", "--network", "green")
	s.reach(append(allPairs("blue", blue...), allPairs("green", green...)...))
	c := blue[0]
	bystanders := s.probe(append(allPairs("blue", blue[1], blue[2]), allPairs("green", green[1], green[2])...))
	for range 2 {
		s.docker(c.host, "network", "connect", "green", c.name)
		both, err := s.look(c.host, c.name)
		s.must(err)
		s.reach(append(allPairs("green", append(green, both)...), allPairs("blue", append(blue[1:], both)...)...))
		s.docker(c.host, "network", "disconnect", "green", c.name)
		if names := s.interfaces(c); len(names) != 2 {
			s.Errorf("after disconnect: interfaces %v, want two", names)
		}
		s.reach(allPairs("blue", blue...))
	}
	s.docker(c.host, "network", "disconnect", "blue", c.name)
	if names := s.interfaces(c); len(names) != 0 {
		s.Errorf("disconnected from its last network: interfaces %v", names)
	}
	s.must(s.hasEndpoints(c.host, 1))
	s.docker(c.host, "network", "connect", "blue", c.name)
	back, err := s.look(c.host, c.name)
	s.must(err)
	s.reach(allPairs("blue", append(blue[1:], back)...))
	s.lossless("bystanders while others come and go", bystanders, true)
}

func lifeCycle(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	s.all(func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "restart", all[s.index(h)].name)
		return err
	})
	all = s.again(all...)
	s.reach(allPairs("blue", all...))
	s.refused(s.hosts[0], []string{"active endpoints"}, "network", "rm", "blue")
	s.docker(s.hosts[0], "stop", all[0].name)
	s.until("a stopped container has nothing left", func() error { return s.hasEndpoints(s.hosts[0], 0) })
	s.apart(between("blue", all[1:], all[:1]))
	s.reach(allPairs("blue", all[1:]...))
	s.docker(s.hosts[0], "start", all[0].name)
	all = s.again(all...)
	s.reach(allPairs("blue", all...))
	s.docker(s.hosts[1], "pause", all[1].name)
	s.docker(s.hosts[1], "unpause", all[1].name)
	s.reach(allPairs("blue", all...))
	s.docker(s.hosts[2], "rm", "-f", all[2].name)
	s.until("a removed container has nothing left", func() error { return s.hasEndpoints(s.hosts[2], 0) })
	// One that ends by itself.
	s.docker(s.hosts[2], "run", "--rm", "--network", "blue", lab.Image, "ping", "-c", "1", "-W", "5", all[1].nets["blue"].v4.String())
	s.until("a container that ended has nothing left", func() error { return s.hasEndpoints(s.hosts[2], 0) })
}

func sharedNamespace(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	s.docker(s.hosts[0], "run", "--rm", "--network", "container:"+all[0].name, lab.Image,
		"ping", "-c", "1", "-W", "5", all[1].nets["blue"].v6.String())
	// The engine's own modes are decided before any driver is asked, and work beside ours.
	for _, own := range []string{"host", "none", "bridge"} {
		s.docker(s.hosts[0], "run", "--rm", "--network", own, lab.Image, "true")
	}
	s.reach(allPairs("blue", all...))
}

func inspect(s *scene) {
	n := s.network("blue", "--label", "colour=blue")
	h := s.hosts[0]
	c := s.run(h, "seen", "--network", "blue", "--mac-address", "02:00:00:00:00:07", "--network-alias", "sea")
	other := s.run(h, "other", "--network", "blue")
	var networks []struct {
		Driver     string
		EnableIPv6 bool
		IPAM       struct {
			Driver string
			Config []struct{ Subnet, Gateway string }
		}
		Containers map[string]struct{ Name, MacAddress, IPv4Address, IPv6Address string }
		Labels     map[string]string
	}
	s.must(json.Unmarshal([]byte(s.docker(h, "network", "inspect", "blue")), &networks))
	got := networks[0]
	if got.Driver != plugin || got.IPAM.Driver != plugin || !got.EnableIPv6 || got.Labels["colour"] != "blue" {
		s.Errorf("docker network inspect: %+v", got)
	}
	if len(got.IPAM.Config) != 2 || got.IPAM.Config[0].Subnet != n.v4.String() || got.IPAM.Config[1].Subnet != n.v6.String() {
		s.Errorf("subnets %+v, want %s and %s", got.IPAM.Config, n.v4, n.v6)
	}
	if len(got.Containers) != 2 {
		s.Errorf("containers %+v, want two", got.Containers)
	}
	for _, in := range got.Containers {
		if in.Name == "seen" && in.MacAddress != "02:00:00:00:00:07" {
			s.Errorf("MAC address %s, was asked to be 02:00:00:00:00:07", in.MacAddress)
		}
	}
	for _, c := range []*container{c, other} {
		place := c.nets["blue"]
		link := s.exec(c, "ip", "-o", "link", "show", "eth0") + s.exec(c, "ip", "-o", "addr", "show", "eth0")
		for _, want := range []string{"link/ether " + place.mac, place.v4.String() + "/24", place.v6.String() + "/64"} {
			if place.mac == "" || !strings.Contains(link, want) {
				s.Errorf("%s: docker inspect says %+v, the container has %s", c, place, link)
			}
		}
	}
	// Docker's own names of one host work beside ours.
	for _, name := range []string{"seen", "sea"} {
		s.exec(other, "ping", "-c", "1", "-W", "5", name)
	}
	if all := s.networks(h); len(all) != 1 || all[0].Local != 2 || all[0].MTU != 1450 || all[0].Mode != "overlay" {
		s.Errorf("carrick networks: %+v", all)
	}
}

func prune(s *scene) {
	s.network("used")
	s.network("unused")
	all := s.runOnAll("c", "--network", "used")
	s.all(func(h *lab.Host) error {
		out, err := h.Docker(s.ctx, "network", "prune", "-f")
		if err == nil && (!strings.Contains(out, "unused") || strings.Contains(out, "\nused")) {
			err = fmt.Errorf("%s: docker network prune removed %q", h.Name, out)
		}
		return err
	})
	// docker_gwbridge is used by the containers: else prune would have taken it as well.
	for _, h := range s.hosts {
		if left := s.networks(h); len(left) != 1 {
			s.Errorf("%s: the plugin has %v", h.Name, left)
		}
	}
	s.reach(allPairs("used", all...))
}

func manyNetworks(s *scene) {
	const networks = 8
	flags := []string{}
	for i := range networks {
		s.network(fmt.Sprint("n", i))
		if i > 0 {
			flags = append(flags, fmt.Sprint("n", i))
		}
	}
	all := s.runOnAll("c", "--network", "n0")
	s.all(func(h *lab.Host) error {
		for _, name := range flags {
			if _, err := h.Docker(s.ctx, "network", "connect", name, all[s.index(h)].name); err != nil {
				return err
			}
		}
		return nil
	})
	all = s.again(all...)
	var hops []hop
	for i := range networks {
		hops = append(hops, allPairs(fmt.Sprint("n", i), all...)...)
	}
	s.reach(hops)
}

func manyContainers(s *scene) {
	const perHost = 10
	s.network("blue")
	all := make([]*container, perHost*len(s.hosts))
	numbers := make([]int, len(all))
	for i := range numbers {
		numbers[i] = i
	}
	s.must(onAll(numbers, func(i int) (err error) {
		all[i], err = s.start(s.hosts[i%len(s.hosts)], fmt.Sprint("c", i), "--network", "blue")
		return err
	}))
	s.Logf("%d containers run after %s", len(all), since(s.began))
	s.distinct("blue", all...)
	s.reach(crowd("blue", all...))
}
