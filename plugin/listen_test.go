package plugin

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListen(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "carrick.sock")
	l, err := listenBelow(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := listenBelow(dir, path); err == nil || !strings.HasSuffix(err.Error(), "another process answers there") {
		t.Errorf("a second one: %v", err)
	}
	dial(t, path)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func dial(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// stale leaves a socket behind, as a killed process does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "carrick.sock")
	stale(t, path)
	stale(t, path+newSuffix) // killed while it was starting
	l, err := listenBelow(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, path)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestTheNextPluginsSocketIsLeftAlone: the old process may end after the new one has begun.
func TestTheNextPluginsSocketIsLeftAlone(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "carrick.sock")
	old, err := listenBelow(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := listenBelow(dir, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	dial(t, path)
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := socketDir(t)
	sub := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(sub("open"), 0o700))
	must(os.Chmod(sub("open"), 0o777)) // whatever the umask is
	must(os.Mkdir(sub("inner"), 0o700))
	must(os.Symlink(sub("inner"), sub("link")))
	must(os.WriteFile(sub("file"), []byte("precious"), 0o600))
	must(os.Symlink(sub("file"), sub("symlink.sock")))
	must(unix.Mkfifo(sub("fifo"), 0o600))
	for _, tt := range []struct{ path, want string }{
		{"carrick.sock", "the socket must have an absolute path below " + dir},
		{"/etc/carrick.sock", "the socket must have an absolute path below " + dir},
		{dir + "/../carrick.sock", "the socket must have an absolute path below " + dir},
		{dir + "/inner/./carrick.sock", "the socket must have an absolute path below " + dir},
		{sub(strings.Repeat("a", 120)), "the path is longer than the 106 bytes that a socket's may have"},
		{sub("missing/carrick.sock"), "no such file or directory"},
		{sub("open/carrick.sock"), "with mode 0777: others may put another socket in the place of ours"},
		{sub("link/carrick.sock"), "leads to " + sub("inner") + " by a symbolic link"},
		{sub("file"), "there is something that is not a socket (-rw-------): it is left alone"},
		{sub("symlink.sock"), "there is something that is not a socket (Lrwxrwxrwx): it is left alone"},
		{sub("fifo"), "there is something that is not a socket (prw-------): it is left alone"},
		{sub("inner"), "there is something that is not a socket (drwx------): it is left alone"},
	} {
		l, err := listenBelow(dir, tt.path)
		if err == nil {
			must(l.Close())
			t.Errorf("%s: taken", tt.path)
		} else if !strings.HasPrefix(err.Error(), "listening on ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
	if b, err := os.ReadFile(sub("file")); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q %v", b, err)
	}
}

// TestOneStartsAtATime: of two that see a stale socket only one may replace it.
func TestOneStartsAtATime(t *testing.T) {
	dir := socketDir(t)
	unlock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenBelow(dir, filepath.Join(dir, "carrick.sock")); err == nil || !strings.Contains(err.Error(), "another process is starting in "+dir) {
		t.Errorf("%v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	l, err := listenBelow(dir, filepath.Join(dir, "carrick.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenIsBelowDockersDirectory(t *testing.T) {
	if _, err := Listen(filepath.Join(t.TempDir(), "carrick.sock")); err == nil || !strings.Contains(err.Error(), "below /run/docker/plugins") {
		t.Errorf("%v", err)
	}
}
