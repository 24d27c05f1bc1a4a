//go:build flaws

package sim

import (
	"runtime"
	"sync"
	"testing"

	"github.com/carricknet/carrick/ipam/ledger"
)

// TestPlantedFlaws shows that the checks can fail: each mistake, in the ledger or in the world around it, is found within
// SIM_WITHIN histories.
func TestPlantedFlaws(t *testing.T) {
	within := setting(t, "SIM_WITHIN", 3000)
	defer ledger.Plant("")
	all := 0
	look := func(name string, flaw Flaw) {
		all++
		t.Run(name, func(t *testing.T) {
			if seed, err := firstBroken(flaw, within); err != nil {
				t.Logf("found by history %d: %v", seed, err)
			} else {
				t.Errorf("not found in %d histories", within)
			}
		})
	}
	for _, name := range ledger.Flaws() {
		ledger.Plant(name)
		look(name, NoFlaw)
	}
	ledger.Plant("")
	for _, flaw := range Flaws {
		look(string(flaw), flaw)
	}
	if all < 30 {
		t.Errorf("only %d mistakes are planted", all)
	}
}

// firstBroken plays histories from seed 1 on until one breaks a promise.
func firstBroken(flaw Flaw, within uint64) (uint64, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next, first uint64
	var broken error
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				next++
				seed := next
				over := broken != nil || seed > within
				mu.Unlock()
				if over {
					return
				}
				_, err := Play(Plan{Seed: seed, Hosts: 5, Flaw: flaw})
				mu.Lock()
				if err != nil && (broken == nil || seed < first) {
					first, broken = seed, err
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return first, broken
}
