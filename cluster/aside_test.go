package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// memberOf makes the disk of a host that of a node with five entries, which is in a cluster.
func memberOf(t *testing.T, n *testNode) (id string) {
	t.Helper()
	id = opened(t, n).ID()
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
	return id
}

func TestWhatWasDamagedIsPutAside(t *testing.T) {
	n := newLab(t).host()
	id := memberOf(t, n)
	key, err := os.ReadFile(filepath.Join(n.cfg.Dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	delete(n.kv.data, logKey(3))
	for range 2 { // until the node is in a cluster again
		c := opened(t, n)
		said := strings.Join(c.alarms.texts(), "\n")
		if !strings.Contains(said, "damaged-1") || !strings.Contains(said, id) || !strings.Contains(said, "carrick forget") {
			t.Errorf("alarms %q", said)
		}
	}
	kept, err := os.ReadFile(filepath.Join(n.cfg.Dir, "damaged-1", keyFile))
	if err != nil || string(kept) != string(key) {
		t.Errorf("the key is not kept: %v", err)
	}
	var log map[string][]byte
	raw, err := os.ReadFile(filepath.Join(n.cfg.Dir, "damaged-1", "log.json"))
	if err == nil {
		err = json.Unmarshal(raw, &log)
	}
	if err != nil || string(log[keyCluster]) != "c" || len(log[logKey(5)]) == 0 || string(log[keyNode]) != id {
		t.Errorf("the log that is kept has %d keys: %v", len(log), err)
	}
	n.kv.data[keyCluster] = []byte("c")
	for range 2 {
		if said := opened(t, n).alarms.texts(); len(said) != 0 {
			t.Errorf("in a cluster again, and alarms %q", said)
		}
	}
	for range 2 * keptAside {
		memberOf(t, n)
		delete(n.kv.data, logKey(3))
		opened(t, n)
	}
	if all, err := filepath.Glob(filepath.Join(n.cfg.Dir, "damaged-*")); err != nil || len(all) != keptAside {
		t.Errorf("%v are kept, %v", all, err)
	}
}

// TestNodeThatHasLeftPutsNothingAside: that is no damage.
func TestNodeThatHasLeftPutsNothingAside(t *testing.T) {
	n := newLab(t).host()
	id := memberOf(t, n)
	if err := opened(t, n).discard(); err != nil {
		t.Fatal(err)
	}
	c := opened(t, n)
	if all, err := filepath.Glob(filepath.Join(n.cfg.Dir, "damaged-*")); c.ID() == id || err != nil || len(all) != 0 || len(c.alarms.texts()) != 0 {
		t.Errorf("node %s then %s, %v put aside, alarms %q, %v", id, c.ID(), all, c.alarms.texts(), err)
	}
}

// TestWhatIsNoFileOfANode hangs nothing and stands in nobody's way.
func TestWhatIsNoFileOfANode(t *testing.T) {
	kinds := map[string]func(path string) error{
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "with"), 0o700) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"file":      func(path string) error { return os.WriteFile(path, []byte("foreign"), 0o600) },
	}
	for kind, put := range kinds {
		for _, name := range []string{keyFile, epochFile, cacheFile, snapshotDir, keyFile + ".new", epochFile + ".new", cacheFile + ".new", "."} {
			n := newLab(t).host()
			id := memberOf(t, n)
			path := filepath.Join(n.cfg.Dir, name)
			if err := os.RemoveAll(filepath.Clean(path)); err != nil {
				t.Fatal(err)
			}
			if err := put(filepath.Clean(path)); err != nil {
				t.Fatal(err)
			}
			c := opened(t, n)
			if lost := name == keyFile || name == "."; lost != (c.ID() != id) {
				t.Errorf("%s in the place of %s: node %s, then %s", kind, name, id, c.ID())
			}
			if err := saveEpoch(n.cfg.Dir, 7); err != nil {
				t.Errorf("%s in the place of %s: %v", kind, name, err)
			}
			if err := saveCache(n.cfg.Dir, cache{}.encode()); err != nil {
				t.Errorf("%s in the place of %s: %v", kind, name, err)
			}
			snapshot(t, c.snapshots, 4, "x")
			if epoch, err := loadEpoch(n.cfg.Dir); err != nil || epoch != 7 {
				t.Errorf("%s in the place of %s: epoch %d, %v", kind, name, epoch, err)
			}
		}
	}
}
