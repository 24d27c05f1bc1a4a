package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The contestants: what is measured side by side.
const (
	underlay       = "underlay" // no network of containers at all
	noNetwork      = "none"     // docker run --network none
	carrickOverlay = "carrick-overlay"
	carrickBridge  = "carrick-bridge"
	dockerOverlay  = "docker-overlay"
	dockerBridge   = "docker-bridge"
	rebuiltOverlay = "rebuilt-overlay"

	// Behind noNetwork: whose hosts.
	atCarrick, atDocker, atBridges = " on a host of Carrick's overlay", " on a host of Docker's", " on the host of bridges"
)

// sampleTime is how long traffic is measured at a time; a stream longer, as iperf3 has only ten intervals a second.
const (
	sampleTime = time.Second
	streamTime = 2 * time.Second
)

// A sampler measures once; what it returns has names.
type sampler func(context.Context) (map[string]float64, error)

// A cell is one thing that is measured in the same way of several contestants, one after the other in each round.
type cell struct {
	name string
	wire string // how the wire is set; empty: any way
	of   map[string]sampler
}

// The wire between hosts. Segments of 64 kB that travel whole stand for a card that segments and coalesces tunnelled frames
// itself; most do the first in software and have GRO, so that is what everything else is measured with.
const (
	wireGRO   = "gro"
	wireWhole = "whole"
)

var wires = map[string][]string{
	wireGRO: {"gso", "off", "tso", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off",
		"tx-udp-segmentation", "off", "gro", "on"},
	wireWhole: {"gso", "on", "tso", "on", "tx-udp_tnl-segmentation", "on", "tx-udp_tnl-csum-segmentation", "on",
		"tx-udp-segmentation", "on", "gro", "off"},
}

// setWire sets the network cards of all hosts.
func (s *site) setWire(ctx context.Context, wire string) error {
	for _, h := range s.lab.Hosts {
		if _, err := h.Run(ctx, append([]string{"ethtool", "-K", "eth0"}, wires[wire]...)...); err != nil {
			return err
		}
	}
	return nil
}

// cells are all that is measured in the lab.
func (s *site) cells(swarm bool) []cell {
	last := runtime.NumCPU() - 1
	one, other, all := strconv.Itoa(last), strconv.Itoa(max(0, last-1)), "0-"+strconv.Itoa(last)
	traffic := map[string]func(path) sampler{
		"tcp1": func(p path) sampler { return p.tcp(1, one) },
		"tcp4": func(p path) sampler { return p.tcp(4, all) },
		"rr":   func(p path) sampler { return p.load("rr", one, one) },
		"crr":  func(p path) sampler { return p.load("crr", one, one) },
		"udp":  func(p path) sampler { return p.load("udp", one, other) },
	}
	var cells []cell
	for kind, measure := range traffic {
		for _, wire := range []string{wireGRO, wireWhole} {
			if wire == wireWhole && !strings.HasPrefix(kind, "tcp") {
				continue
			}
			c := cell{name: kind + " " + wire, wire: wire, of: map[string]sampler{}}
			for name, p := range s.paths {
				if strings.HasSuffix(name, "-internal") || name == rebuiltOverlay && swarm && wire == wireWhole {
					continue
				}
				c.of[name] = measure(p)
			}
			cells = append(cells, c)
		}
		if kind == "tcp4" {
			continue
		}
		c := cell{name: kind + " local", of: map[string]sampler{}}
		for name, p := range s.local {
			if !strings.HasSuffix(name, "-internal") {
				c.of[name] = measure(p)
			}
		}
		cells = append(cells, c)
	}
	cells = append(cells, s.runCell(swarm), s.firstCell(swarm), s.addressCell())
	slices.SortFunc(cells, func(a, b cell) int { return strings.Compare(a.name, b.name) }) // a seed gives the same order again
	return cells
}

// waiting is how long all samples of a round may wait for an idle machine or be repeated, unless told otherwise: ten rounds
// end within half an hour on a machine that is never idle, too.
const waiting = 45 * time.Second

// play measures everything once in each round, cells and contestants in random order.
func (s *site) play(ctx context.Context, o options, b *book, logf func(string, ...any)) error {
	order := rand.New(rand.NewPCG(o.seed, 0))
	cells := slices.DeleteFunc(s.cells(o.overlay == "swarm"), func(c cell) bool { return !o.wants(c) })
	wire := ""
	for round := range o.rounds {
		b.gate.patience = o.wait
		for _, i := range order.Perm(len(cells)) {
			c := cells[i]
			if c.wire != "" && c.wire != wire {
				if err := s.setWire(ctx, c.wire); err != nil {
					return err
				}
				wire = c.wire
			}
			contestants := sorted(c.of)
			order.Shuffle(len(contestants), func(i, j int) { contestants[i], contestants[j] = contestants[j], contestants[i] })
			for _, name := range contestants {
				if err := b.sample(ctx, round, c, name); err != nil {
					return fmt.Errorf("round %d: %s: %s: %w", round+1, c.name, name, err)
				}
			}
		}
		logf("round %d of %d: %d samples, %d repeated, %d disturbed", round+1, o.rounds, b.gate.samples, b.gate.repeated, b.gate.disturbed)
	}
	return nil
}

// sampleLimit bounds one sample: the longest wait is for a first reply.
const sampleLimit = 2 * time.Minute

func (b *book) sample(ctx context.Context, round int, c cell, name string) error {
	ctx, cancel := context.WithTimeout(ctx, sampleLimit)
	defer cancel()
	var got map[string]float64
	err := b.gate.sample(ctx, func() (err error) {
		got, err = c.of[name](ctx)
		return err
	})
	if err != nil {
		return err
	}
	for value, v := range got {
		b.put(round, key(c.name, name, value), v)
	}
	return nil
}

func key(cell, contestant, value string) string { return cell + "/" + contestant + "/" + value }

// put keeps a value. Rounds without one are NaN.
func (b *book) put(round int, key string, v float64) {
	for len(b.values[key]) <= round {
		b.values[key] = append(b.values[key], math.NaN())
	}
	b.values[key][round] = v
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
