//go:build e2e && soak

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/docs/report"
	"github.com/carricknet/carrick/lab"
)

const (
	// What a plugin that has nothing to do may need more at the end of a soak than at its beginning. A leak of one piece
	// for each container or for each restart would be hundreds.
	moreFiles      = 20
	moreGoroutines = 20
	moreMemory     = 64 << 20 // bytes; the garbage collector lets a heap double
)

// TestSoak plays the chaos scenarios in random order until SOAK_TIME (default: an hour) is over, each as often as the
// others, and adds its figures to the report.
func TestSoak(t *testing.T) {
	venues, err := lab.Chosen()
	if err != nil {
		t.Fatal(err)
	}
	length, err := time.ParseDuration(cmp.Or(os.Getenv("SOAK_TIME"), "1h"))
	if err != nil {
		t.Fatalf("SOAK_TIME: %v", err)
	}
	seed, err := chosenSeed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("CARRICK_SEED=%d SOAK_TIME=%s", seed, length)
	var writing sync.Mutex
	for _, name := range venues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &venue{name: name, scale: chosenScale(), seed: seed}
			t.Cleanup(func() { v.close(t) })
			began := time.Now()
			v.soak(t, length)
			took := time.Since(began).Round(time.Second)
			t.Log(v.timetable())
			t.Logf("soak of engine %s, seed %d, %s: %s", name, seed, took, &v.figures)
			writing.Lock()
			defer writing.Unlock()
			if err := v.report(took); err != nil {
				t.Error(err)
			}
		})
	}
}

// soak plays until length is over.
func (v *venue) soak(t *testing.T, length time.Duration) {
	end := time.Now().Add(length)
	seed := v.seed
	order := random(seed, "order")
	var bag []scenario
	var first map[string]footprint
	for round := 1; time.Now().Before(end); round++ {
		if len(bag) == 0 {
			bag = slices.Clone(chaos)
			order.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		sc := bag[0]
		bag = bag[1:]
		v.seed = seed + uint64(round)
		t.Run(fmt.Sprintf("%03d-%s", round, sc.name), func(t *testing.T) {
			v.play(t, sc)
			if v.lab == nil {
				return // the next one has new hosts
			}
			ctx, cancel := context.WithTimeout(t.Context(), tidyTimeout)
			defer cancel()
			s := &scene{T: t, ctx: ctx, venue: v, hosts: v.lab.Hosts, scale: v.scale}
			s.nothingReserved()
			now := v.look(t)
			if first == nil {
				first = now
			}
			for host, is := range now {
				was := first[host]
				t.Logf("%s: %s", host, is)
				if is.files > was.files+moreFiles || is.memory > 2*was.memory+moreMemory {
					t.Errorf("%s: the plugin needs more and more: %s, after the first round %s", host, is, was)
				}
			}
		})
	}
	v.seed = seed
	t.Run("goroutines", v.goroutines)
}

// A footprint is what the plugin of a host needs.
type footprint struct {
	memory         int64 // resident, bytes
	threads, files int
	state          int64         // on disk, bytes
	age            time.Duration // since its last start
}

func (f footprint) String() string {
	return fmt.Sprintf("%d MiB, %d threads, %d files, %d KiB of state, up for %s", f.memory>>20, f.threads, f.files, f.state>>10, f.age)
}

// look measures every host.
func (v *venue) look(t *testing.T) map[string]footprint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), tidyTimeout)
	defer cancel()
	all := map[string]footprint{}
	for _, h := range v.lab.Hosts {
		pid, err := h.PluginPID(ctx, plugin)
		if err != nil {
			t.Fatal(err)
		}
		text, err := h.Run(ctx, "sh", "-euc", `
			awk '/^VmRSS:/ { rss = $2 } /^Threads:/ { threads = $2 } END { print rss, threads }' /proc/$0/status
			ls /proc/$0/fd | wc -l
			du -sk /var/lib/docker/plugins/*/propagated-mount | cut -f1
			ps -o etimes= -p $0`, strconv.Itoa(pid))
		if err != nil {
			t.Fatal(err)
		}
		var f footprint
		var age int
		if _, err := fmt.Sscan(text, &f.memory, &f.threads, &f.files, &f.state, &age); err != nil {
			t.Fatalf("%s: %q: %v", h.Name, text, err)
		}
		f.memory, f.state, f.age = f.memory<<10, f.state<<10, time.Duration(age)*time.Second
		all[h.Name] = f
	}
	return all
}

// goroutine is a heading of what Go prints at SIGQUIT, with addresses since 1.23.
var goroutine = regexp.MustCompile(`goroutine \d+ (gp=\S+ m=\S+ (mp=\S+ )?)?\[`)

// goroutines ends the plugin with SIGQUIT, at which Go prints what there is, and compares with one that has just started.
func (v *venue) goroutines(t *testing.T) {
	if v.lab == nil {
		t.Log("the last scenario has left no hosts: there is nothing to count")
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), v.scale.timeout)
	defer cancel()
	s := &scene{T: t, ctx: ctx, venue: v, hosts: v.lab.Hosts, scale: v.scale}
	before := s.countGoroutines()
	s.joined(s.hosts...)
	s.pass(2 * aPoll)
	after := s.countGoroutines()
	for i, h := range s.hosts {
		t.Logf("%s: %d goroutines, %d in a plugin that has just started", h.Name, before[i], after[i])
		if before[i] > after[i]+moreGoroutines || before[i] == 0 {
			t.Errorf("%s: want at most %d more, and some", h.Name, moreGoroutines)
		}
	}
}

// aPoll is how long one waits for what a host that has started does once.
const aPoll = 15 * time.Second

// countGoroutines by host, in the order of hosts.
func (s *scene) countGoroutines() []int {
	s.Helper()
	counts := make([]int, len(s.hosts))
	s.logs = s.venue.logSizes()
	s.all(func(h *lab.Host) error {
		pid, err := h.PluginPID(s.ctx, plugin)
		if err != nil {
			return err
		}
		if _, err := h.Run(s.ctx, "kill", "-QUIT", strconv.Itoa(pid)); err != nil {
			return err
		}
		if err := s.started(h, pid); err != nil {
			return err
		}
		text, err := h.EngineLog()
		counts[s.index(h)] = len(goroutine.FindAllString(text[s.logs[h.Name]:], -1))
		return err
	})
	return counts
}

// report adds a line to the table in the report.
func (v *venue) report(took time.Duration) error {
	f := &v.figures
	return report.Add(report.Soaks, v.name, v.seed, took, f.scenarios.Load(), f.failed.Load(), f.pluginKills.Load(), f.engineKills.Load(),
		f.containers.Load(), f.addresses.Load(), f.packets.Load(), f.lost.Load(), f.leaks.Load())
}
