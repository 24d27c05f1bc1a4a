//go:build nemesis

package cluster

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/carricknet/carrick/docs/report"
)

// roundLength is for how long things go wrong in a round.
const roundLength = 4 * time.Second

// TestNemesis plays rounds for NEMESIS_TIME, 8 s if it is not set, the first with the seed NEMESIS_SEED and each further one
// with the next number. A seed repeats the faults and the wishes of the clients; who comes first is up to the machine.
func TestNemesis(t *testing.T) {
	length, seed := 8*time.Second, uint64(time.Now().UnixNano())
	var err error
	if s := os.Getenv("NEMESIS_TIME"); s != "" {
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("NEMESIS_TIME: %v", err)
		}
	}
	if s := os.Getenv("NEMESIS_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("NEMESIS_SEED: %v", err)
		}
	}
	var rounds, failed, faults, acts, lost int
	begin := time.Now()
	first := seed
	for ; rounds == 0 || time.Since(begin) < length && !t.Failed(); seed++ {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := newRound(t, seed, nil)
			for _, w := range r.play(roundLength) {
				t.Errorf("seed %d: %s", seed, w)
			}
			t.Logf("%d faults, %d acts, %d lost answers", r.faults, len(r.history.all), r.history.lost)
			faults, acts, lost = faults+r.faults, acts+len(r.history.all), lost+r.history.lost
		})
		if rounds++; !ok {
			failed++
		}
	}
	t.Logf("%d rounds in %v up to seed %d: %d faults, %d acts, %d lost answers", rounds, time.Since(begin).Round(time.Second), seed-1, faults, acts, lost)
	if acts == 0 {
		t.Error("nothing happened")
	}
	if os.Getenv("NEMESIS_RECORD") != "" {
		if err := report.Add(report.Nemesis, first, time.Since(begin).Round(time.Second), rounds, faults, acts, lost, failed); err != nil {
			t.Error(err)
		}
	}
}
