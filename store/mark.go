package store

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// mark is the last commit that was acknowledged, as far as the lock file says. It is written after each commit and not
// synced, so it may be older than the journal, and never newer: a store that ends before its mark has gone back in time,
// or has lost its end. The first one of each Open is synced before anything is committed, so there always is one.
type mark struct {
	id    identity
	seq   uint64
	chain uint32
	boot  boot
}

const (
	markMagic = "carrickM"
	markSize  = 8 + 16 + 8 + 4 + 16 + 4 // magic, identity, seq, chain, boot, checksum of all of it
	// markLag is how many commits a mark can be behind as long as the host runs, whatever becomes of the process: it may be
	// killed between the commit and the mark. Only a power cut takes more of it.
	markLag = 1
)

// boot tells a run of the host's kernel from others. Zero: it is not known.
type boot [16]byte

func thisBoot() (b boot) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return boot{}
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(raw) != len(b) {
		return boot{}
	}
	return boot(raw)
}

func (m mark) encode() []byte {
	b := make([]byte, 0, markSize)
	b = append(b, markMagic...)
	b = append(b, m.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.seq)
	b = binary.LittleEndian.AppendUint32(b, m.chain)
	b = append(b, m.boot[:]...)
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
	copy(m.boot[:], b[36:])
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
	if err := writeAt(s.lock, s.newMark().encode(), 0); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if err := s.disk.sync(s.lock); err != nil {
		s.stop(fmt.Errorf("%w: fsync: %w", ErrBroken, err))
		return s.broken
	}
	s.marked = true
	return nil
}

// writeMark says what was acknowledged. After an error nothing more is committed before a mark is on disk: a mark that is far
// behind is taken for an old one.
func (s *Store) writeMark() {
	if err := writeAt(s.lock, s.newMark().encode(), 0); err != nil {
		s.marked = false
	}
}

func (s *Store) newMark() mark { return mark{s.id, s.seq, s.chain, s.boot} }

// clearMark comes before a store gets another identity, and is durable: an old mark beside it would be taken for damage.
func (s *Store) clearMark() error {
	s.marked = false
	info, err := s.lock.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	if err := truncate(s.lock, 0); err != nil {
		return fmt.Errorf("clear the mark: %w", err)
	}
	if err := s.disk.sync(s.lock); err != nil {
		return fmt.Errorf("clear the mark: %w", err)
	}
	return nil
}
