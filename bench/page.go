package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// A book holds all that was measured.
type book struct {
	values    map[string][]float64 // by key, one for each round
	gate      gate
	fragments []fragment

	began   time.Time
	took    time.Duration
	rounds  int
	seed    uint64
	overlay string
	machine string
}

// busy stands on a page more than a tenth of whose samples were disturbed.
const busy = "**The machine was busy with other work.** Ratios whose quartiles have 1 between them say nothing, times in seconds are " +
	"those of a busy machine, and goals are neither met nor missed: the page is to be written anew on an idle one.\n"

// shortfalls says, under the name of each goal, why it is missed where it is, and what was tried.
//
//go:embed shortfalls.md
var shortfalls string

// writeValues writes all values of all rounds; null stands for one that is missing.
func (b *book) writeValues(file string) error {
	all := map[string][]*float64{}
	for key, values := range b.values {
		for _, v := range values {
			if math.IsNaN(v) {
				all[key] = append(all[key], nil)
			} else {
				all[key] = append(all[key], &v)
			}
		}
	}
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// page is docs/benchmarks.md.
func (b *book) page() string {
	var p strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&p, format+"\n", args...) }
	say("# Benchmarks\n")
	say("`make bench` has written this page, on %s. Carrick stands beside Docker's own bridge and overlay, in one [lab](../lab) of five",
		b.began.UTC().Format("2 January 2006"))
	say("hosts with real engines: two for Carrick's overlay, two for Swarm's, one for bridges. All ratios are taken within a round and are independent of how")
	say("fast the machine is; what is shown is their median, and the quartiles in brackets.\n")
	say("%d rounds, everything in random order (seed %d), in %s; %d samples, of which %d were repeated because others were at", b.rounds,
		b.seed, b.took.Round(time.Second), b.gate.samples, b.gate.repeated)
	say("work on the machine (more than %.0f %% of a processor), and %d were kept in spite of that. On %s.\n", 100*foreignLimit,
		b.gate.disturbed, b.machine)
	if b.gate.disturbed*10 > b.gate.samples {
		say("%s", busy)
	}
	say("%s", strings.Join(b.goals(), "\n"))
	for _, t := range tables(b.overlay) {
		b.table(say, t)
	}
	for _, f := range b.fragments {
		say("## %s\n\n%s\n", f.title, strings.TrimSpace(f.text))
	}
	return strings.TrimRight(p.String(), "\n") + "\n"
}

func (b *book) table(say func(string, ...any), t table) {
	var lines []string
	for _, r := range t.rows {
		if !b.known(r) {
			continue
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s |", r.title, show(spreadOf(b.of(r)), r.unit), r.goal))
	}
	if len(lines) == 0 {
		return
	}
	say("## %s\n\n%s\n", t.title, t.text)
	say("| | %s | goal |\n|---|---|---|\n%s\n", t.columns, strings.Join(lines, "\n"))
}

func show(s spread, unit string) string {
	if unit != "" {
		unit = " " + unit
	}
	return fmt.Sprintf("**%s**%s (%s–%s)", number(s.median), unit, number(s.low), number(s.high))
}

// number has two digits that say something.
func number(v float64) string {
	if math.Abs(v) >= 0.095 || v == 0 {
		return fmt.Sprintf("%.2f", v)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// goals are the summary at the top, and what there is to say of those that are missed.
func (b *book) goals() []string {
	lines := []string{"## Goals", "", "| | goal | median | |", "|---|---|---|---|"}
	var missed []string
	judge := func(title string, g goal, v float64, unit string) {
		if g.met(v) {
			lines = append(lines, fmt.Sprintf("| %s | %s%s | %.2f%s | met |", title, g, unit, v, unit))
			return
		}
		lines = append(lines, fmt.Sprintf("| %s | %s%s | %.2f%s | short by %.1f %% |", title, g, unit, v, unit, short(g, v)))
		missed = append(missed, "", fmt.Sprintf("**%s**: %s", title, why(shortfalls, g.name)))
	}
	for _, t := range tables(b.overlay) {
		for _, r := range t.rows {
			if r.goal.name == "" || !b.known(r) {
				continue
			}
			unit := ""
			if r.unit != "" {
				unit = " " + r.unit
			}
			judge(r.title, r.goal, median(b.of(r)), unit)
		}
	}
	for _, f := range b.fragments {
		for _, j := range f.judged {
			judge(j.title, j.goal, j.value, j.unit)
		}
	}
	return append(append(lines, missed...), "")
}

// short is how far a value is from its goal, in per cent of the goal.
func short(g goal, v float64) float64 {
	if g.least {
		return 100 * (g.bound - v) / g.bound
	}
	return 100 * (v - g.bound) / g.bound
}

// why finds the paragraphs under "## name".
func why(text, name string) string {
	_, after, found := strings.Cut(text, "## "+name+"\n")
	if !found {
		return "not looked into."
	}
	reason, _, _ := strings.Cut(after, "\n## ")
	return strings.TrimSpace(reason)
}

// summary is what the command says at its end.
func (b *book) summary() []string { return b.goals() }
