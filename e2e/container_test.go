//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/carricknet/carrick/lab"
)

// A container as it was when it was last looked at.
type container struct {
	host *lab.Host
	name string
	pid  int // of its first process, in the host
	nets map[string]place
}

// A place is what a container has on one network.
type place struct {
	v4, v6 netip.Addr // zero: without that family
	mac    string
}

func (c *container) String() string { return c.name + "@" + c.host.Name }

// addrs are the container's addresses on a network.
func (c *container) addrs(network string) []netip.Addr {
	var all []netip.Addr
	p := c.nets[network]
	for _, a := range []netip.Addr{p.v4, p.v6} {
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// run starts a container that does nothing. The flags are those of docker run.
func (s *scene) run(h *lab.Host, name string, flags ...string) *container {
	s.Helper()
	c, err := s.start(h, name, flags...)
	s.must(err)
	return c
}

// runOnAll starts a container on each host, at once: "NAME1" on host1 and so on.
func (s *scene) runOnAll(name string, flags ...string) []*container {
	s.Helper()
	started := make([]*container, len(s.hosts))
	s.all(func(h *lab.Host) (err error) {
		i := s.index(h)
		started[i], err = s.start(h, fmt.Sprint(name, i+1), flags...)
		return err
	})
	return started
}

func (s *scene) index(h *lab.Host) int {
	for i := range s.hosts {
		if s.hosts[i] == h {
			return i
		}
	}
	return -1
}

// start is run for several goroutines.
func (s *scene) start(h *lab.Host, name string, flags ...string) (*container, error) {
	args := append([]string{"run", "-d", "--name", name, "--hostname", name}, flags...)
	if _, err := h.Docker(s.ctx, append(args, lab.Image)...); err != nil {
		return nil, err
	}
	c, err := s.look(h, name)
	if err != nil {
		return nil, err
	}
	s.venue.figures.containers.Add(1)
	for network := range c.nets {
		s.venue.figures.addresses.Add(int64(len(c.addrs(network))))
	}
	return c, nil
}

// serve starts a container that answers HTTP on port 80 with its own name.
func (s *scene) serve(h *lab.Host, name string, flags ...string) *container {
	s.Helper()
	args := append([]string{"run", "-d", "--name", name, "--hostname", name}, flags...)
	s.docker(h, append(args, lab.Image, "sh", "-c", "hostname >/var/www/index.html && exec httpd -f -p 80 -h /var/www")...)
	c, err := s.look(h, name)
	s.must(err)
	return c
}

// look asks the engine about a container.
func (s *scene) look(h *lab.Host, name string) (*container, error) {
	text, err := h.Docker(s.ctx, "container", "inspect", name)
	if err != nil {
		return nil, err
	}
	var all []struct {
		State           struct{ Pid int }
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address, MacAddress string }
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		return nil, fmt.Errorf("%s: docker inspect %s: %w: %s", h.Name, name, err, text)
	}
	c := &container{host: h, name: name, pid: all[0].State.Pid, nets: map[string]place{}}
	for network, n := range all[0].NetworkSettings.Networks {
		p := place{mac: n.MacAddress}
		if p.v4, err = parseAddr(n.IPAddress); err != nil {
			return nil, err
		}
		if p.v6, err = parseAddr(n.GlobalIPv6Address); err != nil {
			return nil, err
		}
		c.nets[network] = p
	}
	return c, nil
}

// again looks at containers that were running, have been away and should run.
func (s *scene) again(before ...*container) []*container {
	s.Helper()
	after := make([]*container, len(before))
	s.until("containers run again", func() (err error) {
		for i, c := range before {
			if after[i], err = s.look(c.host, c.name); err != nil {
				return err
			}
			if after[i].pid == 0 {
				return fmt.Errorf("%s does not run", c)
			}
		}
		return nil
	})
	return after
}

func parseAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(s)
}

// in runs a command of the host in a container's network namespace. The engine has no part in it, so that it may be dead.
func (c *container) in(args ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(c.pid), "--net", "--"}, args...)
}

// exec runs a command in a container, which has to succeed.
func (s *scene) exec(c *container, args ...string) string {
	s.Helper()
	return s.docker(c.host, append([]string{"exec", c.name}, args...)...)
}

// interfaces are the container's links, without loopback, sorted by index.
func (s *scene) interfaces(c *container) []string {
	s.Helper()
	var names []string
	for line := range strings.Lines(s.exec(c, "ip", "-o", "link", "show")) {
		_, rest, _ := strings.Cut(line, ": ")
		name, _, _ := strings.Cut(rest, ": ")
		name, _, _ = strings.Cut(name, "@")
		if name != "lo" {
			names = append(names, name)
		}
	}
	return names
}
