//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

// cloned: a host boots on a copy of another one's disk. Nobody can know which of the two is the copy, so neither gives out
// addresses; what runs goes on, and the copy becomes a node of its own when it is told to.
func cloned(s *scene) {
	third, original, clone := s.hosts[0], s.hosts[1], s.hosts[2]
	blue := s.pair(third, original, clone)
	far := s.run(third, "far", "--network", "blue")
	kept := s.run(original, "kept", "--network", "blue", "--restart", "always")
	s.copyDisk(clone, original)
	s.must(original.PowerOn(s.ctx))
	kept = s.again(kept)[0]
	s.reach(allPairs("blue", far, kept))
	s.joined(third, original)
	probes := s.probe(allPairs("blue", far, kept))
	s.must(clone.PowerOn(s.ctx))
	s.says(third, "same identity", original.IPv4, clone.IPv4, "carrick leave")
	s.says(original, "identity of this node", clone.IPv4, "carrick leave")
	s.says(clone, "identity of this node", original.IPv4, "carrick leave")
	for _, h := range s.hosts[1:] {
		s.refused(h, words("identity"), "run", "-d", "--name", "new", "--network", "blue", lab.Image)
		s.docker(h, "rm", "-f", "new")
	}
	if c, err := s.look(clone, "kept"); err != nil || c.pid != 0 && c.nets["blue"].v4 == kept.nets["blue"].v4 {
		s.Errorf("the copy of a container has the address of the original as well: %+v, %v", c, err)
	}
	if err := s.hasEndpoints(clone, 0); err != nil {
		s.Error(err)
	}
	s.leaves(clone)
	s.parted(clone)
	s.must(s.sweep(clone))
	s.must(s.create(clone, "blue", blue...))
	all := []*container{far, kept, s.run(original, "more", "--network", "blue"), s.run(clone, "anew", "--network", "blue")}
	s.distinct("blue", all...)
	s.reach(allPairs("blue", all...))
	s.lossless("the original's traffic all the while", probes, true)
	s.fresh(s.hosts...)
}

// clonedTogether: the host and the copy boot at the same moment, and both have a container to start. One of them may, or none.
func clonedTogether(s *scene) {
	third, original, clone := s.hosts[0], s.hosts[1], s.hosts[2]
	blue := s.pair(third, original, clone)
	far := s.run(third, "far", "--network", "blue")
	kept := s.run(original, "kept", "--network", "blue", "--restart", "always")
	s.copyDisk(clone, original)
	s.on(s.hosts[1:], func(h *lab.Host) error { return h.PowerOn(s.ctx) })
	s.says(third, "same identity", original.IPv4, clone.IPv4)
	s.says(original, "identity of this node", clone.IPv4)
	s.says(clone, "identity of this node", original.IPv4)
	running := 0
	for _, h := range s.hosts[1:] {
		if c, err := s.look(h, "kept"); err != nil {
			s.Error(err)
		} else if c.pid != 0 {
			running++
		}
	}
	if running > 1 {
		s.Errorf("%s runs on both", kept)
	}
	s.Logf("%d of the two hosts have started the container", running)
	s.leaves(clone)
	s.takenBack(original, third)
	s.parted(clone, "frozen") // that stays until the network is removed there
	s.must(s.sweep(clone))
	s.must(s.create(clone, "blue", blue...))
	s.docker(original, "start", "kept") // its engine gave up if it was refused
	all := append(s.again(far, kept), s.run(clone, "anew", "--network", "blue"))
	s.distinct("blue", all...)
	s.reachAgain(allPairs("blue", all...))
	s.fresh(s.hosts...)
}

// pair makes a cluster of two with a network, and leaves the third host without a node.
func (s *scene) pair(a, b, out *lab.Host) (blue []string) {
	s.Helper()
	_, err := out.Run(s.ctx, binary, "leave", "--yes")
	s.must(err)
	v4, v6 := s.nextSubnets()
	blue = []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	s.on([]*lab.Host{a, b}, func(h *lab.Host) error { return s.create(h, "blue", blue...) })
	return blue
}

// copyDisk switches both hosts off, and leaves them so.
func (s *scene) copyDisk(to, from *lab.Host) {
	s.Helper()
	s.on([]*lab.Host{to, from}, func(h *lab.Host) error { return h.PowerOff(s.ctx) })
	s.must(to.Clone(s.ctx, from))
}

// leaves: the copy becomes a node of its own.
func (s *scene) leaves(clone *lab.Host) {
	s.Helper()
	_, err := clone.Run(s.ctx, binary, "leave", "--yes")
	s.must(err)
}

// takenBack: to one of two that booted together it may seem that its disk went back, since the third heard of the other one first. It was
// the only voter, and votes again by itself, unless the copy has decided something meanwhile: then it says what is to be done.
func (s *scene) takenBack(original, third *lab.Host) {
	s.Helper()
	const bySelf = 20 * time.Second
	began, lacks := time.Now(), false
	s.until("the original takes part, or says what is to be done", func() error {
		st, err := s.status(original)
		if err != nil || st.Cluster == nil || st.Cluster.State == "member" {
			return err
		}
		lacks = strings.Contains(st.Cluster.Reason, "`carrick recover`") && time.Since(began) > bySelf
		if lacks {
			return nil
		}
		return fmt.Errorf("%s: %s: %s", original.Name, st.Cluster.State, st.Cluster.Reason)
	})
	if lacks {
		out, err := third.Run(s.ctx, binary, "recover", "--yes")
		s.must(err)
		s.Logf("the copy had decided something; carrick recover on %s said:\n%s", third.Name, out)
	}
	s.joined(s.hosts...)
	st, err := s.status(original)
	s.must(err)
	if strings.Contains(st.text(), "went back in time") {
		s.must(s.killPlugin(original)) // the alarm ends with that
	}
}

// parted: the trouble of the others ends by itself when the copy is a node of its own, but for alarms with some word.
func (s *scene) parted(clone *lab.Host, but ...string) {
	s.Helper()
	s.joined(s.hosts...)
	expected := func(alarm string) bool {
		return slices.ContainsFunc(but, func(word string) bool { return strings.Contains(alarm, word) })
	}
	s.until("the others have no alarm", func() error {
		return onAll(s.others(clone), func(h *lab.Host) error {
			st, err := s.status(h)
			if err == nil && len(slices.DeleteFunc(slices.Concat(st.Alarms, st.Cluster.Alarms), expected)) > 0 {
				err = fmt.Errorf("%s: %s", h.Name, st.text())
			}
			return err
		})
	})
}
