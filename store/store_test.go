package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func mustOpen(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustApply(t testing.TB, s *Store, writes ...Write) {
	t.Helper()
	if err := s.Apply(writes...); err != nil {
		t.Fatal(err)
	}
}

func set(key, value string) Write { return Write{key, []byte(value)} }

func contents(s *Store) map[string]string {
	all := map[string]string{}
	for key, value := range s.Prefix("") {
		all[key] = string(value)
	}
	return all
}

func wantContents(t testing.TB, s *Store, want map[string]string) {
	t.Helper()
	if got := contents(s); !maps.Equal(got, want) {
		t.Fatalf("contents are %v, want %v", got, want)
	}
}

func TestStoreKeepsWhatWasApplied(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := mustOpen(t, dir)
	mustApply(t, s, set("lease/1", "one"), set("lease/2", "two"), set("pool/1", ""))
	mustApply(t, s, Write{Key: "lease/1"}, set("lease/3", "three"), Write{Key: "never there"})
	mustApply(t, s)
	want := map[string]string{"lease/2": "two", "lease/3": "three", "pool/1": ""}
	wantContents(t, s, want)
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir)
		wantContents(t, s, want)
		if s.Damage() != "" || s.Mended() != "" {
			t.Fatalf("damage %q, mended %q of a sound store", s.Damage(), s.Mended())
		}
	}
	value, ok := s.Get("pool/1")
	if !ok || value == nil || len(value) != 0 {
		t.Errorf("an empty value comes back as %v, %v", value, ok)
	}
	if _, ok := s.Get("lease/1"); ok {
		t.Error("a deleted key is there")
	}
}

func TestPrefixIsASnapshotInOrder(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	mustApply(t, s, set("b/2", "2"), set("b/1", "1"), set("b", "0"), set("c", "c"), set("a", "a"))
	rows := s.Prefix("b/")
	mustApply(t, s, Write{Key: "b/2"}, set("b/0", "0"))
	var got []string
	for key, value := range rows {
		got = append(got, key+"="+string(value))
		mustApply(t, s, set("b/9", "written while reading"))
	}
	if fmt.Sprint(got) != "[b/1=1 b/2=2]" {
		t.Errorf("rows are %v", got)
	}
}

