package cluster

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// snapshot makes one with the given content.
func snapshot(t testing.TB, s raft.SnapshotStore, index uint64, content string) {
	t.Helper()
	servers := raft.Configuration{Servers: []raft.Server{{ID: "one", Address: "one@192.0.2.1:7948"}}}
	_, trans := raft.NewInmemTransport("")
	sink, err := s.Create(raft.SnapshotVersionMax, index, 3, servers, 1, trans)
	if err == nil {
		_, err = io.WriteString(sink, content)
	}
	if err == nil {
		err = sink.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// snapshotsOf are the contents, newest first, with index and servers.
func snapshotsOf(t testing.TB, s raft.SnapshotStore) (all []string) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, listed := range metas {
		meta, content, err := s.Open(listed.ID)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(content)
		if err != nil || int64(len(raw)) != meta.Size || listed.Size != meta.Size {
			t.Errorf("%d bytes of %d, listed as %d: %v", len(raw), meta.Size, listed.Size, err)
		}
		all = append(all, fmt.Sprintf("%d %d %s %s", meta.Term, meta.Index, meta.Configuration.Servers[0].Address, raw))
	}
	return all
}

func TestSnapshotsHaveTwoCopies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), snapshotDir)
	s := &snapshotStore{dir: dir}
	if got := snapshotsOf(t, s); got != nil {
		t.Errorf("%v before there is one", got)
	}
	for index := range uint64(4) {
		snapshot(t, s, 10*index+10, strings.Repeat("x", int(index)))
	}
	first, second := "3 40 one@192.0.2.1:7948 xxx", "3 30 one@192.0.2.1:7948 xx"
	newest, before := filepath.Join(dir, "0000000000000003-0000000000000028"), filepath.Join(dir, "0000000000000003-000000000000001e")
	for i, step := range []struct {
		damage func() error
		want   []string
		bad    int
	}{
		{func() error { return nil }, []string{first, second}, 0},
		{func() error { return os.WriteFile(newest+".a", []byte("x"), 0o600) }, []string{first, second}, 1},
		{func() error { return os.Remove(newest + ".a") }, []string{first, second}, 0}, // as a crash between the two leaves it
		{func() error { return os.Truncate(newest+".b", 50) }, []string{second}, 1},
		{func() error { return os.Rename(before+".b", newest+".a") }, []string{second}, 2},
		{func() error { return os.Remove(before + ".a") }, nil, 2},
	} {
		if err := step.damage(); err != nil {
			t.Fatal(err)
		}
		got := snapshotsOf(t, s)
		_, damage, err := s.survey()
		if err != nil || !slices.Equal(got, step.want) || len(damage) != step.bad {
			t.Errorf("step %d: %q, damage %q, %v", i, got, damage, err)
		}
	}
	snapshot(t, s, 50, "")
	if got, err := os.ReadDir(dir); err != nil || len(got) != 2 {
		t.Errorf("%v are left, want both copies of the newest: %v", got, err)
	}
}

func TestEveryByteOfASnapshotCounts(t *testing.T) {
	raw, err := encodeSnapshotFile(raft.SnapshotMeta{ID: "i", Index: 7, Term: 2}, []byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	for at := range raw {
		for _, flip := range []byte{1, 0x80, 0xff} {
			changed := bytes.Clone(raw)
			changed[at] ^= flip
			if _, _, err := decodeSnapshotFile(changed); err == nil {
				t.Fatalf("byte %d ^ %#x is not noticed", at, flip)
			}
		}
		if _, _, err := decodeSnapshotFile(raw[:at]); err == nil {
			t.Fatalf("cut to %d bytes: not noticed", at)
		}
	}
}

// TestSnapshotsOfOlderVersions were kept by raft's own store, whose descriptions have no checksum.
func TestSnapshotsOfOlderVersions(t *testing.T) {
	top := t.TempDir()
	own, err := raft.NewFileSnapshotStore(top, 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	snapshot(t, own, 10, "ten")
	snapshot(t, own, 20, "twenty")
	s := &snapshotStore{dir: filepath.Join(top, snapshotDir)}
	if got, want := snapshotsOf(t, s), snapshotsOf(t, own); !slices.Equal(got, want) || len(got) != 2 {
		t.Fatalf("%q, raft's own has %q", got, want)
	}
	about, err := filepath.Glob(filepath.Join(s.dir, "3-20-*", "meta.json"))
	if err != nil || len(about) != 1 {
		t.Fatalf("%v, %v", about, err)
	}
	raw, err := os.ReadFile(about[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(about[0], bytes.Replace(raw, []byte(`"Index":20`), []byte(`"Index":28`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := snapshotsOf(t, own); len(got) != 2 || !strings.HasPrefix(got[0], "3 28") {
		t.Errorf("raft's own store notices by now: %q", got)
	}
	if got := snapshotsOf(t, s); len(got) != 1 || !strings.HasPrefix(got[0], "3 10") {
		t.Errorf("a changed index is not noticed: %q", got)
	}
	snapshot(t, s, 30, "thirty")
	snapshot(t, s, 40, "forty")
	if got, err := os.ReadDir(s.dir); err != nil || len(got) != 4 {
		t.Errorf("%v are left, want both copies of the newest two: %v", got, err)
	}
}

func FuzzSnapshotFile(f *testing.F) {
	raw, err := encodeSnapshotFile(raft.SnapshotMeta{ID: "i", Index: 7, Term: 2}, []byte("content"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		meta, content, err := decodeSnapshotFile(raw)
		if err != nil {
			return
		}
		again, err := encodeSnapshotFile(*meta, content)
		if err != nil {
			t.Fatal(err)
		}
		meta2, content2, err := decodeSnapshotFile(again)
		if err != nil || fmt.Sprint(meta2) != fmt.Sprint(meta) || !bytes.Equal(content, content2) {
			t.Errorf("%v %q became %v %q, %v", meta, content, meta2, content2, err)
		}
	})
}

// FuzzSnapshotContent: what another node sends as its facts is read to its end or refused.
func FuzzSnapshotContent(f *testing.F) {
	var b bytes.Buffer
	m := newFSM()
	m.ApplyBatch([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogCommand, Data: []byte(`{"v":1,"id":"a","txn":{"then":[{"key":"k","value":"dg=="}]}}`)}})
	frozen, err := m.Snapshot()
	if err == nil {
		err = frozen.(interface{ write(io.Writer) error }).write(&b)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"v":1,"last":3,"facts":1000000000}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := newFSM()
		if err := m.Restore(io.NopCloser(bytes.NewReader(raw))); err != nil && m.view().Index() != 0 {
			t.Errorf("%v, and the facts are those of %d", err, m.view().Index())
		}
	})
}
