package store

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// example makes a store with two snapshots and journals, and returns the state after each commit of the last journal,
// beginning with that at its start.
func example(t testing.TB, dir string) []map[string]string {
	t.Helper()
	s := mustOpen(t, dir)
	mustApply(t, s, set("lease/a", "1"), set("lease/b", "22"))
	generation(t, s)
	mustApply(t, s, set("lease/c", "333"), Write{Key: "lease/a"})
	generation(t, s)
	states := []map[string]string{contents(s)}
	for i := range 3 {
		mustApply(t, s, set("lease/b", strings.Repeat("x", i)), set(fmt.Sprint("lease/", i), "\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
		states = append(states, contents(s))
	}
	s.Close()
	return states
}

func generation(t interface{ Fatal(...any) }, s *Store) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.nextGeneration(); err != nil {
		t.Fatal(err)
	}
}

// fastDisk does not fsync: thousands of stores are opened where nothing crashes.
var fastDisk = disk{write: (*os.File).Write, sync: func(*os.File) error { return nil }, rename: os.Rename, boot: thisBoot}

// bootedDisk is that of a host after the power was cut.
var bootedDisk = disk{write: fastDisk.write, sync: fastDisk.sync, rename: fastDisk.rename, boot: func() boot { return boot{2} }}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// opened opens a copy of a store after change was done to it, and returns what it holds.
func opened(t testing.TB, example string, change func(dir string)) (got map[string]string, damage, mended string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(example))
	copyDir(t, example, dir)
	change(dir)
	s, err := open(dir, fastDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return contents(s), s.Damage(), s.Mended()
}

func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEveryByteMatters flips every byte of every file, to three other values: the store is right, or says that it is
// damaged and is empty.
func TestEveryByteMatters(t *testing.T) {
	dir := t.TempDir()
	states := example(t, dir)
	right := states[len(states)-1]
	damaged, sound := 0, 0
	for _, name := range []string{"journal-2", "journal-3", "snapshot-2", "snapshot-3"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for at := range info.Size() {
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				got, damage, _ := opened(t, dir, func(dir string) {
					edit(t, filepath.Join(dir, name), func(b []byte) []byte { b[at] ^= flip; return b })
				})
				switch {
				case damage != "" && len(got) == 0:
					damaged++
				case damage == "" && maps.Equal(got, right):
					sound++
				default:
					t.Fatalf("%s, byte %d ^ %#x: damage %q, contents %v", name, at, flip, damage, got)
				}
			}
		}
	}
	if damaged == 0 || sound == 0 {
		t.Errorf("%d damaged, %d sound: the test tests nothing", damaged, sound)
	}
}

// powerCut makes the mark as old as a power cut can leave it: it was synced when the store was opened.
func powerCut(t testing.TB, dir string) {
	t.Helper()
	edit(t, filepath.Join(dir, lockName), func(b []byte) []byte {
		m, err := decodeMark(b, false)
		if err != nil || m == nil {
			t.Fatalf("mark %v, %v", m, err)
		}
		return mark{m.id, 0, m.id.chain(), boot{1}}.encode()
	})
}

// TestEveryLength cuts every file at every length. After a power cut the end of the newest journal is what a crash leaves:
// the commits before it are there. Anything else is right, or damage.
func TestEveryLength(t *testing.T) {
	dir := t.TempDir()
	states := example(t, dir)
	for _, name := range []string{"journal-2", "journal-3", "snapshot-2", "snapshot-3"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, marked := range []bool{true, false} {
			allowed := states[len(states)-1:]
			if name == "journal-3" && !marked {
				allowed = states
			}
			for length := range info.Size() {
				got, damage, _ := opened(t, dir, func(dir string) {
					edit(t, filepath.Join(dir, name), func(b []byte) []byte { return b[:length] })
					if !marked {
						powerCut(t, dir)
					}
				})
				ok := damage != "" && len(got) == 0 && (name != "journal-3" || marked || length < fileHeaderSize)
				for _, state := range allowed {
					ok = ok || damage == "" && maps.Equal(got, state)
				}
				if !ok {
					t.Fatalf("%s cut to %d bytes, marked %v: damage %q, contents %v", name, length, marked, damage, got)
				}
			}
		}
	}
}

