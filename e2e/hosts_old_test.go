//go:build e2e

package e2e

import (
	"fmt"

	"github.com/carricknet/carrick/lab"
)

// oldDisk: the plugin of a host is started on an older copy of what it has on its disk, while containers run that were started before
// the copy was made and since.
func oldDisk(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	h := s.hosts[1]
	goes := s.run(h, "goes", "--network", "blue")
	s.reach(allPairs("blue", append(all, goes)...))
	probes := s.probe(allPairs("blue", all...))
	s.more(probes, 20)
	s.onState(h, `cp -a "$state" "$state.old"`)
	s.joined(s.hosts...)
	s.docker(h, "rm", "-f", goes.name)
	late := []*container{s.run(h, "late1", "--network", "blue"), s.run(h, "late2", "--network", "blue")}
	s.reach(allPairs("blue", append(all, late...)...))
	near := s.probe(allPairs("blue", all[1], late[0], late[1]))
	s.onState(h, `find "$state" -mindepth 1 -delete
		cp -a "$state.old"/. "$state"
		rm -r "$state.old"`)
	s.says(h, "the disk of this host went back in time", " of leases", " of raft")
	s.joined(s.hosts...)
	s.until("it votes again", func() error { return s.votes(s.hosts[0], s.hosts...) })
	s.more(probes, 100)
	s.lossless("what the older disk knows", probes, true)
	s.lossless("on the host itself", near, true)
	// The addresses of those that the disk does not know are given to nobody.
	more := []*container{s.run(h, "more1", "--network", "blue"), s.run(h, "more2", "--network", "blue"), s.run(h, "more3", "--network", "blue")}
	far := s.run(s.hosts[0], "far", "--network", "blue")
	s.distinct("blue", append(append(append([]*container{far}, all...), late...), more...)...)
	s.reach(allPairs("blue", append(append(all, more...), far)...))
	s.refused(h, words("frozen"), "run", "-d", "--name", "asked", "--network", "blue", "--ip", late[0].nets["blue"].v4.String(), lab.Image)
	s.docker(h, "rm", "-f", "asked")
	// Started again, they are known again.
	for _, c := range late {
		s.docker(h, "restart", "-t", "0", c.name)
	}
	late = s.again(late...)
	s.distinct("blue", append(append(append([]*container{far}, all...), late...), more...)...)
	s.reach(allPairs("blue", append(append(all, more...), late...)...))
	s.says(h, "went back in time")
	s.must(s.killPlugin(h))
	s.joined(s.hosts...)
	s.until("the alarm has ended", func() error {
		st, err := s.status(h)
		if err == nil && st.Cluster != nil && len(st.Cluster.Alarms) > 0 {
			err = fmt.Errorf("%s: %q", h.Name, st.Cluster.Alarms)
		}
		return err
	})
}

// onState does something about what the plugin of a host has on its disk, while the plugin is off.
func (s *scene) onState(h *lab.Host, script string) {
	s.Helper()
	id := s.docker(h, "plugin", "inspect", "-f", "{{.Id}}", plugin)
	s.docker(h, "plugin", "disable", "-f", plugin)
	_, err := h.Run(s.ctx, "sh", "-euc", `state=/var/lib/docker/plugins/$0/propagated-mount; `+script, id)
	s.must(err)
	s.docker(h, "plugin", "enable", plugin)
}
