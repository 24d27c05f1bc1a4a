package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Errors of Apply, wrapped with the store's directory.
var (
	// ErrClosed: the store was closed before.
	ErrClosed = errors.New("closed")
	// ErrBroken: an earlier fsync failed, and what is on disk is known only after the store has been opened again. The
	// kernel may mark pages clean that it failed to write, so fsync is never tried a second time.
	ErrBroken = errors.New("writing stopped after an error of the disk")
)

// Write sets Key to Value, or deletes it where Value is nil.
type Write struct {
	Key   string
	Value []byte
}

// Store is a map from strings to bytes that is on disk. All methods may be called concurrently.
type Store struct {
	dir    string
	disk   disk
	lock   *os.File
	damage string
	mended string

	queueMu sync.Mutex
	queue   []*request

	commitMu sync.Mutex // held over writes to the disk; guards what follows
	journal  *os.File
	size     int64  // bytes of the journal that are good
	seq      uint64 // of the last commit
	gen      uint64 // of the journal
	base     uint64 // oldest generation from which the state can be read again
	compact  int64  // size of the journal at which the next generation begins
	broken   error

	mu     sync.RWMutex // guards the map; never held over a write to the disk
	values map[string][]byte
	keys   []string // sorted
}

// request is one Apply that waits for its commit.
type request struct {
	writes []Write
	size   int
	done   bool // guarded by commitMu
	err    error
}

// Open opens the store in dir, or makes it. Only one process can have it open. It does not fail because of what is in the
// files: see Damage. It fails where dir cannot be made, locked, read or written.
func Open(dir string) (*Store, error) { return open(dir, realDisk) }

func open(dir string, d disk) (*Store, error) {
	s := &Store{dir: dir, disk: d}
	fail := func(err error) (*Store, error) {
		if s.journal != nil {
			s.journal.Close()
		}
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	if err := d.makeDir(dir); err != nil {
		return fail(err)
	}
	var err error
	if s.lock, err = lockDir(dir); err != nil {
		return fail(err)
	}
	if err := s.load(); err != nil {
		return fail(err)
	}
	return s, nil
}

// load reads the files, puts damaged ones aside, and leaves a journal that can be appended to.
func (s *Store) load() error {
	files, err := list(s.dir)
	if err != nil {
		return err
	}
	for _, temp := range files.temps {
		if err := os.Remove(filepath.Join(s.dir, temp)); err != nil {
			return err
		}
	}
	if files.empty() {
		s.setValues(map[string][]byte{})
		return s.begin(fileHeader{kind: startFile, gen: 1})
	}
	r := recovery{dir: s.dir, files: files}
	if err := r.read(); errors.As(err, &errDamage{}) {
		return s.startAnew(files, err)
	} else if err != nil {
		return err
	}
	s.setValues(r.values)
	s.seq, s.gen, s.base = r.seq, files.newest, r.base
	if r.base == files.newest && r.seq == r.start.seq {
		s.damage = r.start.note // nothing was written since: whoever should have heard of it may not have
	}
	if r.start.aside > 0 {
		if err := s.putAside(files, r.base, r.start.aside); err != nil {
			return err
		}
	}
	if len(r.worn) > 0 {
		s.mended = "damaged, and mended from older files: " + strings.Join(r.worn, "; ")
	}
	return s.resume(r)
}

// resume opens the newest journal for appending. What was read is written once more, as a new generation: after an error
// of fsync the kernel may have shown contents that are not on disk.
func (s *Store) resume(r recovery) error {
	path := filepath.Join(s.dir, journalName(s.gen))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.journal, s.size = f, r.end
	if r.end < r.size {
		if err := f.Truncate(r.end); err != nil {
			return fmt.Errorf("cut the torn end of %s: %w", path, err)
		}
	}
	s.compact = s.size + minJournal
	if !r.plain && s.damage == "" && s.nextGeneration() {
		return nil
	}
	if s.broken != nil {
		return nil // Apply says it; reading goes on
	}
	if err := errors.Join(s.disk.sync(f), s.disk.syncDir(s.dir)); err != nil {
		s.broken = fmt.Errorf("%w: fsync: %w", ErrBroken, err)
	}
	return nil
}

// startAnew leaves the damaged files behind: first a journal of a new generation says, in one step, that the state begins
// with it and why; then the files before it are moved. A crash in between is finished at the next Open.
func (s *Store) startAnew(files listing, cause error) error {
	note := fmt.Sprintf("store %s was damaged: %v; its files were put into %s, and it started empty",
		s.dir, cause, filepath.Join(s.dir, asideName(files.aside)))
	if len(note) > maxNote {
		note = note[:maxNote]
	}
	s.damage = note
	s.setValues(map[string][]byte{})
	if err := s.begin(fileHeader{kind: startFile, gen: files.newest + 1, aside: files.aside, note: note}); err != nil {
		return err
	}
	return s.putAside(files, s.gen, files.aside)
}

func (s *Store) begin(h fileHeader) error {
	f, size, _, err := s.disk.create(filepath.Join(s.dir, journalName(h.gen)), func(yield func([]byte) error) error {
		return yield(h.encode())
	})
	if err != nil {
		return err
	}
	s.journal, s.size, s.seq, s.gen, s.base, s.compact = f, size, h.seq, h.gen, h.gen, minJournal
	return nil
}

// putAside moves the files of the generations before gen into damaged-n.
func (s *Store) putAside(files listing, before, n uint64) error {
	to := filepath.Join(s.dir, asideName(n))
	move := func(gens map[uint64]bool, name func(uint64) string) error {
		for gen := range gens {
			if gen >= before {
				continue
			}
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			if err := s.disk.rename(filepath.Join(s.dir, name(gen)), filepath.Join(to, name(gen))); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.Join(move(files.snapshots, snapshotName), move(files.journals, journalName))
}

func (s *Store) setValues(values map[string][]byte) {
	s.values, s.keys = values, slices.Sorted(maps.Keys(values))
}

// Damage is "" or a sentence for the operator: what was found, where it was put, and that the store started empty. It is
// told again at every Open until something has been written.
func (s *Store) Damage() string { return s.damage }

// Mended is "" or a sentence for the operator about a damaged file whose contents were all found elsewhere: nothing is
// lost, but the disk is not to be trusted.
func (s *Store) Mended() string { return s.mended }

// Get returns the value of a key.
func (s *Store) Get(key string) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, ok := s.values[key]
	return bytes.Clone(value), ok
}

// Prefix yields the keys that begin with prefix and their values, in the order of keys, as they are at the time of the
// call.
func (s *Store) Prefix(prefix string) iter.Seq2[string, []byte] {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []Write
	from, _ := slices.BinarySearch(s.keys, prefix)
	for _, key := range s.keys[from:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		found = append(found, Write{key, s.values[key]})
	}
	return func(yield func(string, []byte) bool) {
		for _, w := range found {
			if !yield(w.Key, bytes.Clone(w.Value)) {
				return
			}
		}
	}
}
