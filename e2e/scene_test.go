//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/lab"
)

const (
	// patience is how long a condition may take to come true. What is slower than the aims that the scenarios print is
	// not yet wrong: the machine may be busy.
	patience = 90 * time.Second
	// slow is when a condition took so long that one wants to know for what.
	slow = 10 * time.Second
	// every is how often a condition is looked at.
	every = 50 * time.Millisecond
	// logLines is how much of an engine's log is printed when a scenario fails, from the end.
	logLines = 150
)

// A scene is one scenario while it is played. Its methods without an error result end the scenario when they fail, and
// are for its own goroutine; the others may be called from several.
type scene struct {
	*testing.T
	ctx     context.Context
	probing context.Context // ends with the scenario, and the probes with it
	venue   *venue
	hosts   []*lab.Host
	logs    map[string]int // lengths of the engines' logs when it began
	began   time.Time
	scale   scale
	rand    *rand.Rand // by seed and scenario, for the scenario's own goroutine
	spoiled bool       // the hosts are of no use to another scenario
	// Engines were killed while they started containers, and what they leave then, veths, namespaces and rules, is nobody's. What is the
	// plugin's has to be gone.
	littered bool
}

// on calls f for these hosts at once.
func (s *scene) on(hosts []*lab.Host, f func(h *lab.Host) error) {
	s.Helper()
	if err := onAll(hosts, f); err != nil {
		s.Fatal(err)
	}
}

// all calls f for all hosts at once.
func (s *scene) all(f func(h *lab.Host) error) {
	s.Helper()
	s.on(s.hosts, f)
}

func onAll[T any](of []T, f func(T) error) error {
	errs := make([]error, len(of))
	var wg sync.WaitGroup
	for i, h := range of {
		wg.Go(func() { errs[i] = f(h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// must ends the scenario.
func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// docker runs a command that has to succeed.
func (s *scene) docker(h *lab.Host, args ...string) string {
	s.Helper()
	out, err := h.Docker(s.ctx, args...)
	s.must(err)
	return out
}

// refused runs a command that has to fail with a message that holds all these words.
func (s *scene) refused(h *lab.Host, words []string, args ...string) {
	s.Helper()
	out, err := h.Docker(s.ctx, args...)
	if err == nil {
		s.Fatalf("%s: docker %s: succeeded, want an error with %q: %s", h.Name, strings.Join(args, " "), words, out)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			s.Errorf("%s: docker %s:\n\tgot  %v\n\twant %q in it", h.Name, strings.Join(args, " "), err, word)
		}
	}
}

// until waits for f to succeed, says how long that took and what was missing last, and returns how long.
func (s *scene) until(what string, f func() error) time.Duration {
	s.Helper()
	var missing error
	took, err := s.wait(patience, func() error {
		err := f()
		if err != nil {
			missing = err
		}
		return err
	})
	if err != nil {
		s.Fatalf("%s: not after %s: %v", what, took, err)
	}
	s.Logf("%s after %s", what, took)
	if took > slow {
		s.Logf("  until then: %v", missing)
	}
	return took
}

// wait calls f until it succeeds; after limit it returns f's last error.
func (s *scene) wait(limit time.Duration, f func() error) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return since(began), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return since(began), err
		}
	}
}

// pass lets time go by where time itself is what is to be tried.
func (s *scene) pass(d time.Duration) {
	s.Helper()
	s.must(s.rest(d))
}

// rest is pass for several goroutines.
func (s *scene) rest(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-s.ctx.Done():
		return fmt.Errorf("the scenario took longer than its %s", s.scale.timeout)
	}
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// A net is a network that was created on every host with the same words.
type net struct {
	name   string
	v4, v6 netip.Prefix // zero: without that family
}

// nextSubnets returns subnets that no other scenario on these hosts has.
func (s *scene) nextSubnets() (v4, v6 netip.Prefix) {
	s.venue.subnet++
	n := s.venue.subnet
	return netip.MustParsePrefix(fmt.Sprintf("10.80.%d.0/24", n)), netip.MustParsePrefix(fmt.Sprintf("fd00:80:%x::/64", n))
}

// network creates a network of the default mode, overlay, with both families on all hosts.
func (s *scene) network(name string, flags ...string) net {
	s.Helper()
	n := net{name: name}
	n.v4, n.v6 = s.nextSubnets()
	flags = append([]string{"--ipv6", "--subnet", n.v4.String(), "--subnet", n.v6.String()}, flags...)
	s.all(func(h *lab.Host) error { return s.create(h, name, flags...) })
	return n
}

// create creates a network on one host.
func (s *scene) create(h *lab.Host, name string, flags ...string) error {
	_, err := h.Docker(s.ctx, createArgs(name, flags...)...)
	return err
}

func createArgs(name string, flags ...string) []string {
	args := append([]string{"network", "create", "-d", plugin, "--ipam-driver", plugin}, flags...)
	return append(args, name)
}

// at returns the n-th address of a subnet.
func at(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// explain prints what helps to understand a failure.
func (s *scene) explain() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), tidyTimeout)
	defer cancel()
	for _, h := range s.hosts {
		if !h.Running() {
			s.Logf("%s is off", h.Name)
			continue
		}
		for _, verb := range []string{"status", "networks", "endpoints", "ipam blocks"} {
			out, err := h.Run(ctx, append([]string{binary}, strings.Fields(verb)...)...)
			s.Logf("%s: carrick %s:\n%s\n%v", h.Name, verb, out, err)
		}
		out, err := h.Docker(ctx, "ps", "-a", "--no-trunc", "--format", "{{.Names}}\t{{.Status}}\t{{.Networks}}")
		s.Logf("%s: docker ps:\n%s\n%v", h.Name, out, err)
		if dump, err := h.Dump(ctx); err == nil {
			s.Logf("%s: what the kernel holds beyond an empty host:\n%s", h.Name, comparable(s.venue.empty[h.Name]).Diff(comparable(dump)))
		}
		s.Logf("%s: the engine's log since the scenario began:\n%s", h.Name, s.engineLog(h))
	}
}

// engineLog is what the engine, and in it the plugin, has written since the scenario began.
func (s *scene) engineLog(h *lab.Host) string {
	text, err := h.EngineLog()
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(text[min(s.logs[h.Name], len(text)):], "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}
