package store

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put replaces what is at path by b.
func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPartsThatBelongElsewhere: every file, put back as it was earlier or taken from a store of the same shape, is found.
func TestPartsThatBelongElsewhere(t *testing.T) {
	base := t.TempDir()
	dir, twin := filepath.Join(base, "a", "leases"), filepath.Join(base, "b", "leases")
	states := example(t, dir)
	example(t, twin)
	right := states[len(states)-1]
	old := filepath.Join(base, "old", "leases")
	copyDir(t, dir, old)
	s := mustOpen(t, dir) // a generation of its own, after which the history is another one
	mustApply(t, s, set("lease/new", "n"))
	mustApply(t, s, set("lease/newer", "n"))
	s.Close()
	grown := contents(s)
	s = mustOpen(t, twin)
	mustApply(t, s, set("lease/new", "n"))
	mustApply(t, s, set("lease/newer", "n"))
	s.Close()
	for what, test := range map[string]struct {
		change func(dir string)
		want   map[string]string // nil: damage
		told   string
	}{
		"journal of a twin":  {func(d string) { put(t, d+"/journal-4", read(t, twin+"/journal-4")) }, nil, "another store than lock"},
		"snapshot of a twin": {func(d string) { put(t, d+"/snapshot-4", read(t, twin+"/snapshot-4")) }, grown, "snapshot-4: is of another store"},
		"journal of a twin, and no lock": {func(d string) {
			put(t, d+"/journal-4", read(t, twin+"/journal-4"))
			put(t, d+"/lock", nil)
		}, nil, "are of two stores"},
		"lock of a twin": {func(d string) { put(t, d+"/lock", read(t, twin+"/lock")) }, nil, "another store than lock"},
		"all but the lock of the past": {func(d string) {
			lock := read(t, d+"/lock")
			if err := os.RemoveAll(d); err != nil {
				t.Fatal(err)
			}
			copyDir(t, old, d)
			put(t, d+"/lock", lock)
		}, nil, "commit 5 is the last one, and commit 7 was on disk"},
		"lock of the past": {func(d string) { put(t, d+"/lock", read(t, old+"/lock")) }, nil, "one of them is older"},
		"lock of the past, after a power cut": {func(d string) {
			m, err := decodeMark(read(t, old+"/lock"), false)
			if err != nil {
				t.Fatal(err)
			}
			m.boot = boot{1}
			put(t, d+"/lock", m.encode())
		}, grown, ""},
		"all of the newest generation of a twin, and no lock": {func(d string) {
			put(t, d+"/journal-4", read(t, twin+"/journal-4"))
			put(t, d+"/snapshot-4", read(t, twin+"/snapshot-4"))
			put(t, d+"/lock", nil)
		}, nil, "are of two stores"},
		"lock lost, and the end torn": {func(d string) {
			put(t, d+"/lock", nil)
			edit(t, d+"/journal-4", func(b []byte) []byte { return b[:len(b)-5] })
		}, nil, "torn after commit 6, and lock does not say how far it went"},
		"lock full of zeros":  {func(d string) { put(t, d+"/lock", make([]byte, markSize)) }, grown, ""},
		"lock with something": {func(d string) { put(t, d+"/lock", []byte("something")) }, grown, "mended: lock has something else in it"},
		"everything is gone": {func(d string) {
			lock := read(t, d+"/lock")
			if err := os.RemoveAll(d); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(d, 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, d+"/lock", lock)
		}, nil, "commit 7 was on disk, and all files are missing"},
	} {
		t.Run(what, func(t *testing.T) {
			got, damage, mended := opened(t, dir, test.change)
			if (damage != "") != (test.want == nil) || len(got) != len(test.want) || test.want != nil && !maps.Equal(got, test.want) {
				t.Errorf("damage %q, mended %q, contents %v", damage, mended, got)
			}
			if !strings.Contains(damage+mended, test.told) {
				t.Errorf("damage %q, mended %q: nothing of %q", damage, mended, test.told)
			}
		})
	}
	if maps.Equal(right, grown) {
		t.Error("the example has not grown")
	}
}

// TestStoreOfAnotherName: the directories of two stores were swapped.
func TestStoreOfAnotherName(t *testing.T) {
	base := t.TempDir()
	leases, state := filepath.Join(base, "leases"), filepath.Join(base, "state")
	example(t, leases)
	if err := os.Rename(leases, state); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, state)
	if !strings.Contains(s.Damage(), "belongs to a store of another name") || len(contents(s)) != 0 {
		t.Errorf("damage %q, contents %v", s.Damage(), contents(s))
	}
}

