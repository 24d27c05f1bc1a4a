package sim

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"
)

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

// TestHistories plays SIM_HISTORIES histories from SIM_SEED on; SIM_TRACE=1 prints every event of the first.
func TestHistories(t *testing.T) {
	count, seed := setting(t, "SIM_HISTORIES", 100), setting(t, "SIM_SEED", 1)
	if os.Getenv("SIM_TRACE") != "" {
		if _, err := Play(Plan{Seed: seed, Hosts: 5, Trace: t.Logf}); err != nil {
			t.Error(err)
		}
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a history is small, and over soon
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
	t.Logf("%d histories from seed %d in %v: %+v", min(count, next-seed), seed, time.Since(began).Round(time.Millisecond), sum)
}
