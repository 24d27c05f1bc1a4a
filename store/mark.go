package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// mark is the last commit that was acknowledged, as far as the lock file says. It is written after each commit and not
// synced, so it may be older than the journal, and never newer: a store that ends before its mark has gone back in time,
// or has lost its end. The first one of each Open is synced before anything is committed, so there always is one.
type mark struct {
	id    identity
	seq   uint64
	chain uint32
}

const (
	markMagic = "carrickM"
	markSize  = 8 + 16 + 8 + 4 + 4 // magic, identity, seq, chain, checksum of all of it
)

func (m mark) encode() []byte {
	b := make([]byte, 0, markSize)
	b = append(b, markMagic...)
	b = append(b, m.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.seq)
	b = binary.LittleEndian.AppendUint32(b, m.chain)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeMark returns nil where there is none: the file is new, or a crash came before there was anything to mark.
func decodeMark(b []byte, trust bool) (*mark, error) {
	if allZero(b) {
		return nil, nil
	}
	switch {
	case len(b) != markSize || string(b[:8]) != markMagic:
		return nil, errors.New("has something else in it")
	case crc32.Checksum(b[:markSize-4], castagnoli) != binary.LittleEndian.Uint32(b[markSize-4:]) && !trust:
		return nil, errors.New("does not match its checksum")
	}
	m := &mark{seq: binary.LittleEndian.Uint64(b[24:]), chain: binary.LittleEndian.Uint32(b[32:])}
	copy(m.id[:], b[8:])
	return m, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// readMark returns nil and a reason when the mark cannot be used: then nobody can say whether the end is missing.
func readMark(lock *os.File, trust bool) (*mark, error) {
	b, err := io.ReadAll(io.NewSectionReader(lock, 0, markSize+1))
	if err == nil {
		var m *mark
		if m, err = decodeMark(b, trust); err == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s %w: whether the last commits are all there is not known", lockName, err)
}

// firstMark returns when a mark is on disk.
func (s *Store) firstMark() error {
	if s.marked {
		return nil
	}
	if _, err := s.lock.WriteAt(mark{s.id, s.seq, s.chain}.encode(), 0); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if err := s.disk.sync(s.lock); err != nil {
		s.stop(fmt.Errorf("%w: fsync: %w", ErrBroken, err))
		return s.broken
	}
	s.marked = true
	return nil
}

// writeMark says what was acknowledged. An error leaves an older mark, which does no harm, or one that is not readable, of
// which the next Open tells.
func (s *Store) writeMark() {
	_, _ = s.lock.WriteAt(mark{s.id, s.seq, s.chain}.encode(), 0)
}

// clearMark comes before a store gets another identity, and is durable: an old mark beside it would be taken for damage.
func (s *Store) clearMark() error {
	s.marked = false
	info, err := s.lock.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if err := s.lock.Truncate(0); err != nil {
		return fmt.Errorf("clear the mark: %w", err)
	}
	if err := s.disk.sync(s.lock); err != nil {
		return fmt.Errorf("clear the mark: %w", err)
	}
	return nil
}
