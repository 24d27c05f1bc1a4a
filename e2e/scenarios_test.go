//go:build e2e

package e2e

import (
	"slices"
	"testing"

	"github.com/carricknet/carrick/lab"
)

// A scenario is a sentence about the plugin, and its proof.
type scenario struct {
	name string
	run  func(s *scene)
}

// scenarios in the order in which they run: those that do more to the hosts come later. A host that was switched off, which
// begins with ADeadHostIsForgotten, cannot be compared with a dump of before: docker_gwbridge has another MAC address.
var scenarios = slices.Concat(
	modes, options, joining, addresses, ipam, choosing, containers, badInput,
	firstPacket, faults, drift, starts, partitions, anyOrder, leftovers,
	settings, upgrades, membership, attacks, swarms, reboots, hostsComeAndGo,
)

// chaos are those that a soak plays for hours.
var chaos = slices.Concat(firstPacket, faults, drift, starts, partitions, anyOrder, leftovers, membership, reboots, hostsComeAndGo)

// TestScenarios runs every scenario on every engine, and on hosts whose engines differ: as many venues at once as
// `go test -parallel` allows. A venue mostly waits, and needs a fifth of a processor.
func TestScenarios(t *testing.T) {
	venues, err := lab.Chosen()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := chosenSeed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("CARRICK_SEED=%d", seed)
	for _, name := range venues {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &venue{name: name, scale: chosenScale(), seed: seed}
			t.Cleanup(func() { v.close(t) })
			for _, sc := range scenarios {
				t.Run(sc.name, func(t *testing.T) { v.play(t, sc) })
			}
			t.Log(v.timetable())
			t.Log(&v.figures)
			v.close(t) // they have the same name
			five := &venue{name: name, size: 5, scale: v.scale, seed: seed}
			t.Cleanup(func() { five.close(t) })
			for _, sc := range fiveHosts {
				t.Run(sc.name, func(t *testing.T) { five.play(t, sc) })
			}
			t.Log(&five.figures)
		})
	}
}
