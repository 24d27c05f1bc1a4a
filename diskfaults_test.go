package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/cluster/clustertest"
)

// smallDisk is a file system of a megabyte that is mounted nowhere: it is reached through its descriptor, and gone with it.
type smallDisk struct {
	context int
	dir     string
}

func newSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(unix.FsconfigSetString(fs, "size", "1m"), unix.FsconfigCreate(fs))
	if err != nil {
		t.Fatal(err)
	}
	top, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Close(top), unix.Close(fs)); err != nil {
			t.Error(err)
		}
	})
	return smallDisk{fs, fmt.Sprint("/proc/self/fd/", top)}
}

// readOnly makes it so or ends it. Nobody may have a file open for writing.
func (d smallDisk) readOnly(t *testing.T, on bool) {
	t.Helper()
	flag := "rw"
	if on {
		flag = "ro"
	}
	if err := errors.Join(unix.FsconfigSetFlag(d.context, flag), unix.FsconfigReconfigure(d.context)); err != nil {
		t.Fatal(err)
	}
}

// fill leaves no byte, and free gives them all back.
func (d smallDisk) fill(t *testing.T) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFaults takes the disk away from a host with running containers: new ones are refused with the reason, nothing of
// what runs is touched, over restarts too, and with the disk comes back all that was there.
func TestDiskFaults(t *testing.T) {
	disk := newSmallDisk(t)
	node := (&clustertest.Cluster{}).Node("host0")
	e := &engine{T: t, family: families[0], dir: disk.dir, sockets: t.TempDir(), node: watched{node}, kernel: &brittle{}}
	e.start()
	net, err := e.create(nil, "10.1.0.0/16", "fd01::/64")
	e.must(err)
	taken := map[string]bool{}
	take := func(c *container) {
		for _, a := range c.addresses {
			if taken[a] {
				t.Errorf("%s was given twice", a)
			}
			taken[a] = true
		}
	}
	more := func() {
		t.Helper()
		c, err := e.run(net)
		e.must(err)
		take(c)
	}
	for range 3 {
		more()
	}
	kernel, held := e.kernel.String(), e.held()
	unchanged := func(when string) {
		t.Helper()
		if diff := differs(kernel, e.kernel.String()); diff != "" {
			t.Errorf("%s: the kernel has changed:\n%s", when, diff)
		}
		now := e.held()
		for line := range strings.Lines(held) { // what a refused one has left, since its end cannot be recorded, may be more
			if !strings.Contains(now, line) {
				t.Errorf("%s: lost: %s", when, line)
			}
		}
	}
	free := disk.fill(t)
	for refusals := 0; refusals < 3; { // some commits may find room in the last page of a journal
		c, err := e.run(net)
		if err == nil {
			take(c)
			kernel, held = e.kernel.String(), e.held()
			continue
		}
		if refusals++; !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			t.Errorf("on a full disk: %v", err)
		}
		unchanged("after a refusal")
	}
	e.restart()
	unchanged("started on a full disk")
	free()
	more()
	kernel, held = e.kernel.String(), e.held()
	e.kill()
	e.kill = func() {}
	disk.readOnly(t, true)
	log := logrus.New()
	log.SetOutput(io.Discard)
	h := &host{log: log, dir: e.dir}
	if err := errors.Join(h.openStores(), h.close()); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), filepath.Join(e.dir, "state")) {
		t.Errorf("on a disk that cannot be written: %v", err)
	}
	disk.readOnly(t, false)
	e.start()
	unchanged("after a disk that could not be written")
	more()
}
