package sim

import (
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/docs/report"
)

// TestSameSeedSameHistory shows that a history can be played again.
func TestSameSeedSameHistory(t *testing.T) {
	play := func(seed uint64) (events int, sum uint64) {
		h := fnv.New64a()
		_, _ = Play(Plan{Seed: seed, Hosts: 5, Trace: func(format string, args ...any) {
			events++
			_, _ = fmt.Fprintf(h, format+"\n", args...)
		}})
		return events, h.Sum64()
	}
	all := 0
	for seed := range uint64(30) {
		events, sum := play(seed)
		if again, other := play(seed); again != events || other != sum {
			t.Errorf("history %d had %d events, and %d when it was played again, or others", seed, events, again)
		}
		all += events
	}
	t.Logf("%d events", all)
}

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, s)
	}
	return n
}

// TestHistories plays SIM_HISTORIES histories from SIM_SEED on; SIM_TRACE=1 prints every event of the first, and SIM_RECORD=1 adds the
// figures to the report.
func TestHistories(t *testing.T) {
	count, seed := setting(t, "SIM_HISTORIES", 100), setting(t, "SIM_SEED", 1)
	if os.Getenv("SIM_TRACE") != "" {
		if _, err := Play(Plan{Seed: seed, Hosts: 5, Trace: t.Logf}); err != nil {
			t.Error(err)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a history is small, and over soon
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(512 << 20))
	var mu sync.Mutex
	var sum Figures
	var wg sync.WaitGroup
	next, broken, began := seed, 0, time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				mine := next
				next++
				stop := mine >= seed+count || broken >= 5
				mu.Unlock()
				if stop {
					return
				}
				figures, err := Play(Plan{Seed: mine, Hosts: 5})
				mu.Lock()
				sum.Add(figures)
				if err != nil {
					broken++
					t.Errorf("SIM_SEED=%d: %v", mine, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d histories from seed %d in %v: %+v", min(count, next-seed), seed, took.Round(time.Millisecond), sum)
	if os.Getenv("SIM_RECORD") != "" {
		if err := report.Add(report.Histories, seed, min(count, next-seed), took.Round(time.Second), sum.Given, sum.Refused, sum.Kills, sum.PowerLosses,
			sum.Forgotten, broken); err != nil {
			t.Error(err)
		}
	}
}
