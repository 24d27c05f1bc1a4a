package store

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPosition: it grows with each commit, survives a restart, goes back with the files, and is of another store when that was
// begun anew.
func TestPosition(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "leases")
	s := mustOpen(t, dir)
	first := s.Position()
	if first.ID == ([16]byte{}) || first.Commits != 0 {
		t.Fatalf("a new store is at %+v", first)
	}
	mustApply(t, s, set("a", "1"))
	s.Close()
	old := filepath.Join(t.TempDir(), "leases")
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	mustApply(t, s, set("a", "2"))
	generation(t, s)
	mustApply(t, s, set("a", "3"))
	if now := s.Position(); now.ID != first.ID || now.Commits != 3 {
		t.Errorf("after three commits it is at %+v, and began at %+v", now, first)
	}
	s.Close()
	if again := mustOpen(t, dir).Position(); again.ID != first.ID || again.Commits != 3 {
		t.Errorf("opened again it is at %+v", again)
	}
	if copied := mustOpen(t, old).Position(); copied.ID != first.ID || copied.Commits != 1 {
		t.Errorf("the older copy is at %+v", copied)
	}
	empty := mustOpen(t, filepath.Join(t.TempDir(), "leases"))
	before := empty.Position()
	if err := empty.Missed("of this test"); err != nil {
		t.Fatal(err)
	}
	if now := empty.Position(); now.ID == before.ID || now.ID == ([16]byte{}) || now.Commits != 0 {
		t.Errorf("begun anew it is at %+v, before at %+v", now, before)
	}
}
