//go:build e2e

package e2e

import (
	"fmt"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var joining = []scenario{
	{"HostsThatNameTheSameSubnetsShareANetwork", sameSubnets},
	{"HostsThatNameTheSameNetworkShareIt", sameName},
	{"AHostThatContradictsTheOthersIsRefused", contradictions},
	{"ANetworkIsGoneWithItsLastHost", lastHost},
}

// sameSubnets: one after the other, in another order of words, under another name.
func sameSubnets(s *scene) {
	v4, v6 := s.nextSubnets()
	s.must(s.create(s.hosts[0], "blue", "--ipv6", "--subnet", v4.String(), "--subnet", v6.String()))
	s.must(s.create(s.hosts[1], "blue", "--subnet", v6.String(), "--ipv6", "--subnet", v4.String()))
	s.must(s.create(s.hosts[2], "azul", "--ipv6", "--subnet", v4.String(), "--subnet", v6.String()))
	a, b := s.run(s.hosts[0], "c1", "--network", "blue"), s.run(s.hosts[1], "c2", "--network", "blue")
	c := s.run(s.hosts[2], "c3", "--network", "azul")
	s.reach(append(allPairs("blue", a, b), between("blue", []*container{c}, []*container{a, b})...))
	s.reach(between("azul", []*container{a, b}, []*container{c}))
}

// sameName: at the same time on all hosts, with subnets and without, several networks at once.
func sameName(s *scene) {
	v4, v6 := s.nextSubnets()
	names := map[string][]string{
		"given":  {"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()},
		"chosen": nil,
		"third":  nil,
	}
	type one struct {
		host *lab.Host
		name string
	}
	var all []one
	for name := range names {
		for _, h := range s.hosts {
			all = append(all, one{h, name})
		}
	}
	s.must(onAll(all, func(o one) error {
		return s.create(o.host, o.name, append(names[o.name], "--ipam-opt", "network="+o.name)...)
	}))
	for name := range names {
		cs := s.runOnAll(name, "--network", name)
		s.distinct(name, cs...)
		s.reach(allPairs(name, cs...))
	}
	var seen [3]string
	s.all(func(h *lab.Host) (err error) {
		seen[s.index(h)], err = h.Docker(s.ctx, "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "chosen", "third")
		return err
	})
	if seen[0] != seen[1] || seen[0] != seen[2] || strings.TrimSpace(seen[0]) == "" {
		s.Errorf("subnets that were chosen differ: %q", seen)
	}
	// A host that says the subnet that the others were given means the same network.
	subnet, _, _ := strings.Cut(seen[0], " ")
	s.docker(s.hosts[2], "rm", "-f", "chosen3")
	s.docker(s.hosts[2], "network", "rm", "chosen")
	s.must(s.create(s.hosts[2], "chosen", "--ipam-opt", "network=chosen", "--subnet", subnet))
}

// contradictions: the second host is told both values, has nothing of the network afterwards, and joins when it agrees.
func contradictions(s *scene) {
	first, second := s.hosts[0], s.hosts[1]
	v4, v6 := s.nextSubnets()
	other4, other6 := s.nextSubnets()
	subnets := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	named := append([]string{"--ipam-opt", "network=blue"}, subnets...)
	half := v4.Masked().Addr().String() + "/25"
	for _, c := range []struct {
		there, here []string
		words       []string
	}{
		{append(subnets, "-o", mtuName+"=1400"), append(subnets, "-o", mtuName+"=1300"), []string{"1400", "1300"}},
		{subnets, append(subnets, "-o", mtuName+"=1300"), []string{"1450", "1300"}},
		{append(subnets, "--internal"), subnets, []string{"--internal", "true", "false"}},
		{subnets, append(subnets, "--internal"), []string{"--internal", "true", "false"}},
		{append(subnets, "--gateway", at(v4, 7).String()), append(subnets, "--gateway", at(v4, 9).String()),
			[]string{at(v4, 7).String(), at(v4, 9).String()}},
		{append(subnets, "--ip-range", at(v4, 64).String()+"/26"), append(subnets, "--ip-range", at(v4, 128).String()+"/25"),
			[]string{at(v4, 64).String() + "/26", at(v4, 128).String() + "/25"}},
		{append(subnets, "--aux-address", "router="+at(v4, 5).String()), append(subnets, "--aux-address", "router="+at(v4, 6).String()),
			[]string{at(v4, 5).String(), at(v4, 6).String()}},
		{named, []string{"--ipam-opt", "network=blue", "--ipv6", "--subnet", other4.String(), "--subnet", other6.String()},
			[]string{v4.String(), other4.String()}},
		{subnets, []string{"--subnet", half}, []string{half, v4.String()}},
		{subnets, []string{"--subnet", v4.String()}, []string{v4.String(), v6.String()}},
	} {
		s.must(s.create(first, "blue", c.there...))
		s.refused(second, c.words, createArgs("blue", c.here...)...)
		if left := s.docker(second, "network", "ls", "-q", "--filter", "name=blue"); left != "" {
			s.Errorf("%q: a refused network is there: %s", c.here, left)
		}
		if left := s.networks(second); len(left) > 0 {
			s.Errorf("%q: the plugin keeps a network that was refused: %v", c.here, left)
		}
		s.must(s.create(second, "blue", c.there...))
		s.on(s.hosts[:2], s.sweep)
	}
}

// lastHost: what the first network had is free for another one when the last host has removed it, and not before.
func lastHost(s *scene) {
	n := s.network("blue")
	s.all(func(h *lab.Host) error {
		if h == s.hosts[2] {
			return nil
		}
		_, err := h.Docker(s.ctx, "network", "rm", "blue")
		return err
	})
	half := n.v4.Masked().Addr().String() + "/25"
	s.refused(s.hosts[0], []string{half, n.v4.String()}, createArgs("half", "--subnet", half)...)
	s.docker(s.hosts[2], "network", "rm", "blue")
	s.until("the subnet is free again", func() error { return s.create(s.hosts[0], "half", "--subnet", half) })
}

// A netStatus is what `carrick networks --json` says of one network.
type netStatus struct {
	ID      string   `json:"id"`
	Mode    string   `json:"mode"`
	Shared  string   `json:"shared"`
	Name    string   `json:"name"`
	VNI     uint32   `json:"vni"`
	MTU     int      `json:"mtu"`
	Subnets []string `json:"subnets"`
	Local   int      `json:"local"`
	Remote  int      `json:"remote"`
	Problem string   `json:"problem"`
}

// networks is what the plugin of a host says it has.
func (s *scene) networks(h *lab.Host) []netStatus {
	s.Helper()
	var all []netStatus
	s.must(s.carrick(h, &all, "networks"))
	return all
}

// An endpointStatus is what `carrick endpoints --json` says of one endpoint.
type endpointStatus struct {
	Network string   `json:"network"`
	ID      string   `json:"id"`
	MAC     string   `json:"mac"`
	Addrs   []string `json:"addrs"`
	Node    string   `json:"node"`
	VTEP    string   `json:"vtep"` // "": of this host
}

// local returns the endpoints that the plugin of a host has there.
func (s *scene) local(h *lab.Host) ([]endpointStatus, error) {
	var all, here []endpointStatus
	if err := s.carrick(h, &all, "endpoints"); err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.VTEP == "" {
			here = append(here, e)
		}
	}
	return here, nil
}

// hasEndpoints is an error unless a host has so many endpoints, and as many veth pairs, and no other.
func (s *scene) hasEndpoints(h *lab.Host, want int) error {
	here, err := s.local(h)
	if err != nil {
		return err
	}
	if len(here) != want {
		return fmt.Errorf("%s: %d endpoints, want %d: %v", h.Name, len(here), want, here)
	}
	dump, err := h.Dump(s.ctx)
	if err != nil {
		return err
	}
	ends := devices(dump, "ckh")
	if len(ends) != want {
		return fmt.Errorf("%s: %d veth pairs, want %d: %v", h.Name, len(ends), want, ends)
	}
	if waiting := devices(dump, "ckc"); len(waiting) > 0 {
		return fmt.Errorf("%s: %v are in no container", h.Name, waiting)
	}
	return nil
}

// devices are the links of a host, in all its namespaces, whose name begins with prefix.
func devices(d lab.Dump, prefix string) []string {
	var names []string
	for _, section := range d {
		if !strings.HasSuffix(section.Title, ": link") {
			continue
		}
		for _, line := range section.Lines {
			name, _, _ := strings.Cut(line, ": ")
			name, _, _ = strings.Cut(name, "@")
			if strings.HasPrefix(name, prefix) && (len(names) == 0 || names[len(names)-1] != name) {
				names = append(names, name)
			}
		}
	}
	return names
}
