package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Keys in Config.Log.
const (
	keyNode    = "node"    // the id of the node that all of this belongs to
	keyCluster = "cluster" // the id of the cluster that it is in; not there: none
	keyApplied = "applied" // index of the newest entry that is known to be decided, decimal
	prefixLog  = "log/"    // + index in 16 hexadecimal digits
	prefixRaft = "raft/"   // raft's own: term and vote
)

// logVersion is the version of a stored entry.
const logVersion = 1

// logHeader is the length of what precedes an entry's data: version, type, index, term, time, length of the data.
const logHeader = 1 + 1 + 8 + 8 + 8 + 4

// raftStore is raft's log and stable store in a KV. Its values need no checksum of their own, a KV has one.
type raftStore struct {
	kv KV
	// failed is called when the term could not be saved, and returns when raft is to be shut down: raft would panic. Until
	// then it must not go on, and afterwards nobody can hear it.
	failed func(error)

	mu          sync.Mutex
	first, last uint64 // 0: the log is empty
}

// openRaftStore finds out what is there. An error means that the log has a hole, or has what nobody can read.
func openRaftStore(kv KV) (*raftStore, error) {
	s := &raftStore{kv: kv}
	for key, value := range kv.Prefix(prefixLog) {
		index, err := strconv.ParseUint(key[len(prefixLog):], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("log: key %q: %w", key, err)
		}
		var log raft.Log
		if err := decodeLog(value, &log); err != nil {
			return nil, fmt.Errorf("log: entry %d: %w", index, err)
		}
		if log.Index != index || index == 0 || s.last != 0 && index != s.last+1 {
			return nil, fmt.Errorf("log: entry %d, which says %d, follows %d", index, log.Index, s.last)
		}
		if s.first == 0 {
			s.first = index
		}
		s.last = index
	}
	return s, nil
}

func logKey(index uint64) string { return fmt.Sprintf("%s%016x", prefixLog, index) }

// FirstIndex is of raft.LogStore.
func (s *raftStore) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

// LastIndex is of raft.LogStore.
func (s *raftStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// GetLog is of raft.LogStore.
func (s *raftStore) GetLog(index uint64, log *raft.Log) error {
	value, ok := s.kv.Get(logKey(index))
	if !ok {
		return raft.ErrLogNotFound
	}
	if err := decodeLog(value, log); err != nil {
		return fmt.Errorf("log: entry %d: %w", index, err)
	}
	return nil
}

// StoreLog is of raft.LogStore.
func (s *raftStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs is of raft.LogStore. Raft appends behind a gap only when a snapshot covers all that is before it, which is
// then deleted: a hole in our log would be taken for damage at the next start.
func (s *raftStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first, last := s.first, s.last
	var writes []Write
	if begin := logs[0].Index; last != 0 && begin > last+1 {
		for index := first; index <= last; index++ {
			writes = append(writes, Write{Key: logKey(index)})
		}
		first = 0
	}
	for _, log := range logs {
		writes = append(writes, Write{Key: logKey(log.Index), Value: encodeLog(log)})
		if first == 0 || log.Index < first {
			first = log.Index
		}
		last = max(last, log.Index)
	}
	if err := s.kv.Apply(writes...); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	s.first, s.last = first, last
	return nil
}

// IsMonotonic is of raft.MonotonicLogStore: no holes.
func (s *raftStore) IsMonotonic() bool { return true }

// DeleteRange is of raft.LogStore: the beginning of the log after a snapshot, or its end when a new leader knows better.
func (s *raftStore) DeleteRange(from, to uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to = max(from, s.first), min(to, s.last)
	if s.last == 0 || from > to {
		return nil
	}
	writes := make([]Write, 0, to-from+1)
	for index := from; index <= to; index++ {
		writes = append(writes, Write{Key: logKey(index)})
	}
	if err := s.kv.Apply(writes...); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	switch {
	case from == s.first && to == s.last:
		s.first, s.last = 0, 0
	case from == s.first:
		s.first = to + 1
	default:
		s.last = from - 1
	}
	return nil
}

// Set is of raft.StableStore.
func (s *raftStore) Set(key, value []byte) error {
	return s.kv.Apply(Write{Key: prefixRaft + string(key), Value: append([]byte{}, value...)})
}

// Get is of raft.StableStore. Raft knows a missing key by this very text (NewRaft in its api.go).
func (s *raftStore) Get(key []byte) ([]byte, error) {
	value, ok := s.kv.Get(prefixRaft + string(key))
	if !ok {
		return nil, errors.New("not found")
	}
	return value, nil
}

// termKey is raft's key of the current term: the one write of which it panics when it fails (setCurrentTerm in its
// raft.go).
const termKey = "CurrentTerm"

// SetUint64 is of raft.StableStore.
func (s *raftStore) SetUint64(key []byte, value uint64) error {
	if have, err := s.GetUint64(key); err == nil && have == value {
		return nil // NewRaft saves the term that it has just read
	}
	err := s.Set(key, binary.BigEndian.AppendUint64(nil, value))
	if err != nil && string(key) == termKey && s.failed != nil {
		s.failed(err)
		return nil
	}
	return err
}

// GetUint64 is of raft.StableStore.
func (s *raftStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s: %d bytes, expected 8", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func encodeLog(log *raft.Log) []byte {
	b := make([]byte, 0, logHeader+len(log.Data)+len(log.Extensions))
	b = append(b, logVersion, byte(log.Type))
	b = binary.BigEndian.AppendUint64(b, log.Index)
	b = binary.BigEndian.AppendUint64(b, log.Term)
	var at int64 // 0: not known
	if !log.AppendedAt.IsZero() {
		at = log.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(log.Data)))
	b = append(b, log.Data...)
	return append(b, log.Extensions...)
}

func decodeLog(b []byte, log *raft.Log) error {
	if len(b) < logHeader {
		return fmt.Errorf("%d bytes, expected %d or more", len(b), logHeader)
	}
	if b[0] != logVersion {
		return fmt.Errorf("%w: format %d, this node knows %d", errNewer, b[0], logVersion)
	}
	size := uint64(binary.BigEndian.Uint32(b[26:]))
	if size > uint64(len(b)-logHeader) {
		return fmt.Errorf("%d bytes of data, of which %d are there", size, len(b)-logHeader)
	}
	*log = raft.Log{
		Type:  raft.LogType(b[1]),
		Index: binary.BigEndian.Uint64(b[2:]),
		Term:  binary.BigEndian.Uint64(b[10:]),
	}
	if at := int64(binary.BigEndian.Uint64(b[18:])); at != 0 {
		log.AppendedAt = time.Unix(0, at)
	}
	log.Data = append([]byte(nil), b[logHeader:logHeader+size]...)
	log.Extensions = append([]byte(nil), b[logHeader+size:]...)
	return nil
}
