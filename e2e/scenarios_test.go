//go:build e2e

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// defaultEngines are the oldest and the newest that the lab has.
const defaultEngines = "20.10,28.5"

// A scenario is a sentence about the plugin, and its proof.
type scenario struct {
	name string
	run  func(s *scene)
}

// scenarios in the order in which they run: those that do more to the hosts come later. A host that was switched off
// cannot be compared with a dump of before: docker_gwbridge has another MAC address.
var scenarios = slices.Concat(
	modes, options, joining, addresses, containers, badInput,
	firstPacket, faults, starts, partitions, leftovers,
	settings, membership, reboots,
)

// TestScenarios runs every scenario on every engine, one engine after the other: two labs of three hosts are too much
// for two processors.
func TestScenarios(t *testing.T) {
	engines := os.Getenv("CARRICK_ENGINES")
	if engines == "" {
		engines = defaultEngines
	}
	for engine := range strings.SplitSeq(engines, ",") {
		t.Run(engine, func(t *testing.T) {
			began := time.Now()
			v := &venue{engine: engine}
			t.Cleanup(func() { v.close(t) })
			for _, sc := range scenarios {
				t.Run(sc.name, func(t *testing.T) { v.play(t, sc) })
			}
			t.Logf("engine %s: all scenarios took %s", engine, since(began))
		})
	}
}
