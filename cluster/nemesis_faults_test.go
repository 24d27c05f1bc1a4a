//go:build nemesis

package cluster

import (
	"net/netip"
	"time"

	"github.com/hashicorp/raft"
)

// fault is the next thing that goes wrong, or is mended.
func (r *round) fault() {
	r.faults++
	n := r.nodes[r.random.IntN(len(r.nodes))]
	if r.random.IntN(3) == 0 {
		n = r.leaderNow(n)
	}
	switch k := r.random.IntN(100); {
	case k < 20:
		r.partition(n)
	case k < 45:
		r.wire.heal()
		r.wire.set(func() { r.wire.loss, r.wire.twice = 0.02, 0.2 })
	case k < 52:
		r.crash(n)
	case k < 58:
		for _, n := range r.nodes {
			r.crash(n)
		}
		for _, n := range r.nodes {
			r.start(n)
		}
	case k < 70:
		for _, n := range r.nodes {
			r.start(n)
		}
	case k < 73:
		r.restart(n)
	case k < 85:
		loss, twice, delay := r.random.Float64()*0.3, r.random.Float64(), time.Duration(1+r.random.IntN(40))*time.Millisecond
		r.wire.set(func() { r.wire.loss, r.wire.twice, r.wire.delay = loss, twice, delay })
	case k < 90:
		r.disks[n].setSlow(time.Duration(r.random.IntN(2)) * time.Duration(1+r.random.IntN(150)) * time.Millisecond)
	case k < 93:
		r.leave(n)
	case k < 97:
		r.forget(r.nodes[r.random.IntN(len(r.nodes))], n)
	default:
		if node := n.c.running(); node != nil && !r.down[n] {
			_ = node.LeadershipTransfer() // whether it works or not
		}
	}
}

// leaderNow is the host that leads, or another.
func (r *round) leaderNow(other *testNode) *testNode {
	for _, n := range r.nodes {
		if node := n.c.running(); !r.down[n] && node != nil && node.State() == raft.Leader {
			return n
		}
	}
	return other
}

// restart ends the program of a host and starts it again.
func (r *round) restart(n *testNode) {
	if r.down[n] {
		return
	}
	n.stop()
	r.lock.Lock()
	defer r.lock.Unlock()
	n.up()
}

// partition cuts the hosts off from each other in one of the shapes that there are.
func (r *round) partition(victim *testNode) {
	addrs := make([]netip.Addr, 0, len(r.nodes))
	for _, i := range r.random.Perm(len(r.nodes)) {
		addrs = append(addrs, r.nodes[i].cfg.Advertise)
	}
	v := victim.cfg.Advertise
	shape, size := r.random.IntN(6), 1+r.random.IntN(len(addrs)-1)
	cuts := func(i, j int) bool { // from the i-th to the j-th
		switch shape {
		case 0: // two parts
			return (i < size) != (j < size)
		case 1: // one is alone
			return addrs[i] == v || addrs[j] == v
		case 2: // one is not heard
			return addrs[i] == v
		case 3: // one does not hear
			return addrs[j] == v
		case 4: // two parts, and one between them that hears both
			return i != 2 && j != 2 && (i < 2) != (j < 2)
		}
		return (i+1)%len(addrs) != j && (j+1)%len(addrs) != i // a ring: each hears its neighbours
	}
	r.wire.set(func() {
		clear(r.wire.cut)
		for i := range addrs {
			for j := range addrs {
				if i != j && cuts(i, j) {
					r.wire.cut[[2]netip.Addr{addrs[i], addrs[j]}] = true
				}
			}
		}
	})
}
