package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keptAside is how many times what was damaged is kept: a disk that fails at every start must not fill up.
const keptAside = 3

// putAside moves the files of the generations before gen into damaged-n.
func (s *Store) putAside(files listing, before, n uint64) error {
	to := filepath.Join(s.dir, asideName(n))
	move := func(gens map[uint64]bool, name func(uint64) string) error {
		for gen := range gens {
			if gen >= before {
				continue
			}
			if err := makeAll(to); err != nil {
				return err
			}
			if err := s.disk.rename(filepath.Join(s.dir, name(gen)), filepath.Join(to, name(gen))); err != nil {
				return err
			}
		}
		return nil
	}
	err := errors.Join(move(files.snapshots, snapshotName), move(files.journals, journalName))
	forget(filepath.Join(s.dir, "damaged-"), keptAside)
	return err
}

// freeName is prefix and the first number after all that are there.
func freeName(prefix string) string {
	next := uint64(1)
	for _, n := range numbered(prefix) {
		next = max(next, n+1)
	}
	return prefix + strconv.FormatUint(next, 10)
}

// forget removes all but the newest of what has that prefix and a number. What cannot be removed does no harm.
func forget(prefix string, keep int) {
	all := numbered(prefix)
	for len(all) > keep {
		_ = removeAll(prefix + strconv.FormatUint(all[0], 10))
		all = all[1:]
	}
}

// numbered are the numbers of what has that prefix, ascending.
func numbered(prefix string) []uint64 {
	entries, err := os.ReadDir(filepath.Dir(prefix))
	if err != nil {
		return nil
	}
	var all []uint64
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(prefix))
		n, err := strconv.ParseUint(number, 10, genBits)
		if ok && err == nil && strconv.FormatUint(n, 10) == number {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}
