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

// A hop is one ping that should arrive, or should not.
type hop struct {
	from *container
	to   netip.Addr
}

func (h hop) String() string { return h.from.String() + " -> " + h.to.String() }

// allPairs are the hops from each container to each other one on a network, in every family it has.
func allPairs(network string, containers ...*container) []hop {
	return between(network, containers, containers)
}

// between are the hops from each of some containers to each of others.
func between(network string, from, to []*container) []hop {
	var hops []hop
	for _, a := range from {
		for _, b := range to {
			if a == b {
				continue
			}
			for _, addr := range b.addrs(network) {
				hops = append(hops, hop{a, addr})
			}
		}
	}
	return hops
}

// crowd are the hops from one container of each host to all containers, and back. On its way a frame meets the same from every
// container of a host; and what all pairs of many containers would learn is too much for the neighbour table, which is one
// for all namespaces of a machine (net.ipv4.neigh.default.gc_thresh3: 1024 entries).
func crowd(network string, containers ...*container) []hop {
	seen := map[*lab.Host]bool{}
	var one []*container
	for _, c := range containers {
		if !seen[c.host] {
			one = append(one, c)
		}
		seen[c.host] = true
	}
	rest := slices.DeleteFunc(slices.Clone(containers), func(c *container) bool { return slices.Contains(one, c) })
	return append(between(network, one, containers), between(network, rest, one)...)
}

// reach waits until every hop succeeds at once.
func (s *scene) reach(hops []hop) time.Duration {
	s.Helper()
	if len(hops) == 0 {
		s.Fatal("nothing to ping: the containers have no addresses")
	}
	return s.until(fmt.Sprintf("%d hops, %s to %s, are pinged", len(hops), hops[0], hops[len(hops)-1]), func() error {
		return s.pingAll(hops)
	})
}

// apart demands that no hop succeeds.
func (s *scene) apart(hops []hop) {
	s.Helper()
	failed, err := s.failing(hops)
	s.must(err)
	for _, h := range hops {
		if !slices.Contains(failed, h) {
			s.Errorf("%s: is answered, and should not be", h)
		}
	}
}

// prompt is within which time the same address has to be reached again. A neighbour that is not told of another MAC address
// keeps the old one for 23 to 53 s (net.ipv4.neigh.default: base_reachable_time 30 s, half of it to one and a half times;
// delay_first_probe_time 5 s; 3 probes, one a second).
const prompt = 15 * time.Second

// reachAgain is reach for addresses that have been used before.
func (s *scene) reachAgain(hops []hop) time.Duration {
	s.Helper()
	took := s.reach(hops)
	if took > prompt {
		s.Errorf("that took %s, want %s at most: do neighbours keep an old MAC address?", took, prompt)
	}
	return took
}

func (s *scene) pingAll(hops []hop) error {
	failed, err := s.failing(hops)
	if err == nil && len(failed) > 0 {
		err = fmt.Errorf("%d of %d are not answered: %v", len(failed), len(hops), failed[:min(len(failed), 6)])
	}
	return err
}

// pingScript pings once for each line "PID ADDRESS" and prints the lines of those that failed. A second is long for an
// answer on one machine; 30 at once keep two processors busy.
const pingScript = `xargs -P 30 -n 2 sh -c 'nsenter -t "$0" -n ping -n -q -c 1 -W 1 "$1" >/dev/null 2>&1 || echo "$0 $1"'`

// failing returns the hops that are not answered.
func (s *scene) failing(hops []hop) ([]hop, error) {
	lines := map[*lab.Host]*strings.Builder{}
	byLine := map[string]hop{}
	for _, h := range hops {
		if lines[h.from.host] == nil {
			lines[h.from.host] = &strings.Builder{}
		}
		line := fmt.Sprint(h.from.pid, " ", h.to)
		fmt.Fprintln(lines[h.from.host], line)
		byLine[h.from.host.Name+" "+line] = h
	}
	failed := make([][]hop, len(s.hosts))
	err := onAll(s.hosts, func(h *lab.Host) error {
		if lines[h] == nil {
			return nil
		}
		cmd := h.Command(s.ctx, "sh", "-c", pingScript)
		cmd.Stdin = strings.NewReader(lines[h].String())
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: ping: %w", h.Name, err)
		}
		for line := range strings.Lines(string(out)) {
			failed[s.index(h)] = append(failed[s.index(h)], byLine[h.Name+" "+strings.TrimSpace(line)])
		}
		return nil
	})
	return slices.Concat(failed...), err
}

// fetch asks a container that serves for its name, from another one.
func (s *scene) fetch(from *container, to *container, network string) {
	s.Helper()
	for _, a := range to.addrs(network) {
		s.until(fmt.Sprintf("HTTP from %s to %s is answered", from, netip.AddrPortFrom(a, 80)), func() error {
			got, err := from.host.Run(s.ctx, from.in("curl", "-s", "-S", "-m", "5", "http://"+netip.AddrPortFrom(a, 80).String()+"/")...)
			if err == nil && got != to.name {
				err = fmt.Errorf("got %q, want %q", got, to.name)
			}
			return err
		})
	}
}

// distinct demands that no address occurs twice on a network.
func (s *scene) distinct(network string, containers ...*container) {
	s.Helper()
	seen := map[netip.Addr]*container{}
	for _, c := range containers {
		for _, a := range c.addrs(network) {
			if other := seen[a]; other != nil {
				s.Errorf("%s and %s both have %s", other, c, a)
			}
			seen[a] = c
		}
	}
}
