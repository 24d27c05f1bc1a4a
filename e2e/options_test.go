//go:build e2e

package e2e

import (
	"fmt"
	"strings"
)

var options = []scenario{
	{"AnUnknownOptionIsRefusedByName", unknownOption},
	{"TheMTUOptionIsKeptInEveryMode", mtuOption},
}

const mtuName = "com.docker.network.driver.mtu"

func unknownOption(s *scene) {
	h := s.hosts[0]
	v4, _ := s.nextSubnets()
	for _, mode := range []string{"overlay", "bridge", "none"} {
		s.refused(h, []string{"colour=red", mode, "allowed"},
			createArgs("blue", "--subnet", v4.String(), "-o", "mode="+mode, "-o", "colour=red")...)
	}
	s.refused(h, []string{"magic", "overlay", "bridge", "none"}, createArgs("blue", "--subnet", v4.String(), "-o", "mode=magic")...)
	s.must(s.create(h, "blue", "--subnet", v4.String()))
	s.refused(h, []string{"shape=round"}, "run", "--rm", "--network", "name=blue,driver-opt=shape=round", "busybox", "true")
}

func mtuOption(s *scene) {
	h := s.hosts[0]
	for _, mode := range []string{"overlay", "bridge"} {
		v4, v6 := s.nextSubnets()
		flags := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String(), "-o", "mode=" + mode}
		for _, wrong := range []string{"0", "1279", "65536", "many", "-1", "1400.5"} {
			s.refused(h, []string{wrong}, createArgs("in-"+mode, append(flags, "-o", mtuName+"="+wrong)...)...)
		}
		s.must(s.create(h, "in-"+mode, append(flags, "-o", mtuName+"=1337")...))
		c := s.run(h, "in-"+mode, "--network", "in-"+mode)
		if link := s.exec(c, "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, " mtu 1337 ") {
			s.Errorf("mode %s: want MTU 1337: %s", mode, link)
		}
	}
	v4, _ := s.nextSubnets()
	// The underlay has 1500 bytes, of which VXLAN takes 50.
	s.refused(h, []string{"1451", "1450"}, createArgs("big", "--subnet", v4.String(), "-o", mtuName+"=1451")...)
	s.must(s.create(h, "big", "--subnet", v4.String(), "-o", fmt.Sprint(mtuName, "=", 1450)))
}
