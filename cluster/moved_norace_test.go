//go:build !race

package cluster

import "testing"

// raft reads the id of a server without its lock while it writes the server's new address (hashicorp/raft issue 681), and the race
// detector sees it once in some thirty times. The id is the same before and after.
func TestNoRaceAddressChangeIsFollowed(t *testing.T) {
	l := newLab(t)
	nodes := l.hosts(3)
	allUp(nodes)
	oneCluster(t, nodes...)
	moved := leader(t, nodes...)
	moved.stop()
	other := l.host()
	moved.cfg.Advertise, moved.cfg.RaftPort, moved.cfg.GossipPort = other.cfg.Advertise, other.cfg.RaftPort, other.cfg.GossipPort
	id := moved.c.ID()
	moved.up()
	for _, n := range nodes {
		eventually(t, n.cfg.Name+" knows the new address", func() bool {
			r, ok := n.c.View().registration(id)
			return ok && r.Addr == moved.cfg.Advertise && r.RaftPort == moved.cfg.RaftPort
		})
	}
	oneCluster(t, nodes...)
	moved.write(t, "a", "1")
}
