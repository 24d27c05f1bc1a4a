package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func opened(t *testing.T, n *testNode) *Cluster {
	t.Helper()
	c, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKeyIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	n := newLab(t).host()
	id := opened(t, n).ID()
	if len(id) != 32 {
		t.Errorf("id %q", id)
	}
	info, err := os.Stat(filepath.Join(n.cfg.Dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if again := opened(t, n).ID(); again != id {
		t.Errorf("id %s, then %s", id, again)
	}
}

func TestKeyAndLogBelongTogether(t *testing.T) {
	for what, damage := range map[string]func(*testNode){
		"no key":          func(n *testNode) { os.Remove(filepath.Join(n.cfg.Dir, keyFile)) },
		"rubbish for key": func(n *testNode) { os.WriteFile(filepath.Join(n.cfg.Dir, keyFile), []byte("{"), 0o600) },
		"short key": func(n *testNode) {
			os.WriteFile(filepath.Join(n.cfg.Dir, keyFile), []byte(`{"v":1,"seed":"AA=="}`), 0o600)
		},
		"flipped version": func(n *testNode) {
			path := filepath.Join(n.cfg.Dir, keyFile)
			raw, _ := os.ReadFile(path)
			os.WriteFile(path, bytes.Replace(raw, []byte(`"v":1`), []byte(`"v":5`), 1), 0o600)
		},
		"key of another":    func(n *testNode) { makeKey(n.cfg.Dir) },
		"no log":            func(n *testNode) { clear(n.kv.data) },
		"log of another":    func(n *testNode) { n.kv.data[keyNode] = []byte("other") },
		"log with a hole":   func(n *testNode) { n.kv.data[logKey(3)], n.kv.data[logKey(5)] = n.kv.data["x"], n.kv.data["x"] },
		"end is gone":       func(n *testNode) { n.kv.data[keyApplied] = []byte("6") },
		"beginning is gone": func(n *testNode) { delete(n.kv.data, logKey(1)) },
	} {
		n := newLab(t).host()
		id := opened(t, n).ID()
		s, err := openRaftStore(n.kv)
		if err != nil {
			t.Fatal(err)
		}
		for index := range uint64(5) {
			if err := s.StoreLog(&raft.Log{Index: index + 1, Term: 1, Type: raft.LogNoop}); err != nil {
				t.Fatal(err)
			}
		}
		n.kv.data[keyCluster] = []byte("c")
		if again := opened(t, n); again.ID() != id || again.store.last != 5 {
			t.Fatalf("%s: undamaged: id %s then %s, log up to %d", what, id, again.ID(), again.store.last)
		}
		damage(n)
		c := opened(t, n)
		if c.ID() == id {
			t.Errorf("%s: the node is the same", what)
		}
		if c.store.last != 0 || c.cluster() != "" {
			t.Errorf("%s: the log goes up to %d, the cluster is %q", what, c.store.last, c.cluster())
		}
		if again := opened(t, n); again.ID() != c.ID() {
			t.Errorf("%s: it is another node at each start", what)
		}
	}
}

// TestKeyOfAnOlderVersion has no checksum.
func TestKeyOfAnOlderVersion(t *testing.T) {
	n := newLab(t).host()
	id := opened(t, n).ID()
	path := filepath.Join(n.cfg.Dir, keyFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	older := regexp.MustCompile(`,"sum":\d+`).ReplaceAll(raw, nil)
	if err := os.WriteFile(path, older, 0o600); err != nil || len(older) == len(raw) {
		t.Fatal(err)
	}
	if again := opened(t, n).ID(); again != id {
		t.Errorf("node %s, then %s", id, again)
	}
}

func TestWhatANewerVersionWroteIsKept(t *testing.T) {
	for what, write := range map[string]func(*testNode){
		"key": func(n *testNode) {
			os.WriteFile(filepath.Join(n.cfg.Dir, keyFile), []byte(`{"v":2,"key":"x"}`), 0o600)
		},
		"log": func(n *testNode) {
			n.kv.data[keyCluster] = []byte("c")
			n.kv.data[logKey(1)] = append([]byte{2}, make([]byte, 60)...)
		},
	} {
		n := newLab(t).host()
		opened(t, n)
		write(n)
		before := len(n.kv.data)
		if _, err := New(n.cfg); !errors.Is(err, errNewer) || !strings.Contains(err.Error(), "this node knows 1") {
			t.Errorf("%s: %v", what, err)
		}
		if len(n.kv.data) != before {
			t.Errorf("%s: something was deleted", what)
		}
	}
}

func TestFoundingThatWasCutShortBeginsAgain(t *testing.T) {
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	c := opened(t, n)
	self := raft.Server{ID: raft.ServerID(c.ID()), Address: raftAddr(c.ID(), c.transport.local)}
	err := raft.BootstrapCluster(c.raftConfig(), c.store, c.store, c.snapshots, nil, raft.Configuration{Servers: []raft.Server{self}})
	if err != nil {
		t.Fatal(err)
	}
	n.up() // the cluster's id was not yet written down
	oneCluster(t, n)
	if n.c.ID() != c.ID() {
		t.Error("it is another node, although nobody has heard of the cut founding")
	}
}
