//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// figures are what the test of size has measured. It does as much as proves the goals, with CARRICK_SIZE=all everything
// once, and with CARRICK_FIGURES everything often enough for a page, control.md in the directory which that names.
type figures struct {
	dir     string
	all     bool
	losses  []float64 // of datagrams
	ones    int       // runs of a single record
	bursts  int       // of those that cost more
	records []int     // of the bursts on one node and on all
	page    map[string][]string
}

func newFigures() *figures {
	f := &figures{losses: []float64{0.1}, ones: 5, bursts: 1, records: []int{10_000}, page: map[string][]string{}}
	f.dir = os.Getenv("CARRICK_FIGURES")
	if f.all = f.dir != "" || os.Getenv("CARRICK_SIZE") == "all"; f.all {
		f.losses, f.records = []float64{0, 0.01, 0.1, 0.3}, []int{1000, 10_000}
	}
	if f.dir != "" {
		f.ones, f.bursts, f.records = 25, 3, []int{1000, 10_000, 100_000}
	}
	return f
}

// runs of a burst: those of a hundred thousand take ten million records.
func (f *figures) runs(records int) int {
	switch {
	case records == 1:
		return f.ones
	case records > 10_000:
		return 1
	}
	return f.bursts
}

func (f *figures) row(t *testing.T, table string, cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case time.Duration:
			row[i] = fmt.Sprintf("%.2f s", c.Seconds())
		case float64:
			row[i] = fmt.Sprintf("%.3g", c)
			if c >= 100 {
				row[i] = fmt.Sprintf("%.0f", c)
			}
		default:
			row[i] = fmt.Sprint(c)
		}
	}
	t.Log(strings.Join(row, " | "))
	f.page[table] = append(f.page[table], "| "+strings.Join(row, " | ")+" |")
}

// burst is a row of records that were made at once.
func (f *figures) burst(t *testing.T, loss string, records int, on string, s spreading) {
	u, runs := s.used, float64(s.runs)
	perSecond := func(n int) float64 { return float64(n) / manyNodes / u.over.Seconds() }
	f.row(t, "bursts", loss, records, on, s.runs, s.after(.5), s.after(.99), s.last,
		perSecond(u.packets), perSecond(u.bytes)/1e3, float64(u.pulls)/runs, float64(u.pulled)/runs/1e6, float64(u.busiest)/1e6)
}

// event is something that happened a few times.
type event struct {
	times []time.Duration
	used  usage
}

func (e *event) add(took time.Duration, used usage) {
	e.times = append(e.times, took)
	e.used = e.used.plus(used)
	slices.Sort(e.times)
}

func (e *event) last() time.Duration { return e.times[len(e.times)-1] }

func (f *figures) event(t *testing.T, name string, e event) {
	runs := len(e.times)
	f.row(t, "events", name, runs, e.times[runs/2], e.last(),
		float64(e.used.packets)/float64(runs)/manyNodes, float64(e.used.pulls)/float64(runs), float64(e.used.pulled)/float64(runs)/1e6)
}

func (f *figures) idle(t *testing.T, name string, u usage) {
	per := u.over.Seconds() * manyNodes
	f.row(t, "idle", name, float64(u.packets)/per, float64(u.bytes)/per/1e3, float64(u.pulls)/per, float64(u.pulled)/per/1e3)
}

// controlPage is what control.md says; each verb is a table's rows.
const controlPage = `100 nodes in virtual time, memberlist and the tables of records without raft, over a network in memory: round trips of
1 ms, datagrams up to 1 ms later, 1 Gbit/s for each host, 0.5 ms of CPU for each side of a TLS handshake. Anti-entropy is off unless a
row says otherwise: every record arrived by a hint and a pull. Times are exact and do not depend on the machine. Streams lose
nothing unless a row says so, and then stand still as TCP does: 1 s for a SYN, 200 ms for the last segment of a flight.

Records that are made at one instant, until a share of all (node, record) pairs is there; p99 and last are of all runs together.
Connections are those of pulls; all were made anew. The last column is what the node has sent that was asked most.

| datagrams lost | records | made on | runs | p50 | p99 | last | datagrams/s a node | kB/s a node | connections | MB pulled | busiest, MB |
|---|---|---|---|---|---|---|---|---|---|---|---|
%s

| event | runs | median | slowest | datagrams a node | connections | MB pulled |
|---|---|---|---|---|---|---|
%s

| | datagrams/s a node | kB/s a node | connections/s a node | kB/s pulled a node |
|---|---|---|---|---|
%s
`

func (f *figures) write(t *testing.T) {
	if f.dir == "" || t.Failed() {
		return
	}
	rows := func(table string) string { return strings.Join(f.page[table], "\n") }
	text := fmt.Sprintf(controlPage, rows("bursts"), rows("events"), rows("idle"))
	if err := os.WriteFile(filepath.Join(f.dir, "control.md"), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
}
