//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/carricknet/carrick/e2e/forge"
	"github.com/carricknet/carrick/lab"
)

var swarms = []scenario{
	{"SwarmsOwnOverlayWorksBesideOurs", besideSwarm},
}

// besideSwarm: the engine's own overlay uses the same port, and neither minds the other: whichever is there first, and
// when either goes.
func besideSwarm(s *scene) {
	s.spoiled = true // Swarm leaves chains of its own, and on a busy engine makes its ingress network anew after it was left
	s.arm()
	s.network("blue")
	ours := s.runOnAll("ours", "--network", "blue")
	s.formSwarm()
	theirs := s.overlayOfSwarm()
	s.reach(append(allPairs("blue", ours...), allPairs("theirs", theirs...)...))
	s.bothOnTheWire(ours, theirs)
	probes := s.probe(allPairs("theirs", theirs...))
	s.all(s.sweepOurs)
	s.lossless("Swarm's overlay, while ours is removed", probes, true)

	s.network("blue")
	ours = s.runOnAll("ours", "--network", "blue")
	s.reach(append(allPairs("blue", ours...), allPairs("theirs", theirs...)...))
	s.bothOnTheWire(ours, theirs)
	probes = s.probe(allPairs("blue", ours...))
	s.dissolveSwarm()
	s.lossless("ours, while Swarm's overlay is removed", probes, true)

	// A Swarm on a port of its own.
	s.formSwarm("--data-path-port", "7789")
	theirs = s.overlayOfSwarm()
	s.reach(append(allPairs("blue", ours...), allPairs("theirs", theirs...)...))
	s.dissolveSwarm()
	s.all(s.sweep)
}

// formSwarm makes the first host a manager and the others workers.
func (s *scene) formSwarm(flags ...string) {
	s.Helper()
	manager := s.hosts[0]
	s.docker(manager, append([]string{"swarm", "init", "--advertise-addr", manager.IPv4}, flags...)...)
	token := s.docker(manager, "swarm", "join-token", "-q", "worker")
	s.on(s.hosts[1:], func(h *lab.Host) error {
		_, err := h.Docker(s.ctx, "swarm", "join", "--token", token, "--advertise-addr", h.IPv4, manager.IPv4+":2377")
		return err
	})
}

// overlayOfSwarm makes one of the engine's overlays, with a container on each host. A busy manager may not attach one within the 20 s
// that an engine waits; then it is tried again.
func (s *scene) overlayOfSwarm() []*container {
	s.Helper()
	v4, _ := s.nextSubnets()
	s.docker(s.hosts[0], "network", "create", "-d", "overlay", "--attachable", "--subnet", v4.String(), "theirs")
	theirs := make([]*container, len(s.hosts))
	s.until("Swarm has attached a container on each host", func() error {
		return onAll(s.hosts, func(h *lab.Host) (err error) {
			i := s.index(h)
			if theirs[i] != nil {
				return nil
			}
			name := fmt.Sprint("theirs", i+1)
			if theirs[i], err = s.start(h, name, "--network", "theirs"); err != nil {
				theirs[i] = nil
				_, _ = h.Docker(s.ctx, "rm", "-f", name) // the next try has the name
			}
			return err
		})
	})
	return theirs
}

func (s *scene) dissolveSwarm() {
	s.Helper()
	for i := range s.hosts {
		s.docker(s.hosts[i], "rm", "-f", fmt.Sprint("theirs", i+1))
	}
	s.docker(s.hosts[0], "network", "rm", "theirs")
	// The manager last, and each when the one before has left: where nobody hears it say goodbye, engine 20.10 keeps its port.
	for _, h := range slices.Backward(s.hosts) {
		s.docker(h, "swarm", "leave", "--force")
		s.until(h.Name+" has left the Swarm", func() error {
			out, err := h.Run(s.ctx, "ss", "-H", "-t", "-l", "-n", "sport = :7946")
			if err == nil && out != "" {
				err = fmt.Errorf("listens: %s", out)
			}
			return err
		})
	}
}

// sweepOurs removes the containers on blue and the network.
func (s *scene) sweepOurs(h *lab.Host) error {
	if _, err := h.Docker(s.ctx, "rm", "-f", fmt.Sprint("ours", s.index(h)+1)); err != nil {
		return err
	}
	_, err := h.Docker(s.ctx, "network", "rm", "blue")
	return err
}

// bothOnTheWire demands that the frames of both networks go to one port.
func (s *scene) bothOnTheWire(ours, theirs []*container) {
	s.Helper()
	probes := s.probe(append(allPairs("blue", ours...), allPairs("theirs", theirs...)...))
	counts := map[bool]int{}
	for _, p := range s.capture(s.hosts[0], vxlanPort, 200) {
		if len(p) >= 8 { // the VNI begins at the fifth byte; Docker's count up from 4096, ours from 2^20
			counts[p[4] >= 0x10]++
		}
	}
	if counts[true] == 0 || counts[false] == 0 {
		s.Errorf("on port %d of %s there are %d frames of ours and %d of Swarm's", vxlanPort, s.hosts[0].Name, counts[true], counts[false])
	}
	s.lossless("ours and Swarm's", probes, true)
}

// capture keeps what goes to and from a host for a UDP port.
func (s *scene) capture(h *lab.Host, port uint16, n int) [][]byte {
	s.Helper()
	what, err := json.Marshal(forge.Watch{Device: h.Name, Capture: n, Port: port, Limit: patience})
	s.must(err)
	text, err := s.venue.lab.Switch(s.ctx, forgeBuilt, "watch", string(what))
	s.must(err)
	var seen forge.Seen
	s.must(json.Unmarshal([]byte(strings.TrimPrefix(text, "ready\n")), &seen))
	if !seen.Ended {
		s.Fatalf("only %d datagrams to port %d in %s", len(seen.Payloads), port, patience)
	}
	return seen.Payloads
}