// TestWhatIsNoFile has each name of the store taken by something else: nothing hangs, and what was in the way is kept.
func TestWhatIsNoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	states := example(t, dir)
	right := states[len(states)-1]
	kinds := map[string]func(path string) error{
		"a directory":     func(path string) error { return os.MkdirAll(filepath.Join(path, "with"), 0o700) },
		"a named pipe":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a symbolic link": func(path string) error { return os.Symlink("/dev/zero", path) },
		"nothing of ours": func(path string) error { return os.Symlink("nowhere", path) },
	}
	for kind, make := range kinds {
		for _, name := range []string{"journal-3", "snapshot-3", "lock", "journal-4.tmp", "."} {
			got, damage, mended := opened(t, dir, func(dir string) {
				path := filepath.Join(dir, name)
				if err := os.RemoveAll(filepath.Clean(path)); err != nil {
					t.Fatal(err)
				}
				if name == "." && kind == "a directory" { // that it is: only the contents are gone
					return
				}
				if err := make(filepath.Clean(path)); err != nil {
					t.Fatal(err)
				}
			})
			if name == "." && kind == "a directory" {
				continue
			}
			lost := name == "journal-3" || name == "."
			if lost != (damage != "") || lost && len(got) != 0 || !lost && !maps.Equal(got, right) {
				t.Errorf("%s in the place of %s: damage %q, contents %v", kind, name, damage, got)
			}
			if said := damage + mended; name != "journal-4.tmp" && said == "" {
				t.Errorf("%s in the place of %s: nothing is said", kind, name)
			}
		}
	}
}

// TestNumbersThatNobodyCounts: a foreign file with the largest number of all must not hide what is written next.
func TestNumbersThatNobodyCounts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	example(t, dir)
	put(t, filepath.Join(dir, "journal-4611686018427387903"), []byte("foreign"))
	put(t, filepath.Join(dir, "snapshot-0"), []byte("foreign"))
	s := mustOpen(t, dir)
	if s.Damage() == "" {
		t.Error("no damage")
	}
	mustApply(t, s, set("k", "v"))
	s.Close()
	s = mustOpen(t, dir)
	wantContents(t, s, map[string]string{"k": "v"})
}

func TestWhatIsPutAsideIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	for range 2 * keptAside {
		s := mustOpen(t, dir)
		mustApply(t, s, set("k", "v"))
		s.Close()
		edit(t, filepath.Join(dir, journalName(s.gen)), func(b []byte) []byte { b[0] ^= 1; return b })
	}
	mustOpen(t, dir)
	if found, err := filepath.Glob(filepath.Join(dir, "damaged-*")); err != nil || len(found) != keptAside ||
		filepath.Base(found[keptAside-1]) != asideName(2*keptAside) {
		t.Errorf("%v %v are kept, want the last %d", found, err, keptAside)
	}
}

func TestMissedStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	for range 2 {
		s := mustOpen(t, dir)
		if err := s.Missed("there are networks"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(s.Damage(), "there are networks") {
			t.Errorf("damage %q", s.Damage())
		}
		s.Close()
	}
	s := mustOpen(t, dir)
	mustApply(t, s, set("k", "v"))
	s.Close()
	s = mustOpen(t, dir)
	if err := s.Missed("there are networks"); err != nil || s.Damage() != "" {
		t.Errorf("one that was there is missed: %q, %v", s.Damage(), err)
	}
	wantContents(t, s, map[string]string{"k": "v"})
}

