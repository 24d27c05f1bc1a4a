package cluster

import (
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// counted is a KV that counts its commits, as a store does.
type counted struct {
	*memKV
	mu      sync.Mutex
	commits uint64
	others  [2]uint64 // commits of the other two stores of the host
}

func (k *counted) Apply(writes ...Write) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.memKV.Apply(writes...); err != nil {
		return err
	}
	k.commits++
	return nil
}

// work is what a host does that has nothing to do with the cluster.
func (k *counted) work(n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.others[1] += n
}

func (k *counted) reached() []Reached {
	k.mu.Lock()
	defer k.mu.Unlock()
	return []Reached{{"state", [16]byte{1}, k.others[0]}, {"leases", [16]byte{2}, k.others[1]}, {"raft", [16]byte{3}, k.commits}}
}

// watched gives hosts a disk that the others remember.
func watched(nodes []*testNode) map[*testNode]*counted {
	all := map[*testNode]*counted{}
	for _, n := range nodes {
		all[n] = &counted{memKV: n.kv}
		n.cfg.Log, n.cfg.Disk = all[n], all[n].reached
	}
	return all
}

// diskCopy is a copy of all that a host has on its disk. The host must not be up.
type diskCopy struct {
	dir     string
	data    map[string][]byte
	commits uint64
	others  [2]uint64
}

