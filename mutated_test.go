package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
	"github.com/carricknet/carrick/store/storetest"
)

// diskDirs are what a host has on its disk, below the directory of its state.
var diskDirs = []string{"state", "leases", "raft", "cluster"}

// disks is a host with running containers, as its disk has it now and had it earlier, and one more host.
type disks struct {
	engine         *engine
	now, old, twin string
	net            *dockerNet
	running        []*container
	kernel         map[string]kernel.State
	facts          []cluster.Op
	secret         string
	node           string // its id in the cluster
}

// entries is how many facts the log of a host has in the end.
const entries = 20

func makeDisks(t *testing.T) disks {
	t.Helper()
	shared := &clustertest.Cluster{}
	all := engines(t, shared, 2)
	d := disks{engine: all[0], now: all[0].dir, old: t.TempDir(), twin: all[1].dir, secret: cluster.GenerateSecret()}
	for i, e := range all {
		net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
		e.must(err)
		for range 6 {
			c, err := e.run(net)
			e.must(err)
			if i == 0 {
				d.net, d.running = net, append(d.running, c)
			}
			if i == 0 && len(d.running) == 3 {
				e.kill()
				d.writeLog(t, d.now, 1, entries/2)
				for _, dir := range diskDirs {
					e.must(os.CopyFS(filepath.Join(d.old, dir), os.DirFS(filepath.Join(d.now, dir))))
				}
				e.start()
			}
		}
		e.kill()
		e.kill = func() {}
	}
	d.writeLog(t, d.now, entries/2+1, entries)
	d.writeLog(t, d.twin, 1, entries)
	d.kernel = map[string]kernel.State{}
	owned, err := d.engine.kernel.Owners(t.Context())
	d.engine.must(err)
	for _, o := range owned {
		d.kernel[o.Owner] = d.engine.kernel.State(o.Owner)
	}
	for f := range d.engine.node.View().Prefix("") {
		d.facts = append(d.facts, cluster.Op{Key: f.Key, Value: f.Value})
	}
	return d
}

// join reads what a host has as a node of the cluster.
func (d disks) join(dir string) (*cluster.Cluster, func() error, error) {
	s, err := store.Open(filepath.Join(dir, "raft"))
	if err != nil {
		return nil, nil, err
	}
	c, err := cluster.New(cluster.Config{
		Secret: []byte(d.secret), Advertise: netip.MustParseAddr("127.0.0.1"), Name: "host0", GossipPort: 7947, RaftPort: 7948,
		Dir: filepath.Join(dir, "cluster"), Log: raftLog{s}, Version: "test",
	})
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return c, s.Close, nil
}

// factOf is what an entry says, on all hosts: the first that the one under test is a node.
func factOf(i int, node string) (key string, value []byte) {
	if i == 1 {
		return "node/" + node, fmt.Appendf(nil, `{"v":1,"id":%q,"name":"host0"}`, node)
	}
	return fmt.Sprint("k/", i), []byte("v")
}

