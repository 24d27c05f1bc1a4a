package store

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

const (
	// minJournal is how far a journal grows, in bytes, before the next generation: reading it back takes milliseconds.
	minJournal = 1 << 20
	// snapshotChunk is the size of a snapshot's records, in bytes: one checksum covers no more.
	snapshotChunk = 64 << 10
	// fewKeys is up to how many new or deleted keys are moved one by one in the sorted list, instead of sorting it again.
	fewKeys = 32
)

// Apply does all writes or none of them; when it returns nil they are on disk. Calls that come together share an fsync.
// After an error the writes are not there, unless it is ErrBroken: then only the next Open knows.
func (s *Store) Apply(writes ...Write) error {
	if len(writes) == 0 {
		return nil
	}
	req := &request{writes: make([]Write, 0, len(writes))}
	for _, w := range writes {
		if w.Value != nil {
			w.Value = append([]byte{}, w.Value...) // the caller may reuse it
		}
		req.writes = append(req.writes, w)
		req.size += writeSize(w)
	}
	if req.size > maxRecord {
		return fmt.Errorf("store %s: %d bytes in one write, at most %d", s.dir, req.size, maxRecord)
	}
	s.queueMu.Lock()
	s.queue = append(s.queue, req)
	s.queueMu.Unlock()

	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	for !req.done { // done if another call took it along
		s.commit(s.take())
	}
	if req.err != nil {
		return fmt.Errorf("store %s: %w", s.dir, req.err)
	}
	return nil
}

// writeSize is how much a write takes in a record, at most: there are two lengths of up to 10 bytes each.
func writeSize(w Write) int { return len(w.Key) + len(w.Value) + 20 }

// take returns as many waiting requests as fit into one record.
func (s *Store) take() []*request {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	size, n := 0, 0
	for n < len(s.queue) && size+s.queue[n].size <= maxRecord {
		size += s.queue[n].size
		n++
	}
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	return batch
}

// commit writes the requests as one record, so that a crash leaves all of a batch or nothing.
func (s *Store) commit(batch []*request) {
	var payload []byte
	for _, req := range batch {
		for _, w := range req.writes {
			payload = appendWrite(payload, w)
		}
	}
	err := s.append(payload)
	if err == nil {
		s.remember(batch)
	}
	for _, req := range batch {
		req.done, req.err = true, err
	}
	if s.broken == nil && s.size >= s.compact {
		_ = s.nextGeneration() // the journal that there is goes on
	}
}

func (s *Store) append(payload []byte) error {
	if s.broken != nil {
		return s.broken
	}
	if s.version != formatVersion {
		if err := s.nextGeneration(); err != nil { // there was no space for it when the store was opened
			return err
		}
	}
	if err := s.firstMark(); err != nil {
		return err
	}
	record, chain := appendRecord(nil, s.seq+1, s.chain, payload)
	if _, err := s.disk.write(s.journal, record); err != nil {
		// A full disk is no reason to stop for good: what was written of the record is cut off, and the next may fit.
		if cut := truncate(s.journal, s.size); cut != nil {
			s.stop(fmt.Errorf("%w: %w", ErrBroken, cut))
		}
		return err
	}
	if err := s.disk.sync(s.journal); err != nil {
		s.stop(fmt.Errorf("%w: fsync: %w", ErrBroken, err))
		return s.broken
	}
	s.seq++
	s.chain = chain
	s.size += int64(len(record))
	s.reach()
	s.writeMark()
	return nil
}

