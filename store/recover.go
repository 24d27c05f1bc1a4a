package store

import (
	"errors"
	"fmt"
	"path/filepath"
)

// recovery is what the files of a directory say.
type recovery struct {
	dir     string
	files   listing
	mark    *mark // nil: there is none
	boot    boot
	trust   bool // of tests: nothing is compared
	values  map[string][]byte
	id      identity
	version uint32 // of the file that was read last
	seq     uint64 // of the last commit
	chain   uint32 // its checksum
	base    uint64 // generation that the state begins with
	end     int64  // bytes of the newest journal that are good; the rest of it is torn
	size    int64  // bytes of the newest journal
	start   fileHeader
	worn    []string // files that were damaged, and whose contents were found elsewhere
	unread  error    // of the disk, about a snapshot
	plain   bool     // nothing but a snapshot and an empty journal: no need to write a new generation
}

// errDamage wraps what is wrong with the contents of files; anything else is an error of reading them.
type errDamage struct{ cause string }

func (e errDamage) Error() string { return e.cause }

func damagef(format string, args ...any) error { return errDamage{fmt.Sprintf(format, args...)} }

// read finds the newest generation that can be read, and the state from there on. What a snapshot that the disk does not
// give has lost may be in the files before it; if not, the error is the disk's and nothing is damage yet.
func (r *recovery) read() error {
	err := r.find()
	if err != nil && r.unread != nil {
		return r.unread
	}
	return err
}

func (r *recovery) find() error {
	if err := r.identify(); err != nil {
		return err
	}
	for gen := r.files.newest; ; gen-- {
		if r.files.snapshots[gen] {
			err := r.readSnapshot(gen)
			if err == nil {
				return r.replay(gen)
			}
			if !errors.As(err, &errDamage{}) {
				r.unread = errors.Join(r.unread, err)
			}
			r.worn = append(r.worn, err.Error())
		}
		if !r.files.journals[gen] {
			return damagef("%s is missing%s", journalName(gen), r.wornList())
		}
		h, _, err := r.journal(gen)
		if errors.As(err, &errDamage{}) {
			return damagef("%v%s", err, r.wornList())
		}
		if err != nil {
			return err
		}
		if h.kind == startFile {
			r.values, r.version, r.seq, r.chain, r.start = map[string][]byte{}, h.version, h.seq, h.chain, h
			return r.replay(gen)
		}
		if gen == 0 {
			return damagef("no file says where the state begins%s", r.wornList())
		}
	}
}

// identify takes the newest journal's word for which store this is, unless the mark knows better.
func (r *recovery) identify() error {
	if !r.files.journals[r.files.newest] {
		return damagef("%s is missing", journalName(r.files.newest))
	}
	h, _, err := r.journal(r.files.newest)
	if err != nil {
		return err
	}
	r.id = h.id
	switch {
	case r.trust:
	case h.version == formatVersion && !h.id.isFor(r.dir):
		return damagef("%s belongs to a store of another name", journalName(h.gen))
	case r.mark != nil && r.mark.id != h.id:
		return damagef("%s belongs to another store than %s, or is older", journalName(h.gen), lockName)
	case r.mark == nil && h.version == formatVersion && h.kind != startFile:
		return r.agree()
	}
	return nil
}

// agree looks for journals of another store. Without a mark, nobody knows which of two it was. Those before a start were put
// aside, or are going to be.
func (r *recovery) agree() error {
	for gen := range r.files.journals {
		if h, _, err := r.journal(gen); err == nil && h.version == formatVersion && h.id != r.id {
			return damagef("%s and %s are of two stores, and %s does not say which it was", journalName(gen), journalName(r.files.newest), lockName)
		}
	}
	return nil
}

func (r *recovery) wornList() string {
	s := ""
	for _, w := range r.worn {
		s += "; " + w
	}
	return s
}

// journal reads one, with the records behind its header.
func (r *recovery) journal(gen uint64) (fileHeader, records, error) {
	name := journalName(gen)
	b, err := readFile(filepath.Join(r.dir, name))
	if err != nil {
		return fileHeader{}, records{}, err
	}
	h, offset, err := decodeFileHeader(b, r.trust)
	switch {
	case err != nil:
		return h, records{}, damagef("%s: %v", name, err)
	case h.gen != gen || h.kind != journalFile && h.kind != startFile:
		return h, records{}, damagef("%s: is of another generation or kind", name)
	}
	return h, records{b: b, at: offset, version: h.version, chain: h.chain, trust: r.trust}, nil
}

