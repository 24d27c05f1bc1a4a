package cluster

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// snapshotStore keeps raft's snapshots. Raft's own keeps one copy of each, and what it says about it (its index, its term,
// the servers) without a checksum. Here a snapshot is two files, ID.a and ID.b, each with a checksum over all of it.
// Snapshots that raft's own store has left are read, until newer ones have taken their places.
type snapshotStore struct {
	dir string
	mu  sync.Mutex // held over writes and over what is removed
}

const (
	snapshotMagic = "carrickS"
	// snapshotFormat is the version of the files: magic, version (4 bytes), length of the description (4), description,
	// content, SHA-256 of all before it.
	snapshotFormat = 1
	// maxSnapshot bounds what is read into memory, in bytes: the facts of a hundred nodes are a hundredth of it.
	maxSnapshot = 256 << 20
)

// snapshotCopies are the endings of the files of one snapshot.
var snapshotCopies = []string{".a", ".b"}

// Create is of raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, servers raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("snapshot: version %d, only %d is known", version, raft.SnapshotVersionMax)
	}
	return &snapshotSink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%016x-%016x", term, index), Index: index, Term: term,
		Configuration: servers, ConfigurationIndex: at,
	}}, nil
}

// List is of raft.SnapshotStore: those of which one copy at least is right, the newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	all, _, err := s.survey()
	return all, err
}

// survey returns the snapshots, and what is wrong with files that are none.
func (s *snapshotStore) survey() (all []*raft.SnapshotMeta, damage []error, err error) {
	names, err := s.names()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range names {
		meta, _, bad := s.read(id)
		damage = append(damage, bad...)
		if meta != nil {
			all = append(all, meta)
		}
	}
	slices.SortFunc(all, func(a, b *raft.SnapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index))
	})
	return all, damage, nil
}

// names are the ids of what is there, readable or not.
func (s *snapshotStore) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id := e.Name()
		switch ext := filepath.Ext(id); {
		case slices.Contains(snapshotCopies, ext):
			id = strings.TrimSuffix(id, ext)
		case ext != "" || !e.IsDir():
			continue // temporary, or foreign
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Open is of raft.SnapshotStore.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, content, damage := s.read(id)
	if meta == nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, errors.Join(damage...))
	}
	return meta, io.NopCloser(bytes.NewReader(content)), nil
}

// read returns the first copy of a snapshot that is right, or nil, and what is wrong with the others.
func (s *snapshotStore) read(id string) (meta *raft.SnapshotMeta, content []byte, damage []error) {
	path := filepath.Join(s.dir, id)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		m, content, err := readOldSnapshot(path)
		if err != nil {
			return nil, nil, []error{fmt.Errorf("%s: %w", path, err)}
		}
		m.ID = id
		return m, content, nil
	}
	for _, ext := range snapshotCopies {
		raw, err := readRegular(path + ext)
		var m *raft.SnapshotMeta
		var c []byte
		if err == nil {
			m, c, err = decodeSnapshotFile(raw)
		}
		if err == nil && m.ID != id {
			err = fmt.Errorf("is snapshot %s", m.ID)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // a crash came between the two
		case err != nil:
			damage = append(damage, fmt.Errorf("%s: %w", path+ext, err))
		case meta == nil:
			meta, content = m, c
		}
	}
	return meta, content, damage
}

// readRegular reads a file, and does not wait for what is none.
func readRegular(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("is no regular file but %v", info.Mode())
	case info.Size() > maxSnapshot:
		return nil, fmt.Errorf("%d bytes, at most %d are possible", info.Size(), maxSnapshot)
	}
	return os.ReadFile(path)
}