func TestValuesAreCopies(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	value := []byte("right")
	mustApply(t, s, Write{"k", value})
	copy(value, "wrong")
	got, _ := s.Get("k")
	copy(got, "wrong")
	for _, value := range s.Prefix("k") {
		copy(value, "wrong")
	}
	wantContents(t, s, map[string]string{"k": "right"})
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	_, err := Open(dir)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatalf("second Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(set("k", "v")); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	mustOpen(t, dir)
}

func TestOpenFailsWhereItCannotWrite(t *testing.T) {
	if _, err := Open("/proc/self/store"); err == nil || !strings.Contains(err.Error(), "/proc/self/store") {
		t.Errorf("Open where nothing can be made: %v", err)
	}
}

func TestFilesAreOnlyForUs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	s := mustOpen(t, dir)
	mustApply(t, s, set("k", "v"))
	s.Close()
	mustOpen(t, dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestConcurrentApplyIsAllThere(t *testing.T) {
	dir := t.TempDir()
	syncs := 0
	d := realDisk
	d.sync = func(f *os.File) error { syncs++; return f.Sync() } // commits come one after another
	s, err := open(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	before := syncs
	const calls, each = 32, 20
	var group sync.WaitGroup
	for i := range calls {
		group.Go(func() {
			for j := range each {
				key := fmt.Sprintf("%02d/%02d", i, j)
				if err := s.Apply(set(key, key), set("last/"+fmt.Sprint(i), key)); err != nil {
					t.Error(err)
				}
				if got, _ := s.Get(key); string(got) != key {
					t.Errorf("%s is %q after Apply", key, got)
				}
			}
		})
	}
	group.Wait()
	if n := len(contents(s)); n != calls*each+calls {
		t.Errorf("%d keys", n)
	}
	want := contents(s)
	if syncs-before > calls*each {
		t.Errorf("%d fsyncs for %d calls", syncs-before, calls*each)
	}
	s.Close()
	wantContents(t, mustOpen(t, dir), want)
}

func TestWriteErrorIsNotForever(t *testing.T) {
	dir := t.TempDir()
	full := false
	d := realDisk
	d.write = func(f *os.File, b []byte) (int, error) {
		if full {
			n, _ := f.Write(b[:len(b)/2])
			return n, syscall.ENOSPC
		}
		return f.Write(b)
	}
	s, err := open(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, set("before", "1"))
	full = true
	err = s.Apply(set("full", "2"))
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrBroken) {
		t.Fatalf("Apply on a full disk: %v", err)
	}
	if _, ok := s.Get("full"); ok {
		t.Error("a refused write is there")
	}
	full = false
	mustApply(t, s, set("after", "3"))
	s.Close()
	wantContents(t, mustOpen(t, dir), map[string]string{"before": "1", "after": "3"})
}

func TestFsyncErrorStopsWriting(t *testing.T) {
	dir := t.TempDir()
	bad := false
	d := realDisk
	d.sync = func(f *os.File) error {
		if bad {
			return syscall.EIO
		}
		return f.Sync()
	}
	s, err := open(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, set("before", "1"))
	bad = true
	if err := s.Apply(set("k", "2")); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Apply with a failing fsync: %v", err)
	}
	bad = false
	if err := s.Apply(set("k", "3")); !errors.Is(err, ErrBroken) {
		t.Fatalf("Apply after a failed fsync: %v", err)
	}
	if err := s.Broken(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), dir) {
		t.Errorf("broken: %v", err)
	}
	wantContents(t, s, map[string]string{"before": "1"})
	s.Close()
	s = mustOpen(t, dir)
	if err := s.Broken(); err != nil {
		t.Error(err)
	}
	mustApply(t, s, set("k", "4"))
	wantContents(t, s, map[string]string{"before": "1", "k": "4"})
}

func TestFullDiskAtOpen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	mustApply(t, s, set("k", "v"))
	s.Close()
	d := realDisk
	d.write = func(*os.File, []byte) (int, error) { return 0, syscall.ENOSPC }
	s, err := open(dir, d)
	if err != nil {
		t.Fatalf("a full disk makes the store unreadable: %v", err)
	}
	wantContents(t, s, map[string]string{"k": "v"})
	if err := s.Apply(set("k", "w")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Apply: %v", err)
	}
	s.Close()
	wantContents(t, mustOpen(t, dir), map[string]string{"k": "v"})
}

// TestFailuresLeaveNothingOpen: what cannot be written, over days, must not take all descriptors.
func TestFailuresLeaveNothingOpen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	open := func() (names []string) {
		all, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range all {
			if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, dir) {
				names = append(names, name)
			}
		}
		return names
	}
	before := open()
	s.disk.write = func(*os.File, []byte) (int, error) { return 0, syscall.ENOSPC }
	for range 5 {
		if err := s.nextGeneration(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if after := open(); len(after) != len(before) {
		t.Errorf("open: %v, and before %v", after, before)
	}
}

func TestTooLargeAWriteIsRefused(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	err := s.Apply(Write{"k", make([]byte, maxRecord)})
	if err == nil || !strings.Contains(err.Error(), "at most 16777216") {
		t.Errorf("error is %v", err)
	}
	wantContents(t, s, map[string]string{})
	mustApply(t, s, Write{"k", make([]byte, maxRecord-100)})
}

func TestGenerationsFollowEachOther(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	want := map[string]string{}
	for i := range 40 { // 4 MB: several generations
		key, value := fmt.Sprint("key", i%7), strings.Repeat(fmt.Sprint(i), 50<<10)
		mustApply(t, s, set(key, value))
		want[key] = value
	}
	if s.gen < 3 {
		t.Errorf("generation %d after 4 MB", s.gen)
	}
	files, err := list(dir)
	if err != nil || len(files.journals) > 3 || len(files.snapshots) > 2 {
		t.Errorf("files are left over: %+v %v", files, err)
	}
	s.Close()
	wantContents(t, mustOpen(t, dir), want)
}
