package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupTop holds the cgroups of all labs, in each hierarchy.
const cgroupTop = "carrick-lab"

// A hierarchy is one mounted cgroup hierarchy of the machine: one for everything in v2, one per controller in v1.
type hierarchy struct {
	dir     string // where the machine has it
	v2      bool
	options string // what mounts the same one again (v1)
}

// parseHierarchies finds the cgroup hierarchies in the text of /proc/mounts.
func parseHierarchies(mounts string) []hierarchy {
	var found []hierarchy
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 || slices.ContainsFunc(found, func(h hierarchy) bool { return h.dir == f[1] }) {
			continue
		}
		switch f[2] {
		case "cgroup2":
			found = append(found, hierarchy{dir: f[1], v2: true})
		case "cgroup":
			found = append(found, hierarchy{dir: f[1], options: controllers(f[3])})
		}
	}
	return found
}

// controllers leaves out of the options of a mounted v1 hierarchy all that does not say which one it is.
func controllers(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		case slices.Contains([]string{"rw", "ro", "relatime", "noatime", "nosuid", "nodev", "noexec", "xattr", "clone_children"}, o):
		case strings.Contains(o, "="):
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// mountLines tells the boot script which hierarchies to mount, one a line: name, type and options.
func mountLines(hs []hierarchy) string {
	var b strings.Builder
	for _, h := range hs {
		name := filepath.Base(h.dir)
		switch {
		case h.v2 && len(hs) == 1:
			fmt.Fprintf(&b, ". cgroup2 rw\n")
		case h.v2:
			fmt.Fprintf(&b, "%s cgroup2 rw\n", name)
		default:
			fmt.Fprintf(&b, "%s cgroup %s\n", name, h.options)
		}
	}
	return b.String()
}

// cgroup names the lab's or one of its members' cgroup, relative to the top of each hierarchy.
func (l *Lab) cgroup(member string) string { return path.Join(cgroupTop, l.Name, member) }

// enterCgroup makes the cgroup rel in every hierarchy and moves the process into it.
func enterCgroup(ctx context.Context, hs []hierarchy, rel string, pid int) error {
	return poll(ctx, "cgroup "+rel, func() (bool, error) {
		err := tryEnterCgroup(hs, rel, pid)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // another lab went down and took the top away between two of our steps
		}
		return err == nil, err
	})
}

func tryEnterCgroup(hs []hierarchy, rel string, pid int) error {
	for _, h := range hs {
		dir := h.dir
		for name := range strings.SplitSeq(rel, "/") {
			if len(hs) == 1 { // beside hierarchies of v1 it is there for systemd only, and has no controllers of use
				if err := h.delegate(dir); err != nil {
					return err
				}
			}
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := inheritCpuset(dir); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// delegate lets the children of a v2 cgroup use every controller that it may use itself. One that the machine keeps back
// (cpu with real-time processes, say) is left out, as systemd does.
func (h hierarchy) delegate(dir string) error {
	if !h.v2 {
		return nil
	}
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for c := range strings.FieldsSeq(string(have)) {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// inheritCpuset fills a new v1 cpuset, which takes no process while it is empty.
func inheritCpuset(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) || strings.TrimSpace(string(own)) != "" {
			return nil
		}
		if err != nil {
			return err
		}
		parents, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // v2: empty means the parent's
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), parents, 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes the cgroup rel and all below it from every hierarchy, once the last process has left them.
func removeCgroup(ctx context.Context, hs []hierarchy, rel string) error {
	return poll(ctx, "the processes of cgroup "+rel+" to end", func() (bool, error) {
		gone := true
		for _, h := range hs {
			err := removeTree(filepath.Join(h.dir, rel))
			if errors.Is(err, unix.EBUSY) {
				gone = false
			} else if err != nil {
				return false, err
			}
			// The last lab takes the top with it; it is busy as long as there is another one.
			err = unix.Rmdir(filepath.Join(h.dir, cgroupTop))
			if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) {
				return false, err
			}
		}
		return gone, nil
	})
}

// removeTree removes directories only, from below: the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
