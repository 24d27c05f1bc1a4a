package store

import (
	"os"

	"github.com/carricknet/carrick/failpoint"
)

// All that this package changes of files is done here, each as one step, so that tests kill the process before and after every
// one of them.

func writeFile(f *os.File, b []byte) (n int, err error) {
	err = failpoint.Step("write", f.Name(), func() (err error) { n, err = f.Write(b); return err })
	return n, err
}

func writeAt(f *os.File, b []byte, at int64) error {
	return failpoint.Step("write into", f.Name(), func() error { _, err := f.WriteAt(b, at); return err })
}

func syncFile(f *os.File) error {
	return failpoint.Step("fsync", f.Name(), f.Sync)
}

func truncate(f *os.File, size int64) error {
	return failpoint.Step("truncate", f.Name(), func() error { return f.Truncate(size) })
}

func rename(from, to string) error {
	return failpoint.Step("rename", from, func() error { return os.Rename(from, to) })
}

func removeAll(path string) error {
	return failpoint.Step("remove", path, func() error { return os.RemoveAll(path) })
}

func makeAll(dir string) error {
	return failpoint.Step("mkdir", dir, func() error { return os.MkdirAll(dir, 0o700) })
}

// openFile is for flags that may make the file or empty it.
func openFile(path string, flags int) (f *os.File, err error) {
	err = failpoint.Step("open", path, func() (err error) { f, err = os.OpenFile(path, flags, 0o600); return err })
	return f, err
}
