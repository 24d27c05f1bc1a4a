package main

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestASampleThatFailsIsTakenAgain(t *testing.T) {
	fails := errors.New("no")
	for _, c := range []struct {
		failing, calls int
		err            error
	}{{0, 1, nil}, {1, 2, nil}, {sampleTries, sampleTries, fails}} {
		var g gate // without patience: it waits for nobody
		calls := 0
		err := g.sample(t.Context(), func() error {
			if calls++; calls <= c.failing {
				return fails
			}
			return nil
		})
		if !errors.Is(err, c.err) || calls != c.calls || g.samples != 1 || g.repeated != c.calls-1 {
			t.Errorf("%d failures: %v after %d calls, %+v", c.failing, err, calls, g)
		}
	}
}

func TestWhatOthersHaveUsed(t *testing.T) {
	const self = 50
	all := map[int]process{
		1:    {0, 3, 1000},   // init, and what it has reaped, which may have been ours
		2:    {0, 1000, 0},   // kthreadd and a thread of the kernel
		20:   {2, 1000, 0},   //
		40:   {1, 20, 100},   // a daemon and its child
		41:   {40, 500, 0},   //
		self: {40, 1000, 10}, // we, a child and its child
		51:   {self, 1000, 10},
		52:   {51, 1000, 0},
		60:   {59, 7000, 0}, // its parent ended while we were looking
	}
	if got := usedByOthers(all, self); got != 7623 {
		t.Errorf("%d ticks, want 7623", got)
	}
}

func TestFieldsOfAProcess(t *testing.T) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if parent := field(stat, 4); parent != os.Getppid() {
		t.Errorf("the fourth field is %d, the parent is %d", parent, os.Getppid())
	}
	if n := field([]byte("7 (a) b ) c) S 3 4"), 4); n != 3 {
		t.Errorf("behind a name with a parenthesis the fourth field is %d, want 3", n)
	}
	if got := others(100, 150, time.Second); got != 0.5 {
		t.Errorf("half a second of work in one: %.2f processors", got)
	}
}
