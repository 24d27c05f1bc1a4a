package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a condition is looked at that the kernel or an engine cannot tell us of.
const pollEvery = 20 * time.Millisecond

// process is one process of this machine. The time of its start, in clock ticks since boot (field 22 of proc_pid_stat(5)),
// tells it from a later one that got the same number. The zero value is no process.
type process struct {
	pid   int
	start uint64
}

func findProcess(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	// The name of the program is in parentheses and may itself hold spaces and parentheses.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 20 {
		return process{}, fmt.Errorf("/proc/%d/stat: unexpected %q", pid, stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return process{}, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	return process{pid, start}, err
}

func (p process) alive() bool {
	now, err := findProcess(p.pid)
	return p.pid != 0 && err == nil && now == p
}

// end sends sig and returns when the process is gone.
func (p process) end(ctx context.Context, sig unix.Signal) error {
	fd, err := p.open()
	if fd < 0 || err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d to process %d: %w", sig, p.pid, err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(pollEvery/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("process %d has not ended: %w", p.pid, ctx.Err())
		}
	}
}

// open returns a pidfd of the process, or -1 if it has ended.
func (p process) open() (int, error) {
	if p.pid == 0 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", p.pid, err)
	}
	// Only now, with the number held by the descriptor, is the comparison of any worth.
	if !p.alive() {
		unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// named matches processes by the name of their program.
func named(comm string) func(dir string) bool {
	return func(dir string) bool {
		name, err := os.ReadFile(dir + "/comm")
		return err == nil && strings.TrimSuffix(string(name), "\n") == comm
	}
}

// numbered matches the process that has this number in the innermost PID namespace it is in.
func numbered(pid string) func(dir string) bool {
	return func(dir string) bool {
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			return false
		}
		_, after, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ := strings.Cut(after, "\n")
		numbers := strings.Fields(line)
		return len(numbers) > 0 && numbers[len(numbers)-1] == pid
	}
}

// findIn returns a process in the PID namespace that first is in, or the zero process. Those of containers, which are in
// PID namespaces below it, are not looked at.
func findIn(first process, match func(dir string) bool) (process, error) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first.pid))
	if err != nil {
		return process{}, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return process{}, err
	}
	for _, dir := range dirs {
		if !match(dir) {
			continue
		}
		if is, err := os.Readlink(dir + "/ns/pid"); err != nil || is != ns {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return process{}, err
		}
		if p, err := findProcess(pid); err == nil {
			return p, nil
		}
	}
	return process{}, nil
}

// poll calls done until it reports true or fails, or ctx ends; the error then names what was waited for.
func poll(ctx context.Context, what string, done func() (bool, error)) error {
	return pollAt(ctx, pollEvery, what, done)
}

func pollAt(ctx context.Context, every time.Duration, what string, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}
