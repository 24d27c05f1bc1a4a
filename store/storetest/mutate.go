package storetest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Victims are directories that are damaged.
type Victims struct {
	Dirs []string // each may be damaged, with all that is below it
	Old  []string // copies of Dirs, of an earlier time
	Twin []string // as Dirs, of another host
	// Whole says that a directory may be removed, or something else be in its place.
	Whole bool
}

// Mutation is what was done.
type Mutation struct {
	What  string
	Files []string // that are not what they were
}

// String is a line for whoever has to repeat it.
func (m Mutation) String() string { return fmt.Sprintf("%s: %v", m.What, m.Files) }

// Mutate damages one file, or two, or one directory. There has to be a file.
func (v Victims) Mutate(r *rand.Rand) (Mutation, error) {
	files, err := v.files()
	if err != nil {
		return Mutation{}, err
	}
	if v.Whole && (len(files) == 0 || r.IntN(20) == 0) {
		return v.whole(r)
	}
	if len(files) == 0 {
		return Mutation{What: "nothing is left to be damaged"}, nil
	}
	path := files[r.IntN(len(files))]
	switch r.IntN(4) {
	case 0:
		return v.exchange(r, path, files)
	case 1:
		return replace(r, path)
	default:
		return edit(r, path)
	}
}

// files are all below the directories, in an order that is the same each time. What was put aside counts as well.
func (v Victims) files() ([]string, error) {
	var all []string
	for _, dir := range v.Dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !d.IsDir() && path != dir {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// regular says whether a file has contents that can be changed.
func regular(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// exchange puts a file in the place of another one, or gives it another name.
func (v Victims) exchange(r *rand.Rand, path string, files []string) (Mutation, error) {
	other := files[r.IntN(len(files))]
	switch r.IntN(5) {
	case 0:
		return v.from(r, path, v.Old, "as it was earlier")
	case 1:
		return v.from(r, path, v.Twin, "as another host has it")
	case 2:
		if other == path || !regular(path) || !regular(other) {
			return Mutation{"removed", []string{path}}, os.Remove(path)
		}
		temp := path + ".swap"
		return Mutation{"swapped", []string{path, other}},
			errors.Join(os.Rename(path, temp), os.Rename(other, path), os.Rename(temp, other))
	case 3:
		if other == path || !regular(path) || !regular(other) {
			return Mutation{"removed", []string{path}}, os.Remove(path)
		}
		return Mutation{"second one is a copy of the first", []string{path, other}}, copyFile(path, other)
	default:
		names := []string{"journal-", "snapshot-", "damaged-"}
		to := filepath.Join(filepath.Dir(path), fmt.Sprint(names[r.IntN(3)], r.IntN(9)))
		if to == path || !regular(path) || exists(to) && !regular(to) {
			return Mutation{"removed", []string{path}}, os.Remove(path)
		}
		return Mutation{"renamed", []string{path, to}}, os.Rename(path, to)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// from takes the file of the same name, or another one of its kind, out of the same directory among others, or a piece of it.
func (v Victims) from(r *rand.Rand, path string, others []string, what string) (Mutation, error) {
	for i, dir := range v.Dirs {
		below, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(below) || i >= len(others) {
			continue
		}
		source := filepath.Join(others[i], below)
		if !regular(source) { // that generation is not there: any of its kind
			same, err := filepath.Glob(filepath.Join(filepath.Dir(source), filepath.Base(below)[:1]+"*"))
			if err != nil || len(same) == 0 || !regular(same[0]) {
				break
			}
			source = same[0]
		}
		if r.IntN(3) == 0 && regular(path) {
			return Mutation{"a piece is " + what + ", from " + filepath.Base(source), []string{path}}, copyPiece(r, source, path)
		}
		return Mutation{what + ", from " + filepath.Base(source), []string{path}}, errors.Join(os.Remove(path), copyFile(source, path))
	}
	return Mutation{"removed", []string{path}}, os.Remove(path)
}

// copyPiece copies bytes to where they are in the other file, or appends them.
func copyPiece(r *rand.Rand, from, to string) error {
	source, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	begin, end := block(r, len(source))
	if r.IntN(2) == 0 {
		begin, end = min(begin, len(b)), len(source)
	}
	b = append(b, make([]byte, max(0, end-len(b)))...)
	if begin < end {
		copy(b[begin:], source[begin:end])
	}
	return os.WriteFile(to, b, 0o600)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// replace puts something that is no file of a store in the place of a file, or beside it.
func replace(r *rand.Rand, path string) (Mutation, error) {
	gone := func(what string, put func() error) (Mutation, error) {
		return Mutation{what, []string{path}}, errors.Join(os.RemoveAll(path), put())
	}
	foreign := [][]byte{nil, []byte("# a file of somebody else\n"), []byte("\x7fELF\x02\x01\x01"), []byte(`{"v":1}`), make([]byte, 4096)}
	switch n := r.IntN(8); n {
	case 0:
		return gone("removed", func() error { return nil })
	case 1:
		return gone("a foreign file", func() error { return os.WriteFile(path, foreign[r.IntN(len(foreign))], 0o600) })
	case 2, 3:
		return gone(odd(r, path))
	case 4:
		if !regular(path) { // what a link leads to is not ours
			return gone("removed", func() error { return nil })
		}
		return Mutation{"permissions", []string{path}}, os.Chmod(path, []fs.FileMode{0, 0o400, 0o777}[r.IntN(3)])
	case 5:
		return Mutation{"longer than the disk", []string{path}}, grow(path, 1<<uint(r.IntN(21)))
	default: // beside it
		names := []string{"journal-9", "snapshot-9", "journal-4611686018427387903", "damaged-1", "damaged-x", "journal-1.tmp", "snapshot-2.tmp", "core", "node.key.new"}
		beside := filepath.Join(filepath.Dir(path), names[r.IntN(len(names))])
		if exists(beside) {
			return gone("removed", func() error { return nil })
		}
		if n == 6 {
			what, put := odd(r, beside)
			return Mutation{"beside: " + what, []string{beside}}, put()
		}
		return Mutation{"beside: a foreign file", []string{beside}}, os.WriteFile(beside, foreign[r.IntN(len(foreign))], 0o600)
	}
}

// whole damages a directory.
func (v Victims) whole(r *rand.Rand) (Mutation, error) {
	dir := v.Dirs[r.IntN(len(v.Dirs))]
	what, put := "removed", func() error { return nil }
	if r.IntN(3) > 0 {
		what, put = odd(r, dir)
	}
	return Mutation{what, []string{dir}}, errors.Join(os.RemoveAll(dir), put())
}

// Touches says whether one of the files has that name, or is a directory around it.
func Touches(all []Mutation, path string) bool {
	return slices.ContainsFunc(all, func(m Mutation) bool {
		return slices.ContainsFunc(m.Files, func(f string) bool {
			below, err := filepath.Rel(f, path)
			return err == nil && filepath.IsLocal(below)
		})
	})
}
