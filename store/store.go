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
	"sync/atomic"
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
	boot   boot
	made   bool // there was nothing when it was opened
	damage string
	mended []string

	queueMu sync.Mutex
	queue   []*request

	commitMu sync.Mutex // held over writes to the disk; guards what follows
	journal  *os.File
	size     int64 // bytes of the journal that are good
	version  uint32
	id       identity
	seq      uint64 // of the last commit
	chain    uint32 // its checksum
	gen      uint64 // of the journal
	base     uint64 // oldest generation from which the state can be read again
	compact  int64  // size of the journal at which the next generation begins
	marked   bool   // a mark of this identity is on disk
	broken   error

	stopped atomic.Pointer[error]    // as broken; for who does not wait for the disk
	reached atomic.Pointer[Position] // nil: not known

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
	s := &Store{dir: dir, disk: d, boot: d.boot()}
	fail := func(err error) (*Store, error) {
		if s.journal != nil {
			s.journal.Close()
		}
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("store %s: %w", dir, err)
	}
	odd, err := d.makeDir(dir)
	if err != nil {
		return fail(err)
	}
	var oddLock string
	if s.lock, oddLock, err = d.lockDir(dir); err != nil {
		return fail(err)
	}
	if oddLock != "" {
		s.mended = append(s.mended, oddLock+": whether the last commits are all there is not known")
	}
	if err := s.load(odd); err != nil {
		return fail(err)
	}
	_ = s.firstMark() // if it fails, so does Apply
	if s.broken == nil {
		s.reach()
	}
	return s, nil
}

// load reads the files, puts damaged ones aside, and leaves a journal that can be appended to. lost says what was in the
// place of the directory.
func (s *Store) load(lost string) error {
	files, err := list(s.dir)
	if err != nil {
		return err
	}
	for _, temp := range files.temps {
		if err := removeAll(filepath.Join(s.dir, temp)); err != nil {
			return err
		}
	}
	r := recovery{dir: s.dir, files: files, boot: s.boot, trust: s.disk.trust}
	var unmarked error
	if r.mark, unmarked = readMark(s.lock, r.trust); unmarked != nil {
		if err := s.clearMark(); err != nil {
			return err
		}
	}
	switch {
	case !files.empty():
		err = r.read()
	case lost != "":
		err = errDamage{lost}
	case r.mark != nil && r.mark.seq > 0 && !r.trust:
		err = damagef("commit %d was on disk, and all files are missing", r.mark.seq)
	default:
		s.made = true
		s.setValues(map[string][]byte{})
		return s.begin(fileHeader{gen: 1})
	}
	if errors.As(err, &errDamage{}) {
		return s.startAnew(files, err)
	} else if err != nil {
		return err
	}
	s.setValues(r.values)
	s.version, s.id, s.seq, s.chain, s.gen, s.base = r.version, r.id, r.seq, r.chain, files.newest, r.base
	if r.base == files.newest && r.seq == r.start.seq {
		s.damage = r.start.note // nothing was written since: whoever should have heard of it may not have
	}
	if r.start.aside > 0 {
		if err := s.putAside(files, r.base, r.start.aside); err != nil {
			return err
		}
	}
	if len(r.worn) > 0 {
		s.mended = append(s.mended, r.worn...)
	}
	if unmarked != nil {
		s.mended = append(s.mended, unmarked.Error())
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
		if err := truncate(f, r.end); err != nil {
			return fmt.Errorf("cut the torn end of %s: %w", path, err)
		}
	}
	s.compact = s.size + minJournal
	if !r.plain && s.damage == "" && s.nextGeneration() == nil {
		return nil
	}
	if s.broken != nil {
		return nil // Apply says it; reading goes on
	}
	if err := errors.Join(s.disk.sync(f), s.disk.syncDir(s.dir)); err != nil {
		s.stop(fmt.Errorf("%w: fsync: %w", ErrBroken, err))
	}
	return nil
}

// startAnew leaves the damaged files behind: first a journal of a new generation says, in one step, that the state begins
// with it and why; then the files before it are moved. A crash in between is finished at the next Open.
func (s *Store) startAnew(files listing, cause error) error {
	h := fileHeader{gen: files.newest + 1, note: fmt.Sprintf("store %s was damaged: %v; it started empty", s.dir, cause)}
	if !files.empty() {
		h.aside = files.aside
		h.note = fmt.Sprintf("store %s was damaged: %v; its files were put into %s, and it started empty",
			s.dir, cause, filepath.Join(s.dir, asideName(files.aside)))
	}
	if len(h.note) > maxNote {
		h.note = h.note[:maxNote]
	}
	if h.gen >= 1<<genBits { // whoever gave a file such a number: there is none after it
		if err := s.putAside(files, h.gen, files.aside); err != nil {
			return err
		}
		h.gen, files = 1, listing{}
	}
	s.damage = h.note
	s.setValues(map[string][]byte{})
	if err := s.begin(h); err != nil {
		return err
	}
	return s.putAside(files, s.gen, files.aside)
}

// Missed is for a store of which others know that there was one: if it was only made by Open, that is damage, and Damage
// says why until something has been written.
func (s *Store) Missed(why string) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if !s.made || s.seq > 0 || s.damage != "" {
		return nil
	}
	note := fmt.Sprintf("store %s was damaged: all of it is missing: %s; it started empty", s.dir, why)
	s.journal.Close() // there is nothing in it
	if err := s.begin(fileHeader{gen: s.gen + 1, note: note}); err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	s.damage = note
	s.removeBefore(s.gen)
	_ = s.firstMark() // if it fails, so does Apply
	s.reach()
	return nil
}

// begin makes the journal of a store that is empty, with an identity of its own.
func (s *Store) begin(h fileHeader) error {
	if err := s.clearMark(); err != nil {
		return err
	}
	h.kind, h.id = startFile, newIdentity(s.dir)
	h.chain = h.id.chain()
	f, size, _, err := s.disk.create(filepath.Join(s.dir, journalName(h.gen)), func(yield func([]byte) error) error {
		return yield(h.encode())
	})
	if err != nil {
		return err
	}
	s.journal, s.size, s.version, s.id, s.seq, s.chain = f, size, formatVersion, h.id, h.seq, h.chain
	s.gen, s.base, s.compact = h.gen, h.gen, minJournal
	return nil
}

func (s *Store) setValues(values map[string][]byte) {
	s.values, s.keys = values, slices.Sorted(maps.Keys(values))
}

// Damage is "" or a sentence for the operator: what was found, where it was put, and that the store started empty. It is
// told again at every Open until something has been written.
func (s *Store) Damage() string { return s.damage }

// Mended is "" or a sentence for the operator about a damaged file whose contents were all found elsewhere, or were not
// missed: nothing is lost as far as can be seen, but the disk is not to be trusted.
func (s *Store) Mended() string {
	if len(s.mended) == 0 {
		return ""
	}
	return fmt.Sprintf("store %s was damaged, and mended: %s", s.dir, strings.Join(s.mended, "; "))
}

// Broken is nil, or why nothing is written until the store has been opened again.
func (s *Store) Broken() error {
	if err := s.stopped.Load(); err != nil {
		return fmt.Errorf("store %s: %w", s.dir, *err)
	}
	return nil
}

// stop ends writing.
func (s *Store) stop(err error) {
	s.broken = err
	s.stopped.Store(&err)
}

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