func copyDisk(t *testing.T, n *testNode, k *counted) diskCopy {
	t.Helper()
	d := diskCopy{t.TempDir(), maps.Clone(n.kv.data), k.commits, k.others}
	if err := os.CopyFS(d.dir, os.DirFS(n.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d diskCopy) putBack(t *testing.T, n *testNode, k *counted) {
	t.Helper()
	n.kv.data, k.commits, k.others = maps.Clone(d.data), d.commits, d.others
	if err := os.RemoveAll(n.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.cfg.Dir, os.DirFS(d.dir)); err != nil {
		t.Fatal(err)
	}
}

const wentBack = "the disk of this host went back in time"

// remembers waits until a node remembers all that another one has done.
func remembers(t *testing.T, n, of *testNode, k *counted) {
	t.Helper()
	eventually(t, n.cfg.Name+" remembers how far "+of.cfg.Name+" has come", func() bool {
		n.c.gossip.pulls.compare(of.c.ID()) // sooner than by itself
		m, err := decodeMark(n.c.gossip.recall.of(of.c.ID()))
		return err == nil && slices.Equal(m.at, pointsOf(k.reached()))
	})
}

// term is raft's, as it is on a host's disk.
func (k *counted) term(t *testing.T) uint64 {
	t.Helper()
	term, err := (&raftStore{kv: k}).GetUint64([]byte(termKey))
	if err != nil {
		t.Fatal(err)
	}
	return term
}

// aged is a cluster of three whose leader has been stopped, and has an older copy of its disk.
func aged(t *testing.T) (nodes []*testNode, back *testNode, disk *counted, newest uint64) {
	nodes = newLab(t).hosts(3)
	disks := watched(nodes)
	allUp(nodes)
	oneCluster(t, nodes...)
	back = leader(t, nodes...) // the worst one to go back
	disk = disks[back]
	back.write(t, "a", "1")
	back.stop()
	old := copyDisk(t, back, disk)
	back.up()
	oneCluster(t, nodes...)
	if back.c.Regressed() != "" || alarmed(back, wentBack) {
		t.Fatalf("it did not go back: %q", back.c.Status().Alarms)
	}
	back.write(t, "a", "2")
	disk.work(12)
	for _, n := range nodes {
		if n != back {
			remembers(t, n, back, disk)
		}
	}
	newest = disk.term(t)
	back.stop()
	old.putBack(t, back, disk)
	if disk.term(t) >= newest {
		t.Fatal("it has promised nothing since the copy was made")
	}
	return nodes, back, disk, newest
}

func except(nodes []*testNode, n *testNode) []*testNode {
	return slices.DeleteFunc(slices.Clone(nodes), func(o *testNode) bool { return o == n })
}

// A voter is started with an older copy of its disk. It takes no part before the others have taken its vote, comes back as one that
// has no facts, votes again, says what has happened, and says it once.
func TestOldDiskOfAVoter(t *testing.T) {
	t.Parallel()
	nodes, back, disk, newest := aged(t)
	others := except(nodes, back)
	others[0].write(t, "a", "3")
	back.up()
	id := back.c.ID()
	back.again() // what stands on the cluster is told
	first := back.c.Regressed()
	if first == "" || back.c.running() != nil {
		t.Fatalf("regressed %q, raft runs: %v", first, back.c.running() != nil)
	}
	back.again() // its vote was taken
	if back.c.ID() != id || back.c.Regressed() != first {
		t.Errorf("node %s, then %s; %q, then %q", id, back.c.ID(), first, back.c.Regressed())
	}
	eventually(t, "it has facts", func() bool { return back.c.View().Index() > 0 })
	if !back.has("a", "3") {
		t.Errorf("it goes by facts up to entry %d, before it has all that it had", back.c.View().Index())
	}
	oneCluster(t, nodes...)
	if now := disk.term(t); now < newest {
		t.Errorf("it is in term %d, and was in %d", now, newest)
	}
	if !alarmed(back, wentBack) || !alarmed(back, " of leases") || !alarmed(back, " of raft") {
		t.Errorf("alarms %q", back.c.Status().Alarms)
	}
	if err := back.c.Undisputed(t.Context()); err != nil {
		t.Error(err)
	}
	back.write(t, "a", "4")
	disk.work(1)
	remembers(t, others[0], back, disk)
	back.stop()
	back.up()
	oneCluster(t, nodes...)
	if back.c.Regressed() != "" || alarmed(back, wentBack) {
		t.Errorf("once more: %q", back.c.Status().Alarms)
	}
}

// TestOldDiskUnnoticed is what happens where nobody compares: the voter takes part as it was, in a term that it has left.
func TestOldDiskUnnoticed(t *testing.T) {
	t.Parallel()
	nodes, back, disk, newest := aged(t)
	back.cfg.Disk = nil
	for _, n := range except(nodes, back) {
		n.stop()
	}
	back.up()
	eventually(t, "raft runs", func() bool { return back.c.running() != nil })
	if now := disk.term(t); now >= newest {
		t.Errorf("it is in term %d, and was in %d", now, newest)
	}
	if err := back.c.Undisputed(t.Context()); err != nil {
		t.Error(err)
	}
	if len(back.c.Status().Alarms) > 0 {
		t.Errorf("alarms %q", back.c.Status().Alarms)
	}
}

// Nobody is there when the host starts, and it has come further than its newer disk when somebody is. The others were started anew as
// well: they remember.
func TestOldDiskIsFoundLate(t *testing.T) {
	t.Parallel()
	nodes, back, disk, _ := aged(t)
	others := except(nodes, back)
	for _, n := range others {
		n.stop()
	}
	back.up()
	eventually(t, "it does not wait for ever", func() bool { return back.c.running() != nil })
	if back.c.Compare(t.Context()) {
		t.Error("somebody has answered")
	}
	disk.work(1000)
	allUp(others)
	back.again()
	if back.c.Regressed() == "" {
		t.Fatal("it begins again for another reason")
	}
	back.again()
	oneCluster(t, nodes...)
	if !alarmed(back, wentBack) {
		t.Errorf("alarms %q", back.c.Status().Alarms)
	}
}

// onlyVoter is a cluster of two, of which one votes.
func onlyVoter(t *testing.T) (nodes []*testNode, disks map[*testNode]*counted, back, other *testNode) {
	nodes = newLab(t).hosts(2)
	disks = watched(nodes)
	allUp(nodes)
	oneCluster(t, nodes...)
	back = leader(t, nodes...)
	return nodes, disks, back, except(nodes, back)[0]
}

// The only voter of two goes back: nobody can take its vote. The operator recovers the cluster on the other one, whose copy is the
// newest that there is, and the voter follows.
func TestOldDiskOfTheOnlyVoter(t *testing.T) {
	t.Parallel()
	nodes, disks, back, other := onlyVoter(t)
	back.stop()
	old := copyDisk(t, back, disks[back])
	back.up()
	oneCluster(t, nodes...)
	back.write(t, "a", "1")
	eventually(t, "the other one has it", func() bool { return other.has("a", "1") })
	remembers(t, other, back, disks[back])
	id := back.c.ID()
	back.stop()
	old.putBack(t, back, disks[back])
	back.up()
	back.again()
	eventually(t, "it says what is to be done", func() bool {
		s := back.c.Status()
		return s.State == Quarantined && strings.Contains(s.Reason, "run `carrick recover` on another host")
	})
	if err := back.c.Undisputed(t.Context()); err == nil || !strings.Contains(err.Error(), "went back in time") {
		t.Errorf("it may give out addresses: %v", err)
	}
	recovered(t, other)
	back.again() // it follows the new generation
	back.again() // and has no vote
	oneCluster(t, nodes...)
	if back.c.ID() != id || !back.has("a", "1") {
		t.Errorf("node %s, then %s; it has the fact: %v", id, back.c.ID(), back.has("a", "1"))
	}
}

// The only voter of two has lost leases, and none of the facts that the other one has: it leads again.
func TestOldDiskOfTheOnlyVoterThatLacksNoFact(t *testing.T) {
	t.Parallel()
	nodes, disks, back, other := onlyVoter(t)
	back.write(t, "a", "1")
	eventually(t, "the other one has it", func() bool { return other.has("a", "1") })
	disks[back].work(12)
	remembers(t, other, back, disks[back])
	id := back.c.ID()
	back.stop()
	disks[back].others[1] -= 12
	back.up()
	back.again() // what stands on the cluster is told
	first := back.c.Regressed()
	back.again() // nobody has more
	oneCluster(t, nodes...)
	if back.c.ID() != id || first == "" || back.c.Regressed() != first || !alarmed(back, "12 of leases") {
		t.Errorf("node %s, then %s; %q, then %q; alarms %q", id, back.c.ID(), first, back.c.Regressed(), back.c.Status().Alarms)
	}
	other.write(t, "a", "2")
}

// TestWhoLeavesIsNoOldDisk: a new node on the same disk has nothing to do with what the old one was.
func TestWhoLeavesIsNoOldDisk(t *testing.T) {
	t.Parallel()
	nodes := newLab(t).hosts(3)
	disks := watched(nodes)
	allUp(nodes)
	oneCluster(t, nodes...)
	leaves := nodes[2]
	disks[leaves].work(50)
	remembers(t, nodes[0], leaves, disks[leaves])
	id := leaves.c.ID()
	if err := leaves.c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody remembers it", func() bool { return nodes[0].c.gossip.recall.of(id) == nil })
	leaves.stop()
	leaves.up()
	oneCluster(t, nodes...)
	remembers(t, nodes[0], leaves, disks[leaves])
	if leaves.c.Regressed() != "" {
		t.Errorf("alarms %q", leaves.c.Status().Alarms)
	}
}