// TestUpgrade opens what version 1 of the format left, in testdata, as it was written by the program of then.
func TestUpgrade(t *testing.T) {
	zeros := strings.Repeat("\x00", 9)
	want := map[string]string{"lease/c": "333", "lease/0": zeros, "lease/1": zeros, "lease/2": zeros, "lease/b": "xx"}
	dir := filepath.Join(t.TempDir(), "leases")
	copyDir(t, "testdata/version1", dir)
	full := disk{write: func(*os.File, []byte) (int, error) { return 0, syscall.ENOSPC }, sync: (*os.File).Sync, rename: os.Rename, boot: thisBoot}
	s, err := open(dir, full)
	if err != nil {
		t.Fatal(err)
	}
	wantContents(t, s, want)
	if err := s.Apply(set("k", "v")); err == nil {
		t.Error("written on a full disk")
	}
	s.disk = realDisk
	mustApply(t, s, set("k", "v"))
	want["k"] = "v"
	s.Close()
	snapshot := filepath.Join(dir, snapshotName(s.gen))
	put(t, snapshot, []byte("damaged")) // the old files, and what was written since, are as good
	s = mustOpen(t, dir)
	wantContents(t, s, want)
	if s.Damage() != "" || s.Mended() == "" {
		t.Errorf("damage %q, mended %q", s.Damage(), s.Mended())
	}
	mustApply(t, s, set("k", "w"))
	want["k"] = "w"
	s.Close()
	for gen := range s.gen {
		_ = os.Remove(filepath.Join(dir, journalName(gen)))
	}
	wantContents(t, mustOpen(t, dir), want)
	for _, name := range []string{"journal-3", "snapshot-3"} { // each byte still counts
		size := len(read(t, filepath.Join("testdata/version1", name)))
		for at := range size {
			from := filepath.Join(t.TempDir(), "leases")
			copyDir(t, "testdata/version1", from)
			edit(t, filepath.Join(from, name), func(b []byte) []byte { b[at] ^= 0x41; return b })
			s, err := open(from, fastDisk)
			if err != nil {
				t.Fatal(err)
			}
			got := contents(s)
			s.Close()
			if delete(want, "k"); len(got) != 0 && (got["lease/b"] != "xx" || got["lease/c"] != "333" || len(got) != 5) {
				t.Fatalf("%s, byte %d: damage %q, contents %v", name, at, s.Damage(), got)
			}
		}
	}
}

// TestPiecesOfATwin: a commit of the same number and the same length, of a store that has gone another way since a copy was
// made of it, and a piece of an older snapshot. Their own checksums are right; what they go on from is not.
func TestPiecesOfATwin(t *testing.T) {
	dir, twin := filepath.Join(t.TempDir(), "leases"), filepath.Join(t.TempDir(), "leases")
	s := mustOpen(t, dir)
	big := func(c string) Write { return set("lease/"+c, strings.Repeat(c, snapshotChunk)) }
	mustApply(t, s, big("a"), big("b"), big("c"))
	s.Close()
	copyDir(t, dir, twin)
	for path, values := range map[string]string{dir: "wxyz", twin: "WXYZ"} {
		s := mustOpen(t, path)
		for _, v := range values {
			mustApply(t, s, set("lease/next", string(v)))
		}
		if path == twin {
			mustApply(t, s, big("b"), Write{"lease/a", []byte(strings.Repeat("X", snapshotChunk))})
		} else {
			mustApply(t, s, big("b"), Write{"lease/a", []byte(strings.Repeat("Y", snapshotChunk))})
		}
		generation(t, s)
		s.Close()
	}
	journal := journalName(2)
	own, other := read(t, filepath.Join(dir, journal)), read(t, filepath.Join(twin, journal))
	size := recordHeaderSize + len(appendWrite(nil, set("lease/next", "w"))) + len(endMark)
	snapshots := func(d string) []byte { return read(t, filepath.Join(d, snapshotName(3))) }
	if len(own) != len(other) || len(snapshots(dir)) != len(snapshots(twin)) {
		t.Fatal("the twins have not the same shape")
	}
	for first := range 4 {
		for last := first + 1; last <= 4; last++ {
			changed := append([]byte{}, own...)
			from, to := fileHeaderSize+first*size, fileHeaderSize+last*size
			copy(changed[from:to], other[from:to])
			_, damage, mended := opened(t, dir, func(d string) {
				put(t, filepath.Join(d, journal), changed)
				put(t, filepath.Join(d, snapshotName(3)), nil) // so that the journal is needed
			})
			if !strings.Contains(damage, "does not match its checksum") {
				t.Errorf("commits %d to %d of a twin: damage %q, mended %q", first, last, damage, mended)
			}
		}
	}
	changed := snapshots(dir)
	copy(changed[fileHeaderSize:], snapshots(twin)[fileHeaderSize:])
	_, damage, mended := opened(t, dir, func(d string) { put(t, filepath.Join(d, snapshotName(3)), changed) })
	if damage != "" || !strings.Contains(mended, "snapshot-3: a record does not match its checksum") {
		t.Errorf("pieces of a twin's snapshot: damage %q, mended %q", damage, mended)
	}
}
