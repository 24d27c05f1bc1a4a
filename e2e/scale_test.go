//go:build e2e

package e2e

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// A scale is how long and how often the scenarios do what they do to hosts. What a scenario proves is the same in each.
type scale struct {
	timeout time.Duration // ends a scenario that hangs

	// away is how long a plugin is disabled and a host is cut off: longer than memberlist needs to declare a node dead
	// (at most 12 s), and than the entries of neighbours live (53 s).
	away       time.Duration
	pairAway   time.Duration // how long two hosts do not hear each other, but the third
	engineAway time.Duration // how long dockerd is dead
	restored   time.Duration // how long one watches before, and after, dockerd is there again with --live-restore
	firstReply time.Duration // how long one watches from the first reply of a new container on

	pluginKills int // how often the plugin is killed under traffic: on each host, then on all at once
	starts      int // containers that start on each host while its plugin is killed
	startKills  int // how often it is killed meanwhile
	mishaps     int // how often two hosts have one at the same time

	lives   int           // containers that are started and removed under chaos, at least
	living  time.Duration // for how long, at least
	workers int           // that do so, on each host
	stay    time.Duration // how long a container stays, at most
}

// ci is what every run does; soak what runs for hours, with CARRICK_SOAK=1.
var (
	ci = scale{
		timeout: 12 * time.Minute, // the longest takes five on a machine that is busy, most of it waiting for leases to end
		away:    time.Minute, pairAway: 20 * time.Second, engineAway: 15 * time.Second,
		restored: 5 * time.Second, firstReply: 10 * time.Second,
		pluginKills: 1, starts: 10, startKills: 2, mishaps: 4,
		lives: 40, living: 25 * time.Second, workers: 2, stay: 3 * time.Second,
	}
	soak = scale{
		timeout: 30 * time.Minute,
		away:    10 * time.Minute, pairAway: 5 * time.Minute, engineAway: 5 * time.Minute,
		restored: time.Minute, firstReply: time.Minute,
		pluginKills: 25, // 100 kills of one plugin, and as many of all hosts together
		starts:      20, startKills: 5, mishaps: 20,
		lives: 2000, living: 20 * time.Minute, workers: 4, stay: 10 * time.Second,
	}
)

// chosenScale is the one that the environment asks for.
func chosenScale() scale {
	if os.Getenv("CARRICK_SOAK") == "1" {
		return soak
	}
	return ci
}

// chosenSeed is the environment's CARRICK_SEED, or another one every time. Whoever uses it prints it.
func chosenSeed() (uint64, error) {
	text := os.Getenv("CARRICK_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano()), nil
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("CARRICK_SEED=%q: want a number", text)
	}
	return seed, nil
}

// random gives a scenario the same numbers whenever it has the same seed, whatever ran before it.
func random(seed uint64, scenario string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(scenario))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}
