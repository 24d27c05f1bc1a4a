package store

import (
	"errors"
	"fmt"
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
}

var realDisk = disk{write: (*os.File).Write, sync: (*os.File).Sync, rename: os.Rename}

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
func (d disk) create(path string, chunks func(yield func([]byte) error) error) (f *os.File, size int64, placed bool, err error) {
	temp := path + ".tmp"
	f, err = os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, false, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp) // what stays is removed at the next Open
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

// makeDir makes the store's directory and makes its name durable.
func (d disk) makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return errors.New("is not a directory")
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

// lockDir keeps a second process out: at an upgrade or after a killed engine, two lives of the plugin can meet.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.New("in use by another process")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// listing is the files of a store by their generations, and the number of the next damaged-N.
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
		n, err := strconv.ParseUint(number, 10, 62)
		if err != nil || strconv.FormatUint(n, 10) != number {
			continue
		}
		switch {
		case what == "journal" && e.Type().IsRegular():
			l.journals[n] = true
		case what == "snapshot" && e.Type().IsRegular():
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