// writeLog makes the host a node with these entries, each of which is one fact, and a snapshot of the first half: in the
// formats of package cluster.
func (d *disks) writeLog(t *testing.T, dir string, from, to int) {
	t.Helper()
	c, done, err := d.join(dir) // makes the key
	d.engine.must(err)
	if dir == d.now {
		d.node = c.ID()
	}
	d.engine.must(done())
	s, err := store.Open(filepath.Join(dir, "raft"))
	d.engine.must(err)
	for i := from; i <= to; i++ {
		key, value := factOf(i, d.node)
		entry := fmt.Sprintf(`{"v":1,"id":"request-%d","txn":{"then":[{"key":%q,"value":%q}]}}`, i, key, base64.StdEncoding.EncodeToString(value))
		b := binary.BigEndian.AppendUint64([]byte{1, 0}, uint64(i)) // version, command, index
		b = binary.BigEndian.AppendUint64(b, 1)                     // term
		b = binary.BigEndian.AppendUint64(b, 0)                     // time
		b = binary.BigEndian.AppendUint32(b, uint32(len(entry)))
		d.engine.must(s.Apply(
			store.Write{Key: fmt.Sprintf("log/%016x", i), Value: append(b, entry...)},
			store.Write{Key: "cluster", Value: []byte("c")}, store.Write{Key: "applied", Value: fmt.Append(nil, i)}))
	}
	if to == entries {
		for i := 1; i <= entries/2-2; i++ {
			d.engine.must(s.Apply(store.Write{Key: fmt.Sprintf("log/%016x", i)}))
		}
	}
	d.engine.must(s.Close())
	var content bytes.Buffer
	fmt.Fprintf(&content, `{"v":1,"last":%d,"facts":%d,"marks":0,"seen":0}`, entries/2, entries/2)
	for i := 1; i <= entries/2; i++ {
		key, value := factOf(i, d.node)
		fmt.Fprintf(&content, `{"k":%q,"i":%d,"x":%q}`, key, i, base64.StdEncoding.EncodeToString(value))
	}
	name := fmt.Sprintf("%016x-%016x", 1, entries/2)
	about, err := json.Marshal(map[string]any{"Version": 1, "ID": name, "Index": entries / 2, "Term": 1})
	d.engine.must(err)
	b := binary.BigEndian.AppendUint32([]byte("carrickS"), 1)
	b = append(append(binary.BigEndian.AppendUint32(b, uint32(len(about))), about...), content.Bytes()...)
	sum := sha256.Sum256(b)
	d.engine.must(os.MkdirAll(filepath.Join(dir, "cluster", "snapshots"), 0o700))
	for _, ext := range []string{".a", ".b"} {
		d.engine.must(os.WriteFile(filepath.Join(dir, "cluster", "snapshots", name+ext), append(b, sum[:]...), 0o600))
	}
}

// start is what came of one start.
type start struct {
	socket, ready time.Duration
	damage        []string
	renewed       bool
	refused       bool   // no new container
	wrong         string // what should not be
}

// try starts the host on a copy of its disk to which change was done. The kernel has what it had.
func (d disks) try(t *testing.T, change func(dir string)) (s start) {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(d.now), "case")
	d.engine.must(err)
	defer os.RemoveAll(dir)
	for _, name := range diskDirs {
		d.engine.must(os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(d.now, name))))
	}
	change(dir)
	node := (&clustertest.Cluster{}).Node("host0")
	_, err = node.Propose(t.Context(), cluster.Txn{Then: d.facts})
	d.engine.must(err)
	e := &engine{T: t, family: d.engine.family, dir: dir, node: watched{node}, kernel: &brittle{}, calls: 1000}
	for owner, state := range d.kernel {
		e.must(e.kernel.Set(t.Context(), owner, state))
	}
	for _, c := range d.running {
		e.kernel.Take("endpoint/" + c.id)
	}
	began := time.Now()
	answered := make(chan time.Duration)
	e.listening = func() {
		go func() {
			_, err := e.call("Plugin.Activate", nil)
			if err != nil {
				t.Error(err)
			}
			answered <- time.Since(began)
		}()
	}
	e.start()
	s.ready = time.Since(began)
	s.socket = <-answered
	s.damage = e.host.damage
	d.judge(e, &s)
	e.kill()
	e.kill = func() {}
	c, done, err := d.join(dir)
	if err != nil {
		s.wrong += "; the node does not start: " + err.Error()
		return s
	}
	d.judgeNode(c, &s)
	e.must(done())
	return s
}

// judge looks at what runs: nothing of it is touched, and nobody gets its addresses.
func (d disks) judge(e *engine, s *start) {
	for owner, before := range d.kernel {
		if now := e.kernel.State(owner); strings.HasPrefix(owner, "endpoint/") && fmt.Sprint(now) != fmt.Sprint(before) {
			s.wrong += fmt.Sprintf("; %s had %v, and has %v", owner, before, now)
		}
	}
	c, err := e.run(d.net)
	if s.refused = err != nil; s.refused {
		return
	}
	for _, other := range d.running {
		for i := range other.addresses {
			if other.addresses[i] == c.addresses[i] {
				s.wrong += "; " + c.addresses[i] + " was given twice"
			}
		}
	}
}

