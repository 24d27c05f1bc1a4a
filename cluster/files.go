package cluster

import (
	"errors"
	"os"

	"github.com/carricknet/carrick/failpoint"
)

// All that this package changes of files is done here, each as one step, so that tests kill the process before and after every
// one of them.

// writeFile leaves a file that is not yet durable.
func writeFile(path string, content []byte) error {
	return failpoint.Step("write", path, func() error { return os.WriteFile(path, content, 0o600) })
}

// writeSynced returns when the file is on disk. Its name is not, before syncDir.
func writeSynced(path string, content []byte) error {
	var f *os.File
	err := failpoint.Step("write", path, func() (err error) {
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
			_, err = f.Write(content)
		}
		return err
	})
	if f == nil {
		return err
	}
	return errors.Join(err, fsync(f), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(fsync(d), d.Close())
}

func fsync(f *os.File) error { return failpoint.Step("fsync", f.Name(), f.Sync) }

func rename(from, to string) error {
	return failpoint.Step("rename", from, func() error { return os.Rename(from, to) })
}

func removeFile(path string) error {
	return failpoint.Step("remove", path, func() error { return os.Remove(path) })
}

func removeAll(path string) error {
	return failpoint.Step("remove", path, func() error { return os.RemoveAll(path) })
}

func makeAll(dir string) error {
	return failpoint.Step("mkdir", dir, func() error { return os.MkdirAll(dir, 0o700) })
}
