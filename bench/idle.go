package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// foreignLimit is the part of one processor that others may use during a sample. With more, it is repeated.
	foreignLimit = 0.06
	// idleWindow is how long the machine has to be idle before a sample.
	idleWindow = 200 * time.Millisecond
	// idleTries is how many windows are waited for one that is idle, and sampleTries how often a sample is repeated.
	idleTries, sampleTries = 25, 3
	// ticks a second of times in /proc: USER_HZ, time(7), the same on all machines.
	ticks = 100
)

// A gate keeps samples away from the load of others, in bounded time: when patience is used up, samples are taken as they
// come, and counted.
type gate struct {
	patience  time.Duration // left for waiting and repeating
	samples   int
	repeated  int
	disturbed int // samples that were kept though others were at work
}

// sample calls take, at an idle time, and again if it fails or if others were at work meanwhile.
func (g *gate) sample(ctx context.Context, take func() error) error {
	g.samples++
	for try := 1; ; try++ {
		began := time.Now()
		if err := g.wait(ctx); err != nil {
			return err
		}
		before, start := foreign(), time.Now()
		if err := take(); err != nil {
			if try == sampleTries || ctx.Err() != nil {
				return err
			}
			g.repeated++
			continue
		}
		if others(before, foreign(), time.Since(start)) <= foreignLimit {
			return nil
		}
		g.patience -= time.Since(began)
		if try == sampleTries || g.patience <= 0 {
			g.disturbed++
			return nil
		}
		g.repeated++
	}
}

// wait returns when others were idle for a window, or at the end of its patience.
func (g *gate) wait(ctx context.Context) error {
	for range idleTries {
		before, start := foreign(), time.Now()
		select {
		case <-time.After(idleWindow):
		case <-ctx.Done():
			return ctx.Err()
		}
		took := time.Since(start)
		if others(before, foreign(), took) <= foreignLimit || g.patience <= 0 {
			return nil
		}
		g.patience -= took
	}
	return nil
}

// others is how many processors others used between two looks.
func others(before, after int, took time.Duration) float64 {
	return max(0, float64(after-before)/ticks/took.Seconds())
}

// foreign is the time that processes other than this one, what it has started, and the kernel's own have used, with that
// of their children that have ended, and what the hypervisor gave to others; in ticks.
func foreign() int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // fails for a bad pattern only
	all := map[int]process{}
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		all[pid] = process{field(stat, 4), field(stat, 14) + field(stat, 15), field(stat, 16) + field(stat, 17)}
	}
	return stolen() + usedByOthers(all, os.Getpid())
}

// process is what /proc says of one: its parent, and the ticks that it and its children that have ended have used.
type process struct{ parent, used, children int }

// usedByOthers is what all used but self and its descendants, and those of kthreadd. Of init only what it used itself: a
// command in a host's PID namespace that ends after the nsenter that started it ends as a child of init.
func usedByOthers(all map[int]process, self int) (sum int) {
	const initPID, kthreadd = 1, 2
	for pid, p := range all {
		at := pid
		for at > initPID && at != self && at != kthreadd {
			at = all[at].parent
		}
		switch {
		case at == self || at == kthreadd:
		case pid == initPID:
			sum += p.used
		default:
			sum += p.used + p.children
		}
	}
	return sum
}

// field is the n-th field of /proc/PID/stat, counted from 1 as in proc_pid_stat(5). The second, in parentheses, may hold
// anything.
func field(stat []byte, n int) int {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if n-3 >= len(fields) {
		return 0
	}
	v, _ := strconv.Atoi(string(fields[n-3]))
	return v
}

// stolen is the ninth field of the first line of /proc/stat.
func stolen() int {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0
	}
	v, _ := strconv.Atoi(fields[8])
	return v
}