// judgeNode looks at the facts: a node that is the same has all of them, and another one has none.
func (d disks) judgeNode(c *cluster.Cluster, s *start) {
	s.renewed = c.ID() != d.node
	want := entries
	if s.renewed {
		want = 0
	}
	facts := 0
	for f := range c.View().Prefix("") {
		if key, value := factOf(int(f.Index), d.node); f.Key != key || !bytes.Equal(f.Value, value) {
			s.wrong += fmt.Sprintf("; fact %s is %q", f.Key, f.Value)
		}
		facts++
	}
	if facts != want {
		s.wrong += fmt.Sprintf("; %d facts, want %d", facts, want)
	}
}

// TestMutatedStarts damages the disk of a host with running containers and starts the plugin on it: nothing that runs is
// touched, no address is given twice, and of the facts all are there or none. When the socket has answered is measured.
// CARRICK_MUTATIONS says how many starts, CARRICK_SEED which.
func TestMutatedStarts(t *testing.T) {
	count, seed := uint64(storetest.Setting(t, "CARRICK_MUTATIONS", 40)), uint64(storetest.Setting(t, "CARRICK_SEED", 1))
	d := makeDisks(t)
	var socket, ready storetest.Durations
	outcomes := map[string]int{}
	for first := uint64(0); first < count; first += 500 { // in parts, each of which is cleaned up
		t.Run(fmt.Sprint("from seed ", seed+first), func(t *testing.T) {
			for i := first; i < min(count, first+500); i++ {
				var all []storetest.Mutation
				s := d.try(t, func(dir string) { all = mutate(t, d, dir, rand.New(rand.NewPCG(seed+i, 1))) })
				socket, ready = append(socket, s.socket), append(ready, s.ready)
				if s.wrong != "" {
					t.Fatalf("CARRICK_SEED=%d: %v: damage %q%s", seed+i, all, s.damage, s.wrong)
				}
				for what, so := range map[string]bool{"with a damaged store": len(s.damage) > 0, "as a new node": s.renewed, "without a new container": s.refused} {
					if so {
						outcomes[what]++
					}
				}
			}
		})
	}
	t.Logf("%d starts from seed %d: %v", count, seed, outcomes)
	t.Logf("the socket answered in: %v; ready in: %v", socket, ready)
	if count >= 40 && (outcomes["with a damaged store"] == 0 || outcomes["as a new node"] == 0 || outcomes["without a new container"] == int(count)) {
		t.Error("one of the outcomes is missing: the test tests nothing")
	}
}

func mutate(t *testing.T, d disks, dir string, r *rand.Rand) (all []storetest.Mutation) {
	t.Helper()
	victims := storetest.Victims{Whole: true}
	for _, name := range diskDirs {
		victims.Dirs = append(victims.Dirs, filepath.Join(dir, name))
		victims.Old = append(victims.Old, filepath.Join(d.old, name))
		victims.Twin = append(victims.Twin, filepath.Join(d.twin, name))
	}
	for range 1 + r.IntN(3)*r.IntN(2) {
		m, err := victims.Mutate(r)
		if err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		all = append(all, m)
	}
	return all
}

// TestMutatedStartsAreJudged: what no store can find out, since all of it is as it was earlier, is found by the judge.
func TestMutatedStartsAreJudged(t *testing.T) {
	d := makeDisks(t)
	if s := d.try(t, func(string) {}); s.wrong != "" || s.refused || s.renewed || len(s.damage) > 0 {
		t.Errorf("nothing was changed: %+v", s)
	}
	back := func(names ...string) start {
		return d.try(t, func(dir string) {
			for _, name := range names {
				d.engine.must(errors.Join(os.RemoveAll(filepath.Join(dir, name)),
					os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(d.old, name)))))
			}
		})
	}
	wrong := map[string]string{"state leases": "endpoint/", "raft cluster": "10 facts, want 20"}
	for _, names := range slices.Sorted(maps.Keys(wrong)) {
		if s := back(strings.Fields(names)...); !strings.Contains(s.wrong, wrong[names]) {
			t.Errorf("%s as they were earlier: %+v", names, s)
		}
	}
}
