package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// recovery is what the files of a directory say.
type recovery struct {
	dir    string
	files  listing
	values map[string][]byte
	seq    uint64 // of the last commit
	base   uint64 // generation that the state begins with
	end    int64  // bytes of the newest journal that are good; the rest of it is torn
	size   int64  // bytes of the newest journal
	start  fileHeader
	worn   []string // files that were damaged, and whose contents were found elsewhere
	plain  bool     // nothing but a snapshot and an empty journal: no need to write a new generation
}

// errDamage wraps what is wrong with the contents of files; anything else is an error of reading them.
type errDamage struct{ cause string }

func (e errDamage) Error() string { return e.cause }

func damagef(format string, args ...any) error { return errDamage{fmt.Sprintf(format, args...)} }

// read finds the newest generation that can be read, and the state from there on.
func (r *recovery) read() error {
	if !r.files.journals[r.files.newest] {
		return damagef("%s is missing", journalName(r.files.newest))
	}
	for gen := r.files.newest; ; gen-- {
		if r.files.snapshots[gen] {
			err := r.readSnapshot(gen)
			if err == nil {
				return r.replay(gen)
			}
			if !errors.As(err, &errDamage{}) {
				return err
			}
			r.worn = append(r.worn, err.Error())
		}
		if !r.files.journals[gen] {
			return damagef("%s is missing%s", journalName(gen), r.wornList())
		}
		b, err := r.contents(journalName(gen))
		if err != nil {
			return err
		}
		h, _, err := decodeFileHeader(b)
		if err != nil {
			return damagef("%s: %v%s", journalName(gen), err, r.wornList())
		}
		if h.kind == startFile {
			r.values, r.seq, r.start = map[string][]byte{}, h.seq, h
			return r.replay(gen)
		}
		if gen == 0 {
			return damagef("no file says where the state begins%s", r.wornList())
		}
	}
}

func (r *recovery) wornList() string {
	s := ""
	for _, w := range r.worn {
		s += "; " + w
	}
	return s
}

func (r *recovery) contents(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damagef("%s is missing", name)
	}
	return b, err
}

func (r *recovery) readSnapshot(gen uint64) error {
	name := snapshotName(gen)
	b, err := r.contents(name)
	if err != nil {
		return err
	}
	h, offset, err := decodeFileHeader(b)
	if err != nil {
		return damagef("%s: %v", name, err)
	}
	if h.kind != snapshotFile || h.gen != gen {
		return damagef("%s: is of another generation or kind", name)
	}
	values := map[string][]byte{}
	for i := range h.count {
		seq, payload, size, err := decodeRecord(b, offset)
		if err == nil && seq != i {
			err = fmt.Errorf("record %d follows record %d", seq, i)
		}
		if err == nil {
			err = decodeWrites(payload, func(w Write) { values[w.Key] = w.Value })
		}
		if err != nil {
			return damagef("%s: %v", name, err)
		}
		offset += size
	}
	if offset != len(b) {
		return damagef("%s: %d bytes too many", name, len(b)-offset)
	}
	r.values, r.seq = values, h.seq
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
	return nil
}

func (r *recovery) replayJournal(gen uint64) error {
	name := journalName(gen)
	b, err := r.contents(name)
	if err != nil {
		return err
	}
	h, offset, err := decodeFileHeader(b)
	switch {
	case err != nil:
		return damagef("%s: %v", name, err)
	case h.gen != gen || h.kind != journalFile && h.kind != startFile:
		return damagef("%s: is of another generation or kind", name)
	case h.seq != r.seq:
		return damagef("%s: begins after commit %d, and the last one before it is %d", name, h.seq, r.seq)
	}
	first := offset
	for offset < len(b) {
		seq, payload, size, err := decodeRecord(b, offset)
		if errors.Is(err, errTorn) {
			break
		}
		if err == nil && seq != r.seq+1 {
			err = fmt.Errorf("commit %d follows commit %d", seq, r.seq)
		}
		if err == nil {
			err = decodeWrites(payload, r.apply)
		}
		if err != nil {
			return damagef("%s: %v", name, err)
		}
		r.seq = seq
		offset += size
	}
	r.end, r.size = int64(offset), int64(len(b))
	r.plain = gen == r.base && len(b) == first && len(r.worn) == 0
	return nil
}

func (r *recovery) apply(w Write) {
	if w.Value == nil {
		delete(r.values, w.Key)
		return
	}
	r.values[w.Key] = w.Value
}
