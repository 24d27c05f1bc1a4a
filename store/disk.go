package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// disk is what changes files in a way that can fail halfway: the seam at which tests break and crash it.
type disk struct {
	write  func(f *os.File, b []byte) (int, error)
	sync   func(f *os.File) error
	rename func(from, to string) error
	boot   func() boot
	trust  bool // checksums, identities and marks are not compared: so a test shows that it would notice
}

var realDisk = disk{write: writeFile, sync: syncFile, rename: rename, boot: thisBoot}

// syncDir makes renames in a directory durable.
func (d disk) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.sync(f)
}

// create writes a file under a temporary name, makes it durable and gives it its name. It returns the file open at its
// end, ready to be appended to. placed says that the name may be there after a crash, although an error is returned.
func (d disk) create(path string, chunks func(yield func([]byte) error) error) (_ *os.File, size int64, placed bool, err error) {
	temp := path + ".tmp"
	if err := removeAll(temp); err != nil { // whatever it is
		return nil, 0, false, err
	}
	f, err := openFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, 0, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = removeAll(temp) // what stays is removed at the next Open
		}
	}()
	err = chunks(func(b []byte) error {
		n, err := d.write(f, b)
		size += int64(n)
		return err
	})
	if err != nil {
		return nil, 0, false, fmt.Errorf("write %s: %w", temp, err)
	}
	if err = d.sync(f); err != nil {
		return nil, 0, false, fmt.Errorf("fsync %s: %w", temp, err)
	}
	if err = d.rename(temp, path); err != nil {
		_, missing := os.Lstat(path)
		return nil, 0, missing == nil, err
	}
	if err = d.syncDir(filepath.Dir(path)); err != nil {
		return nil, 0, true, fmt.Errorf("fsync %s: %w", filepath.Dir(path), err)
	}
	return f, size, true, nil
}

// makeDir makes the store's directory and makes its name durable. Where something else has its name, that is moved, and
// what was found is said.
func (d disk) makeDir(dir string) (odd string, err error) {
	info, err := os.Stat(dir)
	if err == nil && info.IsDir() {
		return "", nil
	}
	if there, lost := os.Lstat(dir); lost == nil {
		to := freeName(dir + ".damaged-")
		if err := d.rename(dir, to); err != nil {
			return "", fmt.Errorf("is not a directory: %w", err)
		}
		odd = fmt.Sprintf("it was %s and no directory, and is %s now", kindOf(there.Mode()), to)
		forget(dir+".damaged-", keptAside)
	}
	if err := makeAll(dir); err != nil {
		return "", err
	}
	return odd, d.syncDir(filepath.Dir(dir))
}

// lockName is the file that is locked, and has the mark in it.
const lockName = "lock"

// lockDir keeps a second process out: at an upgrade or after a killed engine, two lives of the plugin can meet. What is
// no file and has the lock's name is moved into damaged-N, and said.
func (d disk) lockDir(dir string) (f *os.File, odd string, err error) {
	path := filepath.Join(dir, lockName)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		files, err := list(dir)
		if err != nil {
			return nil, "", err
		}
		to := filepath.Join(dir, asideName(files.aside))
		if err := errors.Join(makeAll(to), d.rename(path, filepath.Join(to, lockName))); err != nil {
			return nil, "", err
		}
		odd = fmt.Sprintf("%s was %s, and is in %s now", lockName, kindOf(info.Mode()), to)
	}
	f, err = openFile(path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, "", err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, "", errors.New("in use by another process")
		}
		return nil, "", fmt.Errorf("lock: %w", err)
	}
	return f, odd, nil
}

// kindOf is what a file is, for a sentence.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "no regular file"
}

// maxFile bounds what is read into memory, in bytes: hundred times any store that there was.
const maxFile = 256 << 20

// readFile returns the contents of a regular file. Anything else with its name is damage: a pipe would never end, and a link
// leads to what is not ours.
func readFile(path string) ([]byte, error) {
	name := filepath.Base(path)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, damagef("%s is missing", name)
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO): // of a link and of a socket
		return nil, damagef("%s is no regular file", name)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, damagef("%s is %s", name, kindOf(info.Mode()))
	case info.Size() > maxFile:
		return nil, damagef("%s has %d bytes, at most %d are possible", name, info.Size(), maxFile)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// genBits bounds the numbers in names.
const genBits = 62

// listing is the files of a store by their generations, whatever they are, and the number of the next damaged-N.
type listing struct {
	journals  map[uint64]bool
	snapshots map[uint64]bool
	newest    uint64 // of either
	aside     uint64
	temps     []string
}

func list(dir string) (listing, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return listing{}, err
	}
	l := listing{journals: map[uint64]bool{}, snapshots: map[uint64]bool{}, aside: 1}
	for _, e := range entries {
		what, number, _ := strings.Cut(e.Name(), "-")
		if strings.HasSuffix(number, ".tmp") && (what == "journal" || what == "snapshot") {
			l.temps = append(l.temps, e.Name())
			continue
		}
		n, err := strconv.ParseUint(number, 10, genBits)
		if err != nil || strconv.FormatUint(n, 10) != number {
			continue
		}
		switch {
		case what == "journal":
			l.journals[n] = true
		case what == "snapshot":
			l.snapshots[n] = true
		case what == "damaged":
			l.aside = max(l.aside, n+1)
			continue
		default:
			continue
		}
		l.newest = max(l.newest, n)
	}
	return l, nil
}

func (l listing) empty() bool { return len(l.journals) == 0 && len(l.snapshots) == 0 }

func journalName(gen uint64) string  { return "journal-" + strconv.FormatUint(gen, 10) }
func snapshotName(gen uint64) string { return "snapshot-" + strconv.FormatUint(gen, 10) }
func asideName(n uint64) string      { return "damaged-" + strconv.FormatUint(n, 10) }
