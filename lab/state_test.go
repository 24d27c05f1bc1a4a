package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRecord(t *testing.T) {
	p := layout{t.TempDir(), "x"}
	if _, err := readRecord(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no lab: %v", err)
	}
	if err := os.MkdirAll(p.lab(), 0o755); err != nil {
		t.Fatal(err)
	}
	// What an interrupted Start leaves has to be removable.
	if got, err := readRecord(p); err != nil || len(got.Hosts) != 0 {
		t.Errorf("a directory only: %+v, %v", got, err)
	}
	want := record{Format: recordFormat, Name: "x", EngineFlags: []string{"--live-restore"},
		Hosts: []hostRecord{{Engine: "20.10", Root: "/a"}, {Engine: "28.5", Root: "/b"}}}
	if err := writeRecord(p, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readRecord(p); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, damaged := range []string{``, `{`, `{"Format":1}`, `{"Format":1,"Name":"x","Hosts":[{}]}`, `{"Format":2,"Name":"y","Hosts":[{}]}`,
		`{"Format":2,"Name":"x","Hosts":[]}`} {
		if err := os.WriteFile(p.record(), []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(p); err == nil {
			t.Errorf("%q: no error", damaged)
		}
	}
}

func TestStartRefusesATakenName(t *testing.T) {
	dir := t.TempDir()
	l, err := newLab(dir, record{Format: recordFormat, Name: "x", Hosts: []hostRecord{{}}}, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.create(); err != nil {
		t.Fatal(err)
	}
	if err := l.create(); !errors.Is(err, ErrExists) {
		t.Errorf("second: %v", err)
	}
	if names, err := List(dir); err != nil || !reflect.DeepEqual(names, []string{"x"}) {
		t.Errorf("List: %v, %v", names, err)
	}
	if err := Clean(dir); err == nil {
		t.Error("Clean removed the root of a lab that is up")
	}
	if err := Remove(dir, "x"); err != nil {
		t.Error(err)
	}
	if err := Remove(dir, "x"); err != nil {
		t.Error("again:", err)
	}
	if _, err := Open(dir, "x", nil); !errors.Is(err, ErrNotExist) {
		t.Errorf("Open: %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Setenv("CARRICK_LAB_DIR", "/somewhere")
	got, err := Config{}.complete()
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "carrick" || got.Hosts != 3 || !slices.Equal(got.Engines, []string{"28.5"}) || got.Dir != "/somewhere" {
		t.Errorf("defaults: %+v", got)
	}
	for _, bad := range []Config{{Name: "a/b"}, {Name: ".."}, {Name: "-x"}, {Hosts: -1}, {Hosts: maxHosts + 1}, {Engines: []string{"28.5", "19.03"}}} {
		if _, err := bad.complete(); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestProcess(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	p, err := findProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.pid")
	if err := writeProcess(path, p); err != nil {
		t.Fatal(err)
	}
	if got, err := readProcess(path); err != nil || got != p {
		t.Errorf("got %v, %v; want %v", got, err, p)
	}
	// A later process with the same number is somebody else's.
	other := process{p.pid, p.start + 1}
	if err := other.end(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if !p.alive() {
		t.Fatal("killed the wrong process")
	}
	if err := p.end(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	<-done
	if got, err := readProcess(path); err != nil || got != (process{}) {
		t.Errorf("ended: got %v, %v", got, err)
	}
	if err := p.end(t.Context(), unix.SIGKILL); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestParseHierarchies(t *testing.T) {
	v1 := parseHierarchies(`tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,nodev,noexec,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,xattr,release_agent=/x,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
`)
	want := "cpu,cpuacct cgroup cpu,cpuacct\nsystemd cgroup none,name=systemd\nunified cgroup2 rw\n"
	if got := mountLines(v1); got != want {
		t.Errorf("v1:\n%s\nwant:\n%s", got, want)
	}
	v2 := parseHierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\n")
	if got, want := mountLines(v2), ". cgroup2 rw\n"; got != want {
		t.Errorf("v2: %q, want %q", got, want)
	}
}

func TestRootNameFollowsTheRecipe(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range engines {
		seen[e.rootName()] = true
		if !strings.HasPrefix(e.rootName(), e.suite+"-") {
			t.Errorf("%s: %s", e.family, e.rootName())
		}
		e.packages = append(e.packages, "another")
		seen[e.rootName()] = true
	}
	if len(seen) != 2*len(engines) {
		t.Errorf("names are not distinct: %v", seen)
	}
}

func TestChosen(t *testing.T) {
	for list, want := range map[string][]string{
		"": {"20.10", "28.5", "mix"}, "28.5": {"28.5"}, "mix, 20.10": {"mix", "20.10"}, "27": nil, "28.5,": nil,
	} {
		t.Setenv("CARRICK_ENGINES", list)
		got, err := Chosen()
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
	}
	if got := EnginesOf("mix"); !slices.Equal(got, Engines()) {
		t.Errorf("mix: %q", got)
	}
	if got := EnginesOf("26.1"); !slices.Equal(got, []string{"26.1"}) {
		t.Errorf("26.1: %q", got)
	}
}
