package cluster

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFoundAlone(t *testing.T) {
	l := newLab(t)
	n := l.host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	n.write(t, "x/y", "1")
	if id, ok := n.c.View().Get(factCluster); !ok || string(id.Value) != n.c.Status().Cluster {
		t.Errorf("cluster/id is %q, Status says %q", id.Value, n.c.Status().Cluster)
	}
}

func TestThreeFormOneClusterInAnyOrder(t *testing.T) {
	t.Parallel()
	orders := [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}}
	for _, order := range orders {
		nodes := newLab(t).hosts(3)
		for _, i := range order {
			nodes[i].up()
		}
		oneCluster(t, nodes...)
		for _, n := range nodes {
			n.write(t, "by/"+n.cfg.Name, n.cfg.Name)
		}
		for _, n := range nodes {
			n.stop()
		}
	}
}

func TestFounderWaitsForTheListed(t *testing.T) {
	nodes := newLab(t).hosts(2)
	nodes[0].up()
	eventually(t, "the founder says whom it waits for", func() bool {
		s := nodes[0].c.Status()
		return s.State == Founding && strings.HasPrefix(s.Reason, "waiting for 127.0.0.3")
	})
	nodes[1].up()
	oneCluster(t, nodes...)
}

func TestWaitingNodeIsFoundByTheJoinOfAnother(t *testing.T) {
	l := newLab(t)
	waiting := l.host().up()
	founder := l.host()
	founder.cfg.Join = []string{founder.at(), waiting.at()}
	founder.up()
	oneCluster(t, founder, waiting)
}

func TestFoundOverIPv6(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host() // two hosts at one address, told apart by their ports
	for _, n := range []*testNode{a, b} {
		n.cfg.Advertise = netip.IPv6Loopback()
	}
	a.cfg.Join, b.cfg.Join = []string{a.at()}, []string{a.at()}
	a.up()
	b.up()
	oneCluster(t, a, b)
	b.write(t, "a", "1")
}
