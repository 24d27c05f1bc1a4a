package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// SocketDir is where dockerd looks for the sockets of plugins, seen from the plugin as well as from the host.
	SocketDir = "/run/docker/plugins"
	// maxSocketPath is the room for a path in a unix address, in bytes (unix(7): sun_path), without the final zero.
	maxSocketPath = 107
	// probeLimit is how long a socket that is already there may take to answer. A living process accepts at once: the
	// kernel does it.
	probeLimit = time.Second
)

// Listen makes the plugin's socket, which only root may use. A socket that is already there is replaced if nobody
// answers on it: a killed process leaves one behind.
func Listen(path string) (net.Listener, error) {
	return listenBelow(SocketDir, path)
}

func listenBelow(root, path string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) { return nil, fmt.Errorf("listening on %s: %w", quote(path), err) }
	if filepath.Clean(path) != path || !strings.HasPrefix(path, root+"/") {
		return fail(fmt.Errorf("the socket must have an absolute path below %s", root))
	}
	if len(path)+len(newSuffix) > maxSocketPath {
		return fail(fmt.Errorf("the path is longer than the %d bytes that a socket's may have", maxSocketPath-len(newSuffix)))
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return fail(err)
	}
	l, err := replace(path)
	if err := errors.Join(err, unlock()); err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return fail(err)
	}
	return l, nil
}

// lockDir takes a directory for this process alone, so that of two plugins that start only one sees a stale socket. The
// directory must be one that nobody but us can change, and no link in its path may lead elsewhere.
func lockDir(dir string) (unlock func() error, err error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if resolved != dir {
		return nil, fmt.Errorf("%s leads to %s by a symbolic link", dir, resolved)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dir, err)
	}
	unlock = func() error { return unix.Close(fd) } // which ends the lock
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("stat %s: %w", dir, err), unlock())
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, errors.Join(fmt.Errorf("%s belongs to user %d with mode %#o: others may put another socket in the place of ours", dir, st.Uid, st.Mode&0o777), unlock())
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process is starting in %s: %w", dir, err), unlock())
	}
	return unlock, nil
}

// newSuffix marks a socket that is not yet in its place.
const newSuffix = "~"

// replace makes a socket and puts it in its place when it listens and nobody but root can open it: there is never one
// that does not answer, or that answers others.
func replace(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	made := path + newSuffix
	if err := checkStale(made); err != nil {
		return nil, err
	}
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would remove the name that the socket has no longer
	if err := os.Chmod(made, 0o600); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(made))
	}
	info, err := os.Lstat(made)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(made))
	}
	return &socket{UnixListener: l, path: path, made: info}, nil
}

// checkStale refuses to replace what is not a socket, or one that somebody answers on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is something that is not a socket (%s): it is left alone", info.Mode())
	}
	conn, err := net.DialTimeout("unix", path, probeLimit)
	switch {
	case err == nil:
		return errors.Join(errors.New("another process answers there"), conn.Close())
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return fmt.Errorf("it cannot be told whether another process answers there: %w", err)
	}
}

// socket takes its name away when it is closed, unless another process has put its own there meanwhile.
type socket struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

func (s *socket) Close() error {
	now, err := os.Lstat(s.path)
	if err == nil && os.SameFile(now, s.made) {
		err = os.Remove(s.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(s.UnixListener.Close(), err)
}
