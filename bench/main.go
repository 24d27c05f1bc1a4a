// Command bench measures Carrick beside Docker's own bridge and overlay, in one lab of hosts with real engines, and writes
// what it found as docs/benchmarks.md. `make bench` builds the plugin and runs it. Nothing else is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// fullRounds is how many rounds the page in the repository rests on at least: with fewer, quartiles say little.
const fullRounds = 10

// valuesFile gets every value of every round, for whoever wants to look closer.
const valuesFile = "build/benchmarks.json"

// controlFile gets the figures of the control plane, and goes with `make clean`.
const controlFile = "build/control.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted; everything is removed")
		os.Exit(130) // as a shell reports SIGINT
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	began := time.Now()
	logf := func(format string, args ...any) {
		fmt.Fprintf(out, "%5.0f s  "+format+"\n", append([]any{time.Since(began).Seconds()}, args...)...)
	}
	b := &book{values: map[string][]float64{}, began: began, rounds: o.rounds, seed: o.seed, overlay: o.overlay}
	logf("%d rounds, order from seed %d", o.rounds, o.seed)
	if err := os.MkdirAll(filepath.Dir(valuesFile), 0o755); err != nil {
		return err
	}
	err = measure(ctx, o, b, logf)
	if err := b.writeValues(valuesFile); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	if o.only == "" {
		b.fragments, err = fragments(ctx, o, logf)
	}
	b.took = time.Since(began)
	if err := os.WriteFile(o.file, []byte(b.page()), 0o644); err != nil {
		return err
	}
	logf("written: %s, and all values in %s", o.file, valuesFile)
	for _, line := range b.summary() {
		fmt.Fprintln(out, line)
	}
	return err // of a part that is missing on the page
}

// measure plays the rounds in a lab that it takes down at the end.
func measure(ctx context.Context, o options, b *book, logf func(string, ...any)) (err error) {
	s, err := openSite(ctx, o.overlay, logf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	b.machine = s.machine
	return s.play(ctx, o, b, logf)
}

type options struct {
	rounds  int
	seed    uint64
	overlay string // what stands for Docker's overlay: "swarm" or "rebuilt"
	file    string
	control string        // a file with the control plane's figures, which a run has written before
	wait    time.Duration // for an idle machine, in each round
	only    string        // the cells to measure, by the beginnings of their names, separated by commas; empty: all
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.rounds, "rounds", fullRounds, "how often everything is measured")
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the order within the rounds")
	flags.StringVar(&o.overlay, "overlay", "swarm", "Docker's overlay: swarm, or rebuilt by ip commands where Swarm does not run")
	flags.StringVar(&o.file, "o", "", fmt.Sprintf("the page; docs/benchmarks.md from %d rounds on, else build/benchmarks.md", fullRounds))
	flags.StringVar(&o.control, "control", controlFile, "the control plane's figures: made anew if there is no such file, as they "+
		"take long and depend on no machine")
	flags.DurationVar(&o.wait, "wait", waiting, "how long a round waits for an idle machine, in all")
	flags.StringVar(&o.only, "only", "", "measure only what begins so, to look into it: tcp1, tcp4, rr, crr, udp, run, first, address; several with commas")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() != 0 {
		return o, fmt.Errorf("arguments %q: want none", flags.Args())
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("%d rounds: want at least one", o.rounds)
	}
	if o.overlay != "swarm" && o.overlay != "rebuilt" {
		return o, fmt.Errorf("overlay %q: want swarm or rebuilt", o.overlay)
	}
	if o.file == "" {
		o.file = "build/benchmarks.md"
		if o.rounds >= fullRounds && o.only == "" {
			o.file = "docs/benchmarks.md"
		}
	}
	return o, nil
}

// wants says whether a cell is to be measured.
func (o options) wants(c cell) bool {
	return slices.ContainsFunc(strings.Split(o.only, ","), func(begin string) bool { return strings.HasPrefix(c.name, begin) })
}
