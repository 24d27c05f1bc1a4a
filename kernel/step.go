package kernel

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/failpoint"
)

// All that this package changes goes through here, each change as one step, so that tests kill the process before and after
// every one of them: requests to the kernel in step, files and mounts of the pin in the others.

// requestKind is what a request asks for, by its number in rtnetlink(7).
type requestKind int

// String is the request as rtnetlink(7) writes it.
func (k requestKind) String() string {
	names := map[requestKind]string{
		unix.RTM_NEWLINK: "RTM_NEWLINK", unix.RTM_SETLINK: "RTM_SETLINK", unix.RTM_DELLINK: "RTM_DELLINK",
	}
	if name, ok := names[k]; ok {
		return name
	}
	return strconv.Itoa(int(k))
}

// step is one request, or one message with many, that changes something in the namespace.
func (sp *space) step(what any, request func() error) error {
	return failpoint.Step(string(sp.ns), what, request)
}

func makeDir(path string) error {
	return failpoint.Step("mkdir", path, func() error { return os.MkdirAll(path, 0o700) })
}

func removeFile(path string) error {
	return failpoint.Step("remove", path, func() error { return os.Remove(path) })
}

// makeFile makes an empty file that was not there.
func makeFile(path string) error {
	return failpoint.Step("create", path, func() error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o400)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

func writeFile(path string, content []byte) error {
	return failpoint.Step("write", path, func() error { return os.WriteFile(path, content, 0o600) })
}

func mountOver(from, path string) error {
	return failpoint.Step("mount", path, func() error { return unix.Mount(from, path, "", unix.MS_BIND, "") })
}

func unmount(path string) error {
	return failpoint.Step("umount", path, func() error { return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
}