// remember brings the map up to what is on disk.
func (s *Store) remember(batch []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := map[string]bool{} // keys that were not there, or are no more
	for _, req := range batch {
		for _, w := range req.writes {
			_, had := s.values[w.Key]
			if had != (w.Value != nil) {
				changed[w.Key] = true
			}
			if w.Value == nil {
				delete(s.values, w.Key)
			} else {
				s.values[w.Key] = w.Value
			}
		}
	}
	if len(changed) > fewKeys {
		s.keys = slices.Sorted(maps.Keys(s.values))
		return
	}
	for key := range changed {
		i, listed := slices.BinarySearch(s.keys, key)
		_, there := s.values[key]
		switch {
		case there && !listed:
			s.keys = slices.Insert(s.keys, i, key)
		case !there && listed:
			s.keys = slices.Delete(s.keys, i, i+1)
		}
	}
}

// nextGeneration begins a new journal and writes the state beside it. A failure costs nothing: the journals that there are
// hold everything, and it is tried again when the newest has grown. Only where it is not known whether the new journal
// would be found after a crash, writing stops. An error says that there is no new journal.
func (s *Store) nextGeneration() error {
	s.compact = s.size + minJournal
	gen, id, chain := s.gen+1, s.id, s.chain
	if s.version != formatVersion {
		id = newIdentity(s.dir)
		chain = id.chain()
		if err := s.clearMark(); err != nil {
			return err
		}
	}
	header := fileHeader{kind: journalFile, gen: gen, seq: s.seq, id: id, chain: chain}
	f, size, placed, err := s.disk.create(filepath.Join(s.dir, journalName(gen)), func(yield func([]byte) error) error {
		return yield(header.encode())
	})
	if err != nil {
		if placed {
			s.stop(fmt.Errorf("%w: %w", ErrBroken, err))
		}
		return err
	}
	s.journal.Close() // everything in it is synced
	s.journal, s.size, s.gen = f, size, gen
	s.version, s.id, s.chain = formatVersion, id, chain
	s.compact = s.size + minJournal
	written, err := s.writeSnapshot()
	if err != nil {
		return nil
	}
	s.compact = max(minJournal, 2*written) // so that a write costs at most half a write of a snapshot
	s.removeBefore(s.base)
	s.base = gen
	return nil
}

func (s *Store) writeSnapshot() (int64, error) {
	var chunks [][]byte // of the map; only commit changes the map, and it is us
	var payload []byte
	flush := func() {
		chunks = append(chunks, payload)
		payload = nil
	}
	for _, key := range s.keys {
		if len(payload)+writeSize(Write{key, s.values[key]}) > maxRecord {
			flush()
		}
		payload = appendWrite(payload, Write{key, s.values[key]})
		if len(payload) >= snapshotChunk {
			flush()
		}
	}
	if len(payload) > 0 {
		flush()
	}
	header := fileHeader{kind: snapshotFile, gen: s.gen, seq: s.seq, count: uint64(len(chunks)), id: s.id, chain: s.chain}.encode()
	f, size, _, err := s.disk.create(filepath.Join(s.dir, snapshotName(s.gen)), func(yield func([]byte) error) error {
		if err := yield(header); err != nil {
			return err
		}
		chain := headerSum(header) // no chunk of another snapshot goes on from it
		for i, chunk := range chunks {
			var record []byte
			record, chain = appendRecord(nil, uint64(i), chain, chunk)
			if err := yield(record); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}

// removeBefore removes the files of the generations before gen. What cannot be removed now is tried again by the next
// generation, and does no harm.
func (s *Store) removeBefore(gen uint64) {
	files, err := list(s.dir)
	if err != nil {
		return
	}
	for g := range files.snapshots {
		if g < gen {
			_ = removeAll(filepath.Join(s.dir, snapshotName(g)))
		}
	}
	for g := range files.journals {
		if g < gen {
			_ = removeAll(filepath.Join(s.dir, journalName(g)))
		}
	}
}

// Close waits for writes under way and gives the directory free. Nothing is left to be written.
func (s *Store) Close() error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if s.journal == nil {
		return nil
	}
	s.broken = ErrClosed
	err := s.journal.Close()
	s.journal = nil
	if unlock := s.lock.Close(); err == nil {
		err = unlock
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", s.dir, err)
	}
	return nil
}
