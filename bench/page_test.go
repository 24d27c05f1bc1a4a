package main

import (
	"fmt"
	"strings"
	"testing"
)

// full is a book in which every key of every row has the values of three rounds.
func full() *book {
	b := &book{values: map[string][]float64{}, rounds: 3, overlay: "swarm", machine: "a machine"}
	for _, t := range tables(b.overlay) {
		for _, r := range t.rows {
			for _, k := range []string{r.of, r.to} {
				b.values[k] = []float64{3, 2, 4}
			}
			for _, k := range []string{r.less, r.from} {
				b.values[k] = []float64{1, 1, 1}
			}
		}
	}
	delete(b.values, "")
	return b
}

func TestThePageShowsEveryRowAndJudgesEveryGoal(t *testing.T) {
	b := full()
	b.fragments = []fragment{{title: "More", text: "of it", judged: []judged{{"thing", most("thing", 1), 0.5, " s"}}}}
	page := b.page()
	for _, table := range tables(b.overlay) {
		for _, r := range table.rows {
			if !strings.Contains(page, "| "+r.title+" | **") {
				t.Errorf("no row of %q", r.title)
			}
		}
	}
	for _, want := range []string{
		"| TCP, 1 stream, one processor | ≥ 1.03 | 1.00 | short by 2.9 % |",
		"| request/response, p50 of the time | ≤ 0.95 | 1.00 | short by 5.3 % |",
		"| first reply after the container's process was started | ≤ 0.10 s | 3.00 s | short by 2900.0 % |",
		"| bridge, `--internal`, beside Docker's bridge, `--internal` | ≤ 1.00 | 1.00 | met |",
		"| thing | ≤ 1.00 s | 0.50 s | met |",
		"## More\n\nof it\n",
		"**1.00** (1.00–1.00)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestABusyMachineIsSaid(t *testing.T) {
	b := full()
	for disturbed, want := range map[int]bool{0: false, 10: false, 11: true} {
		b.gate = gate{samples: 100, disturbed: disturbed}
		if got := strings.Contains(b.page(), busy); got != want {
			t.Errorf("%d of 100 samples disturbed: said %v", disturbed, got)
		}
	}
}

func TestARowThatWasNotMeasuredIsLeftOut(t *testing.T) {
	b := full()
	without := key("rr gro", dockerOverlay, "p50")
	rows := strings.Count(b.page(), "** (")
	for _, table := range tables(b.overlay) {
		for _, r := range table.rows {
			if r.of == without || r.to == without {
				rows--
			}
		}
	}
	delete(b.values, without)
	if page := b.page(); strings.Count(page, "** (") != rows || strings.Contains(page, "NaN") {
		t.Errorf("want %d rows and no ratio to nothing:\n%s", rows, page)
	}
}

func TestEveryReasonIsOfAGoal(t *testing.T) {
	goals := map[string]bool{mostSeconds.name: true}
	for _, t := range tables("swarm") {
		for _, r := range t.rows {
			goals[r.goal.name] = true
		}
	}
	for line := range strings.Lines(shortfalls) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok && !goals[name] {
			t.Errorf("shortfalls.md speaks of %q, which is no goal", name)
		}
	}
	if got := why("x\n## a\n\none\n\n## b\n\ntwo\n", "a"); got != "one" {
		t.Errorf("the reason is %q", got)
	}
}

func TestTheKernelsBenchmarkIsRead(t *testing.T) {
	var out strings.Builder
	out.WriteString("goos: linux\n")
	for _, n := range sizes {
		for _, ms := range []int{n / 200, n / 100, n / 50} {
			fmt.Fprintf(&out, "BenchmarkProgram/%d-2 \t 1\t 900 ns/op\t %d set-ms\t %d libnetwork-ms\t 3 dual-ms 4 change-ms 5 remove-ms\n", n, ms, 4*ms)
		}
	}
	f, err := programmed(out.String())
	if err != nil {
		t.Fatal(err)
	}
	want := "| 100000 | **1.00** s (0.75–1.50) | **0.25** (0.25–0.25) | **0.003** s (0.003–0.003) | **0.004** s (0.004–0.004) | **0.005** s (0.005–0.005) |"
	if !strings.Contains(f.text, want) || f.judged[0].value != 1 {
		t.Errorf("got %v and\n%s\nwant\n%s", f.judged, f.text, want)
	}
	if _, err := programmed("PASS"); err == nil {
		t.Error("nothing was measured, and nobody says so")
	}
}
