//go:build e2e && soak

package e2e

import (
	"cmp"
	"os"
	"testing"
	"time"

	"github.com/carricknet/carrick/docs/report"
	"github.com/carricknet/carrick/lab"
)

const (
	// besides is how much longer than its chaos a soak of lifecycles may take: hosts boot, and busy machines need longer for as many.
	besides = 2 * time.Hour
)

// TestSoakLifecycles plays LifecyclesUnderChaos for LIFECYCLES_TIME (default: 20 minutes), and until there were 2,000 of them for
// each 20 minutes, on each of the engines chosen, and adds its figures to the report.
func TestSoakLifecycles(t *testing.T) {
	venues, err := lab.Chosen()
	if err != nil {
		t.Fatal(err)
	}
	long := soak
	if long.living, err = time.ParseDuration(cmp.Or(os.Getenv("LIFECYCLES_TIME"), soak.living.String())); err != nil {
		t.Fatalf("LIFECYCLES_TIME: %v", err)
	}
	long.lives = int(float64(soak.lives) * long.living.Seconds() / soak.living.Seconds())
	long.timeout = long.living + besides
	seed, err := chosenSeed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("CARRICK_SEED=%d LIFECYCLES_TIME=%s", seed, long.living)
	for _, name := range venues {
		t.Run(name, func(t *testing.T) {
			v := &venue{name: name, size: 5, scale: long, seed: seed}
			t.Cleanup(func() { v.close(t) })
			began := time.Now()
			var l *lives
			t.Run("LifecyclesUnderChaos", func(t *testing.T) {
				v.play(t, scenario{"LifecyclesUnderChaos", func(s *scene) {
					l = newLives(s)
					l.play()
				}})
			})
			if l == nil {
				return // no host was there
			}
			if err := v.reportLives(l, time.Since(began).Round(time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
}

// reportLives adds a line to the table in the report.
func (v *venue) reportLives(l *lives, took time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	grace := "not all"
	if l.waited != 0 {
		grace = l.waited.Round(time.Second).String()
	}
	return report.Add(report.Lifecycles, v.name, v.seed, took, l.ended.Load(), l.cut.Load(), counts(l.refused), counts(l.disaster),
		l.register.most(), len(l.register.duplicates()), grace, v.figures.leaks.Load(), v.figures.failed.Load())
}
