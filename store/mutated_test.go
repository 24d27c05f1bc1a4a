package store

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/store/storetest"
)

// subject is a store that is damaged again and again.
type subject struct {
	dir, old, twin string              // the directories are all called leases
	states         []map[string]string // after each commit; the last one is what is there
}

// subjects are stores of many shapes.
func subjects(t testing.TB) []subject {
	t.Helper()
	var all []subject
	for shape := range 6 {
		top := t.TempDir()
		sub := subject{filepath.Join(top, "now", "leases"), filepath.Join(top, "old", "leases"), filepath.Join(top, "twin", "leases"), nil}
		grow(t, sub.twin, shape, 20)
		half := grow(t, sub.dir, shape, 10)
		copyDir(t, sub.dir, sub.old)
		sub.states = append(half, grow(t, sub.dir, shape, 10)...)
		all = append(all, sub)
	}
	return all
}

// grow writes as many commits as hosts do, with generations in between, and returns the states after each.
func grow(t testing.TB, dir string, shape, commits int) []map[string]string {
	t.Helper()
	if shape == 5 { // it was made by an older version
		if _, err := os.Stat(dir); err != nil {
			copyDir(t, "testdata/version1", dir)
		}
	}
	s, err := open(dir, fastDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	states := []map[string]string{contents(s)}
	for i := range commits {
		value := fmt.Sprint("lease of ", dir, ", ", s.seq)
		if shape == 3 {
			value = strings.Repeat(value, 200) // records of many sectors, and snapshots of many records
		}
		writes := []Write{set(fmt.Sprint("lease/", s.seq%7), value), set("next", fmt.Sprint(s.seq))}
		if i%4 == 3 {
			writes = append(writes, Write{Key: fmt.Sprint("lease/", (s.seq+3)%7)})
		}
		mustApply(t, s, writes...)
		states = append(states, contents(s))
		if shape > 0 && i%(2+shape) == 1 {
			generation(t, s)
		}
	}
	return states
}

// outcome is what came of a damaged store.
type outcome struct {
	damage, mended string
	wrong          string // what should not be: "" is right
	took           time.Duration
}

// try damages a copy of a store and opens it with the disk.
func (sub subject) try(t testing.TB, seed uint64, d disk) (all []storetest.Mutation, o outcome) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	top, err := os.MkdirTemp(filepath.Dir(filepath.Dir(sub.dir)), "case")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	dir := filepath.Join(top, "leases")
	copyDir(t, sub.dir, dir)
	victims := storetest.Victims{Dirs: []string{dir}, Old: []string{sub.old}, Twin: []string{sub.twin}, Whole: true}
	for range 1 + r.IntN(3)*r.IntN(2) {
		m, err := victims.Mutate(r)
		if err != nil {
			t.Fatalf("seed %d: %v: %v", seed, m, err)
		}
		all = append(all, m)
	}
	began := time.Now()
	s, err := open(dir, d)
	o.took = time.Since(began)
	if err != nil {
		o.wrong = "not opened: " + err.Error()
		return all, o
	}
	o.damage, o.mended = s.Damage(), s.Mended()
	got := contents(s)
	allowed := sub.states[len(sub.states)-1:]
	if storetest.Touches(all, filepath.Join(dir, lockName)) { // a crash could have left less than the newest commits
		allowed = sub.states
	}
	empty := o.damage != "" || storetest.Touches(all, dir) // a directory that is not there is missed by whoever knows better
	if !slices.ContainsFunc(allowed, func(state map[string]string) bool { return maps.Equal(state, got) }) && (!empty || len(got) > 0) {
		o.wrong = fmt.Sprintf("damage %q, contents %v", o.damage, got)
	}
	if err := s.Apply(set("written since", "x")); err != nil {
		o.wrong += fmt.Sprintf("; written: %v", err)
	}
	got["written since"] = "x"
	s.Close()
	if s, err = open(dir, d); err != nil {
		o.wrong += fmt.Sprintf("; opened again: %v", err)
		return all, o
	}
	defer s.Close()
	if again := contents(s); !maps.Equal(got, again) || s.Damage() != "" {
		o.wrong += fmt.Sprintf("; opened again: damage %q, contents %v, before %v", s.Damage(), again, got)
	}
	return all, o
}

// TestMutatedStores damages stores in all ways that storetest knows. Whatever was done, a store opens, holds what was on
// disk last or says that it was damaged and is empty, and can be written. CARRICK_MUTATIONS says how many, CARRICK_SEED which.
func TestMutatedStores(t *testing.T) {
	count := uint64(storetest.Setting(t, "CARRICK_MUTATIONS", 250))
	seed := uint64(storetest.Setting(t, "CARRICK_SEED", 1))
	all := subjects(t)
	var took storetest.Durations
	var damaged, mended, sound int
	for i := range count {
		what, o := all[(seed+i)%uint64(len(all))].try(t, seed+i, fastDisk)
		took = append(took, o.took)
		switch {
		case o.wrong != "":
			t.Fatalf("CARRICK_SEED=%d: %v: %s", seed+i, what, o.wrong)
		case o.damage != "":
			damaged++
		case o.mended != "":
			mended++
		default:
			sound++
		}
	}
	t.Logf("%d damaged stores from seed %d: %d put aside, %d mended, %d held what they should; opened in: %v",
		count, seed, damaged, mended, sound, took)
	if count > 100 && (damaged == 0 || mended == 0 || sound == 0) {
		t.Error("one of the outcomes is missing: the test tests nothing")
	}
}

// TestMutatedStoresUnchecked is the same for a store that compares nothing: what it takes for right is found to be wrong.
func TestMutatedStoresUnchecked(t *testing.T) {
	d := fastDisk
	d.trust = true
	all, wrong := subjects(t), 0
	for i := range uint64(200) {
		if _, o := all[i%uint64(len(all))].try(t, i, d); o.wrong != "" {
			wrong++
		}
	}
	if wrong < 5 {
		t.Errorf("only %d of 200 were found to be wrong", wrong)
	}
}

// TestMutationsAreRepeatable: a seed says all.
func TestMutationsAreRepeatable(t *testing.T) {
	sub := subjects(t)[1]
	for seed := range uint64(20) {
		var said [2]bytes.Buffer
		for i := range said {
			all, o := sub.try(t, seed, fastDisk)
			for _, m := range all {
				fmt.Fprint(&said[i], m.What, len(m.Files), o.damage == "")
			}
		}
		if said[0].String() != said[1].String() {
			t.Errorf("seed %d: %s, then %s", seed, &said[0], &said[1])
		}
	}
}