func (r *recovery) readSnapshot(gen uint64) error {
	name := snapshotName(gen)
	b, err := readFile(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	h, offset, err := decodeFileHeader(b, r.trust)
	switch {
	case err != nil:
		return damagef("%s: %v", name, err)
	case h.kind != snapshotFile || h.gen != gen:
		return damagef("%s: is of another generation or kind", name)
	case h.version == formatVersion && h.id != r.id && !r.trust:
		return damagef("%s: is of another store", name)
	}
	values := map[string][]byte{}
	chunks := records{b: b, at: offset, version: h.version, trust: r.trust}
	if h.version == formatVersion {
		chunks.chain = headerSum(b)
	}
	for i := range h.count {
		seq, payload, err := chunks.next()
		if err == nil && seq != i {
			err = fmt.Errorf("record %d follows record %d", seq, i)
		}
		if err == nil {
			err = decodeWrites(payload, func(w Write) { values[w.Key] = w.Value })
		}
		if err != nil {
			return damagef("%s: %v", name, err)
		}
	}
	if chunks.at != len(b) {
		return damagef("%s: %d bytes too many", name, len(b)-chunks.at)
	}
	r.values, r.version, r.seq, r.chain = values, h.version, h.seq, h.chain
	return nil
}

// replay applies the journals from generation base on to the state.
func (r *recovery) replay(base uint64) error {
	r.base = base
	for gen := base; gen <= r.files.newest; gen++ {
		if err := r.replayJournal(gen); err != nil {
			return err
		}
	}
	switch {
	case r.mark == nil || r.trust:
	case r.seq < r.mark.seq:
		return damagef("commit %d is the last one, and commit %d was on disk", r.seq, r.mark.seq)
	case r.mark.boot == r.boot && r.boot != boot{} && r.seq > r.mark.seq+markLag:
		return damagef("commit %d is the last one, and for %s it was %d, since the host was booted: one of them is older", r.seq, lockName, r.mark.seq)
	}
	return nil
}

func (r *recovery) replayJournal(gen uint64) error {
	name := journalName(gen)
	h, commits, err := r.journal(gen)
	if err != nil {
		return err
	}
	if err := r.follows(h); err != nil && !r.trust {
		return damagef("%s: %v", name, err)
	}
	r.version, r.chain = h.version, h.chain
	first := commits.at
	for {
		if err := r.compareMark(); err != nil {
			return damagef("%s: %v", name, err)
		}
		if commits.at == len(commits.b) {
			break
		}
		seq, payload, err := commits.next()
		if errors.Is(err, errTorn) {
			if r.mark == nil && h.version == formatVersion && !r.trust {
				return damagef("%s: it is torn after commit %d, and %s does not say how far it went", name, r.seq, lockName)
			}
			break
		}
		if err == nil && seq != r.seq+1 && !r.trust {
			err = fmt.Errorf("commit %d follows commit %d", seq, r.seq)
		}
		if err == nil {
			err = decodeWrites(payload, r.apply)
		}
		if err != nil {
			return damagef("%s: %v", name, err)
		}
		r.seq, r.chain = seq, commits.chain
	}
	r.end, r.size = int64(commits.at), int64(len(commits.b))
	r.plain = gen == r.base && len(commits.b) == first && len(r.worn) == 0 && h.version == formatVersion
	return nil
}

// follows says why a journal does not go on from what was read before it.
func (r *recovery) follows(h fileHeader) error {
	chain := r.chain
	if r.version == oldVersion && h.version == formatVersion {
		chain = h.id.chain() // the first one after an upgrade
	}
	switch {
	case h.version < r.version:
		return fmt.Errorf("has format version %d, and what is before it %d", h.version, r.version)
	case h.version == formatVersion && h.id != r.id:
		return errors.New("is of another store")
	case h.seq != r.seq:
		return fmt.Errorf("begins after commit %d, and the last one before it is %d", h.seq, r.seq)
	case h.version == formatVersion && h.chain != chain:
		return fmt.Errorf("does not go on from commit %d as it is", r.seq)
	}
	return nil
}

func (r *recovery) compareMark() error {
	if r.mark == nil || r.version == oldVersion || r.seq != r.mark.seq || r.chain == r.mark.chain || r.trust {
		return nil
	}
	return fmt.Errorf("commit %d is not the one that was on disk", r.seq)
}

func (r *recovery) apply(w Write) {
	if w.Value == nil {
		delete(r.values, w.Key)
		return
	}
	r.values[w.Key] = w.Value
}
