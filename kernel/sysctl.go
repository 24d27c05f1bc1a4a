package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/failpoint"
)

// procfs is a mount of proc of our own that is nowhere in the tree. /proc/sys is read-only inside a managed plugin, but
// only that mount of it is: CAP_SYS_ADMIN, which a plugin with namespaces has anyway, may mount another.
type procfs struct {
	mu sync.Mutex
	fd int // of its root; 0: not yet mounted
}

// root gives a descriptor of the root of the file system, mounted at the first call.
func (p *procfs) root() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != 0 {
		return p.fd, nil
	}
	fd, err := mountDetached()
	if errors.Is(err, unix.ENOSYS) {
		fd, err = mountAside()
	}
	if err != nil {
		return 0, fmt.Errorf("mount -t proc: %w", err)
	}
	p.fd = fd
	return fd, nil
}

func (p *procfs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != 0 {
		_ = unix.Close(p.fd)
		p.fd = 0
	}
}

// mountDetached mounts without a mount point (fsopen(2), Linux 5.2).
func mountDetached() (int, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// mountAside mounts at a directory, opens it, and takes the mount off the tree again: the descriptor keeps it alive.
func mountAside() (int, error) {
	dir, err := os.MkdirTemp("", "carrick-proc-")
	if err != nil {
		return 0, err
	}
	defer removeFile(dir)
	if err := unix.Mount("proc", dir, "proc", 0, ""); err != nil {
		return 0, err
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return fd, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
}

// openKey opens a key in the namespace that the calling thread is in: below /proc/sys/net the kernel shows everybody his
// own.
func (p *procfs) openKey(key string, flags int) (*os.File, error) {
	root, err := p.root()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(root, "sys/"+key, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), key), nil
}

func (p *procfs) read(key string) (string, error) {
	f, err := p.openKey(key, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 4096) // a value is at most a page
	n, err := f.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.Join(strings.Fields(string(b[:n])), " "), nil
}

func (p *procfs) write(key, value string) error {
	return failpoint.Step("sysctl", key, func() error {
		f, err := p.openKey(key, unix.O_WRONLY|unix.O_TRUNC)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value + "\n")
		return errors.Join(err, f.Close())
	})
}

func (o writeSysctl) apply(s *scope) error {
	return inside(s.space(o.NS).fd, func() error { return s.k.proc.write(o.Key, o.Value) })
}

// readSysctls gives back those of the wanted keys that have their value already.
func (k *Kernel) readSysctls(want []Sysctl) ([]Sysctl, error) {
	var have []Sysctl
	for _, sp := range k.spaces() {
		var keys []Sysctl
		for _, w := range want {
			if w.NS == sp.ns {
				keys = append(keys, w)
			}
		}
		if len(keys) == 0 {
			continue
		}
		err := inside(sp.fd, func() error {
			for _, w := range keys {
				value, err := k.proc.read(w.Key)
				if errors.Is(err, unix.ENOENT) {
					continue // of a device that is not there yet
				}
				if err != nil {
					return fmt.Errorf("sysctl %s: %w", w.Key, err)
				}
				if value == strings.Join(strings.Fields(w.Value), " ") {
					have = append(have, w)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return have, nil
}
