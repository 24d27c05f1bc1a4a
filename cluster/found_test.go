package cluster

import (
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