func encodeSnapshotFile(meta raft.SnapshotMeta, content []byte) ([]byte, error) {
	about, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), snapshotMagic...)
	b = binary.BigEndian.AppendUint32(b, snapshotFormat)
	b = binary.BigEndian.AppendUint32(b, uint32(len(about)))
	b = append(append(b, about...), content...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

func decodeSnapshotFile(raw []byte) (*raft.SnapshotMeta, []byte, error) {
	const head = len(snapshotMagic) + 4 + 4
	if len(raw) < head+sha256.Size || string(raw[:len(snapshotMagic)]) != snapshotMagic {
		return nil, nil, fmt.Errorf("%d bytes that do not begin as a snapshot", len(raw))
	}
	b, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if is := sha256.Sum256(b); !bytes.Equal(is[:], sum) {
		return nil, nil, errors.New("does not match its checksum")
	}
	if version := binary.BigEndian.Uint32(b[len(snapshotMagic):]); version != snapshotFormat {
		return nil, nil, fmt.Errorf("format %d, this node knows %d", version, snapshotFormat)
	}
	size := uint64(binary.BigEndian.Uint32(b[head-4:]))
	if size > uint64(len(b)-head) {
		return nil, nil, errors.New("its description is cut off")
	}
	meta := &raft.SnapshotMeta{}
	if err := json.Unmarshal(b[head:head+int(size)], meta); err != nil {
		return nil, nil, fmt.Errorf("description: %w", err)
	}
	content := b[head+int(size):]
	meta.Size = int64(len(content))
	return meta, content, nil
}

// readOldSnapshot reads the directory of one snapshot of raft.FileSnapshotStore.
func readOldSnapshot(dir string) (*raft.SnapshotMeta, []byte, error) {
	about, err := readRegular(filepath.Join(dir, "meta.json"))
	if err != nil {
		return nil, nil, err
	}
	var meta struct {
		raft.SnapshotMeta
		CRC []byte
	}
	if err := json.Unmarshal(about, &meta); err != nil {
		return nil, nil, fmt.Errorf("meta.json: %w", err)
	}
	content, err := readRegular(filepath.Join(dir, "state.bin"))
	if err != nil {
		return nil, nil, err
	}
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	sum.Write(content)
	// Nothing else vouches for the description but that it says twice which snapshot this is: its name begins with both.
	if name := fmt.Sprintf("%d-%d-", meta.Term, meta.Index); !bytes.Equal(sum.Sum(nil), meta.CRC) || !strings.HasPrefix(filepath.Base(dir), name) {
		return nil, nil, errors.New("does not match its checksum, or is another one")
	}
	meta.Size = int64(len(content))
	return &meta.SnapshotMeta, content, nil
}

// snapshotSink is one snapshot that is being written. It is kept in memory: a snapshot is smaller than the facts that it is of.
type snapshotSink struct {
	store   *snapshotStore
	meta    raft.SnapshotMeta
	content bytes.Buffer
	ended   bool
}

// ID is of raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.meta.ID }

// Write is of raft.SnapshotSink.
func (k *snapshotSink) Write(b []byte) (int, error) {
	if k.content.Len()+len(b) > maxSnapshot {
		return 0, fmt.Errorf("snapshot: more than %d bytes", maxSnapshot)
	}
	return k.content.Write(b)
}

// Cancel is of raft.SnapshotSink.
func (k *snapshotSink) Cancel() error {
	k.ended = true
	return nil
}

// Close returns when both copies are on disk.
func (k *snapshotSink) Close() error {
	if k.ended {
		return nil
	}
	k.ended = true
	k.meta.Size = int64(k.content.Len())
	raw, err := encodeSnapshotFile(k.meta, k.content.Bytes())
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s := k.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := makeAll(s.dir); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for _, ext := range snapshotCopies {
		path := filepath.Join(s.dir, k.meta.ID+ext)
		if err := errors.Join(removeAll(path+".new"), writeSynced(path+".new", raw), rename(path+".new", path)); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	if err := errors.Join(syncDir(s.dir), syncDir(filepath.Dir(s.dir))); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s.removeOld()
	return nil
}

// removeOld leaves the newest snapshots. What cannot be removed now is tried again after the next one, and does no harm.
func (s *snapshotStore) removeOld() {
	all, err := s.List()
	if err != nil {
		return
	}
	keep := map[string]bool{}
	for _, meta := range all[:min(len(all), keptSnapshots)] {
		keep[meta.ID] = true
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !keep[strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))] {
			_ = removeAll(filepath.Join(s.dir, e.Name()))
		}
	}
}