// TestUnwrittenSectorsAreACrash: some file systems record the longer size before the contents.
func TestUnwrittenSectorsAreACrash(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustApply(t, s, set("k", "v"))
	good := s.size
	mustApply(t, s, Write{"big", []byte(strings.Repeat("x", 3000))})
	s.Close()
	powerCut(t, dir)
	zero := func(from int64, last int) (got map[string]string, damage string) {
		got, damage, _ = opened(t, dir, func(dir string) {
			edit(t, filepath.Join(dir, "journal-1"), func(b []byte) []byte { clear(b[from : len(b)-last]); return b })
		})
		return got, damage
	}
	for _, from := range []int64{good, 512, 1024, 2048} {
		if got, damage := zero(from, 0); damage != "" || !maps.Equal(got, map[string]string{"k": "v"}) {
			t.Errorf("zeros from byte %d: damage %q, contents %v", from, damage, got)
		}
	}
	for _, from := range []int64{good + 30, 513, 2047} {
		if got, damage := zero(from, 1); damage == "" || len(got) != 0 {
			t.Errorf("zeros in the middle, from byte %d: no damage, contents %v", from, got)
		}
	}
}

func TestMissingFilesAreDamage(t *testing.T) {
	dir := t.TempDir()
	states := example(t, dir)
	for _, test := range []struct {
		remove  []string
		damaged bool
	}{
		{[]string{"journal-3"}, true},
		{[]string{"journal-2", "snapshot-3"}, true},
		{[]string{"snapshot-2", "snapshot-3"}, true},
		{[]string{"snapshot-3"}, false},
		{[]string{"snapshot-2", "journal-2"}, false},
	} {
		got, damage, _ := opened(t, dir, func(dir string) {
			for _, name := range test.remove {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		})
		if test.damaged != (damage != "") || !test.damaged && !maps.Equal(got, states[len(states)-1]) {
			t.Errorf("without %v: damage %q, contents %v", test.remove, damage, got)
		}
	}
}

func TestDamagedSnapshotIsMended(t *testing.T) {
	dir := t.TempDir()
	states := example(t, dir)
	edit(t, filepath.Join(dir, "snapshot-3"), func(b []byte) []byte { b[100] ^= 1; return b })
	s := mustOpen(t, dir)
	wantContents(t, s, states[len(states)-1])
	if s.Damage() != "" || !strings.Contains(s.Mended(), "snapshot-3") {
		t.Errorf("damage %q, mended %q", s.Damage(), s.Mended())
	}
	s.Close()
	if s = mustOpen(t, dir); s.Mended() != "" {
		t.Errorf("still to be mended: %q", s.Mended())
	}
}

func TestDamageIsToldUntilSomethingIsWritten(t *testing.T) {
	dir := t.TempDir()
	example(t, dir)
	before, err := os.ReadFile(filepath.Join(dir, "journal-3"))
	if err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, "journal-3"), func(b []byte) []byte { b[len(b)-20] ^= 1; return b })
	var s *Store
	for range 3 {
		s = mustOpen(t, dir)
		for _, part := range []string{dir, "journal-3", "damaged-1", "started empty"} {
			if !strings.Contains(s.Damage(), part) {
				t.Fatalf("damage %q lacks %q", s.Damage(), part)
			}
		}
		wantContents(t, s, nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(filepath.Join(dir, "damaged-1", "journal-3"))
	if err != nil || len(kept) != len(before) {
		t.Errorf("the damaged journal was not kept: %d bytes, %v", len(kept), err)
	}
	s = mustOpen(t, dir)
	mustApply(t, s, set("k", "v"))
	s.Close()
	s = mustOpen(t, dir)
	wantContents(t, s, map[string]string{"k": "v"})
	if s.Damage() != "" {
		t.Errorf("damage is told after a write: %q", s.Damage())
	}
	s.Close()
	edit(t, filepath.Join(dir, journalName(s.gen)), func(b []byte) []byte { b[0] ^= 1; return b })
	if s = mustOpen(t, dir); !strings.Contains(s.Damage(), "damaged-2") {
		t.Errorf("second damage: %q", s.Damage())
	}
}

func TestNewerFormatIsPutAside(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir).Close()
	edit(t, filepath.Join(dir, "journal-1"), func(b []byte) []byte {
		b[8] = formatVersion + 1
		return resum(b)
	})
	s := mustOpen(t, dir)
	if !strings.Contains(s.Damage(), "format version 3, this program knows 1 and 2") {
		t.Errorf("damage %q", s.Damage())
	}
}
