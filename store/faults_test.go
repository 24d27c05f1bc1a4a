package store

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carricknet/carrick/store/storetest"
)

// childEnv names the directory of the store that this binary shall write to, instead of running tests: strace makes its
// system calls fail.
const childEnv = "CARRICK_STORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeAndTell(dir)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeAndTell says before each commit what it is, and after it what came of it.
func writeAndTell(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Println("unopened", err)
		return
	}
	for i := range 12 {
		key := fmt.Sprintf("key/%02d", i)
		fmt.Println("try", key)
		if err := s.Apply(set(key, "value"), Write{Key: "seed/0"}); err != nil {
			fmt.Println("no", key, err)
		} else {
			fmt.Println("ok", key)
		}
		if i%5 == 3 && s.broken == nil {
			_ = s.nextGeneration() // it fails as everything does
		}
	}
	s.Close()
}

// reasons are how the kernel's errors are called.
var reasons = map[string]string{"EIO": "input/output error", "ENOSPC": "no space left on device", "EROFS": "read-only file system"}

// TestDiskFaults lets the kernel refuse the system calls of a process that writes to a store, one or all from one on, or
// kill it there. What it was told to be on disk is on disk, what it was told not to be is not, and it was told why.
// CARRICK_FAULTS says how many processes, CARRICK_SEED which.
func TestDiskFaults(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is needed: scripts/prepare strace")
	}
	count, seed := uint64(storetest.Setting(t, "CARRICK_FAULTS", 12)), uint64(storetest.Setting(t, "CARRICK_SEED", 1))
	refused, killed, unopened := 0, 0, 0
	for i := range count {
		r := rand.New(rand.NewPCG(seed+i, 2))
		call := []string{"fsync", "write", "renameat", "openat", "pwrite64", "ftruncate"}[(seed+i)%6]
		fault := []string{"error=EIO", "error=ENOSPC", "error=EROFS", "signal=KILL"}[r.IntN(4)]
		inject := fmt.Sprintf("inject=%s:%s:when=%d%s", call, fault, 1+r.IntN(10), []string{"", "+"}[r.IntN(2)])
		dir := filepath.Join(t.TempDir(), "leases")
		s := mustOpen(t, dir)
		mustApply(t, s, set("seed/0", "0"), set("seed/1", "1"))
		s.Close()
		said := runFaulty(t, dir, inject)
		wrong := compare(t, dir, said, strings.TrimPrefix(fault, "error="))
		if wrong != "" {
			t.Errorf("CARRICK_SEED=%d: %s: %s; it said\n%s", seed+i, inject, wrong, strings.Join(said, "\n"))
		}
		last := said[len(said)-1]
		switch {
		case strings.HasPrefix(last, "unopened "):
			unopened++
		case strings.HasPrefix(last, "try "):
			killed++
		case slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, "no ") }):
			refused++
		}
	}
	t.Logf("%d processes from seed %d: %d were refused writes, %d were killed at one, %d could not open the store", count, seed, refused, killed, unopened)
	if count >= 12 && refused+killed == 0 {
		t.Error("no fault had a consequence: the test tests nothing")
	}
}

// runFaulty runs a process that writes, and returns what it said.
func runFaulty(t *testing.T, dir, inject string) []string {
	t.Helper()
	args := []string{"-f", "-qq", "-o", "/dev/null", "-e", inject, "-P", dir}
	for gen := range 9 {
		for _, name := range []string{journalName(uint64(gen)), snapshotName(uint64(gen))} {
			args = append(args, "-P", filepath.Join(dir, name), "-P", filepath.Join(dir, name+".tmp"))
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("strace", append(args, "-P", filepath.Join(dir, lockName), self)...)
	cmd.Env = append(os.Environ(), childEnv+"="+dir, "GOMAXPROCS=1") // strace counts the calls of each thread
	var out bytes.Buffer
	cmd.Stdout = &out
	_ = cmd.Run() // it may have been killed
	var said []string
	for scanner := bufio.NewScanner(&out); scanner.Scan(); {
		said = append(said, scanner.Text())
	}
	if len(said) == 0 {
		said = []string{"try nothing: killed before"}
	}
	return said
}

// compare opens the store that a process has left, and says what is not as that was told.
func compare(t *testing.T, dir string, said []string, fault string) string {
	t.Helper()
	s := mustOpen(t, dir)
	defer s.Close()
	if s.Damage() != "" || s.Mended() != "" {
		return s.Damage() + s.Mended()
	}
	for _, line := range said {
		what, rest, _ := strings.Cut(line, " ")
		key, why, _ := strings.Cut(rest, " ")
		_, there := s.Get(key)
		switch {
		case what == "ok" && !there:
			return key + " is lost"
		case what == "no" && there && !strings.Contains(why, ErrBroken.Error()):
			return key + " is there"
		case (what == "no" || what == "unopened") && !strings.Contains(rest, reasons[fault]):
			return fmt.Sprintf("the reason %q is not given", reasons[fault])
		}
	}
	if _, there := s.Get("seed/1"); !there {
		return "what was there before is lost"
	}
	mustApply(t, s, set("written since", "x"))
	return ""
}
