//go:build crash

package crash

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/docs/report"
)

// secret is of no cluster but that of a host in a test.
const secret = "lphc4qcfvsbqlt6wuc7qz35jmgtcf3htywzctb7yadhz76qd3bkq"

func build(t *testing.T, tags string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "carrick")
	cmd := exec.Command("go", "build", "-tags", tags, "-o", binary, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// setting is a number from the environment, or what it is by itself.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: a number is allowed", name, text)
	}
	return n
}

// played is a sequence with what its calls pass and leave.
type played struct {
	sequence
	counted []target
	states  []state
}

// worker plays on a host of its own, which is another one after a failure.
type worker struct {
	binary string
	host   *host
	ids    int
}

// prepare returns the worker's host for a test. It is owner's.
func (w *worker) prepare(t, owner *testing.T, cluster bool) *host {
	t.Helper()
	if h := w.host; h != nil {
		h.T = t
		h.log.Reset()
		return h
	}
	var env []string
	if cluster {
		env = []string{"SECRET=" + secret, "JOIN=192.0.2.1"}
	}
	h := newHost(owner, w.binary, env...)
	h.T = t
	h.start(0)
	if cluster {
		h.founded()
	}
	w.host = h
	return h
}

// founded waits until the host is a node of a cluster.
func (h *host) founded() {
	h.Helper()
	for began := time.Now(); ; pause(50 * time.Millisecond) {
		got, err := h.call("Carrick.Status", object{})
		h.must(err)
		if c, _ := got["cluster"].(map[string]any); c != nil && c["state"] == "member" && c["leader"] != nil {
			return
		}
		if time.Since(began) > patience {
			h.Fatalf("no member of a cluster: %v", got)
		}
	}
}

// play plays a sequence with a kill. With the zero Kill it is the one to compare others with.
func (w *worker) play(t, owner *testing.T, p *played, kill Kill, o *outcome) {
	t.Helper()
	h := w.prepare(t, owner, p.cluster)
	e := &engine{host: h, family: p.family, kill: kill, states: p.states, ids: &w.ids,
		nets: map[string]*dockerNet{}, running: map[string]*container{}, asked: map[netip.Addr]bool{}, names: map[string]string{}}
	defer func() {
		*o = e.happened
		if t.Failed() {
			h.plugin.kill()
			w.host = nil
		}
	}()
	if kill == (Kill{}) {
		e.states = []state{e.settled()}
	}
	p.play(e)
	if kill == (Kill{}) {
		p.counted, p.states = e.counted, e.states
		return
	}
	e.eventually("nothing is left", func(s state) string { return p.states[0].differs(s) })
	if left := e.leases(); left != "" {
		e.Errorf("addresses are left: %s", left)
	}
}

func (e *engine) leases() string {
	got, err := e.call("Carrick.Leases", object{})
	e.must(err)
	if list, _ := got["list"].([]any); len(list) != 0 {
		return fmt.Sprint(list)
	}
	return ""
}

// run is all that is done with a sequence.
type run struct {
	*played
	owner   *testing.T
	workers []*worker

	mu    sync.Mutex
	done  map[Kill]outcome
	tally tally
}

// tally is what was done.
type tally struct {
	calls, points, singles, doubles, unmet, lost, failed int
}

func (a *tally) add(b tally) {
	a.calls += b.calls
	a.points += b.points
	a.singles += b.singles
	a.doubles += b.doubles
	a.unmet += b.unmet
	a.lost += b.lost
	a.failed += b.failed
}

// record adds a line to the report.
func (a *tally) record(sequence string, seed uint64, took time.Duration) error {
	return report.Add(report.Crashes, seed, sequence, a.calls, a.points, a.singles, a.doubles, a.unmet, a.lost, a.failed, took.Round(time.Second))
}

// each plays the sequence with every one of the kills.
func (r *run) each(kills []Kill) {
	queue := make(chan Kill, len(kills))
	for _, k := range kills {
		queue <- k
	}
	close(queue)
	var wg sync.WaitGroup
	for _, w := range r.workers {
		wg.Go(func() {
			for k := range queue {
				r.one(w, k)
			}
		})
	}
	wg.Wait()
}

func (r *run) one(w *worker, k Kill) {
	var o outcome
	var failed bool
	c := r.counted[k.call-1]
	r.owner.Run(fmt.Sprintf("%s %s call %d %+v", c.unit, c.method, k.call, k), func(t *testing.T) {
		defer func() {
			if failed = t.Failed(); failed {
				t.Logf("%+v", o)
			}
		}()
		w.play(t, r.owner, r.played, k, &o)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[k] = o
	switch {
	case !o.killed || k.second > 0 && !o.again:
		r.tally.unmet++
	case k.second > 0:
		r.tally.doubles++
	default:
		r.tally.singles++
	}
	if o.lost {
		r.tally.lost++
	}
	if failed {
		r.tally.failed++
	}
}

// singles are one kill at every one, or every nth, point of all calls, after which the call is made again or fails, by chance, or both in turn.
func (r *run) singles(every int, both bool, random *rand.Rand) (all []Kill) {
	n := random.IntN(every)
	for i, c := range r.counted {
		r.tally.calls++
		r.tally.points += c.points
		for k := 1; k <= c.points; k++ {
			if n++; n%every != 0 {
				continue
			}
			kill := Kill{call: i + 1, point: k, repeat: random.IntN(2) == 0}
			all = append(all, kill)
			if kill.repeat = !kill.repeat; both && c.method != "start" {
				all = append(all, kill)
			}
		}
	}
	return all
}

// doubles are so many of them, drawn by chance, with a second kill at any point of the start that follows.
func (r *run) doubles(number int, random *rand.Rand) (all []Kill) {
	for _, k := range slices.SortedFunc(maps.Keys(r.done), func(a, b Kill) int {
		return cmp.Or(a.call-b.call, a.point-b.point, len(fmt.Sprint(a.repeat))-len(fmt.Sprint(b.repeat)))
	}) {
		for p := range r.done[k].start {
			k.second = p + 1
			all = append(all, k)
		}
	}
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(number, len(all))]
}

// TestCrashPoints kills the plugin at every point of every call, and in some cases once more in the start that follows.
// CRASH_DOUBLES says in how many cases of each sequence (20), CRASH_SEED in which, CRASH_BOTH=1 that each call is made again after one
// kill and fails after another, CRASH_EVERY=4 that only every fourth point is one, CRASH_ONLY which sequence it is, CRASH_WORKERS how many hosts
// there are, and CRASH_RECORD=1 that the report gets a line for each sequence.
func TestCrashPoints(t *testing.T) {
	doubles, seed, both := setting(t, "CRASH_DOUBLES", 20), uint64(setting(t, "CRASH_SEED", 1)), setting(t, "CRASH_BOTH", 0) != 0
	every := setting(t, "CRASH_EVERY", 1)
	began, binary := time.Now(), build(t, "failpoints")
	t.Logf("built after %v", time.Since(began).Round(time.Second))
	var all tally
	for _, s := range sequences {
		if !strings.HasPrefix(s.name, os.Getenv("CRASH_ONLY")) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			r := &run{played: &played{sequence: s}, owner: t, done: map[Kill]outcome{}}
			for range setting(t, "CRASH_WORKERS", 3) {
				r.workers = append(r.workers, &worker{binary: binary})
			}
			r.workers[0].play(t, t, r.played, Kill{}, &outcome{})
			for i, c := range r.counted {
				t.Logf("%2d %-14s %-36s %d points", i+1, c.unit, c.method, c.points)
			}
			random := rand.New(rand.NewPCG(seed, 0))
			r.each(r.singles(every, both, random))
			single := time.Since(began)
			r.each(r.doubles(doubles, random))
			t.Logf("%s: %+v; single %v, double %v", s.name, r.tally, single.Round(time.Second), (time.Since(began) - single).Round(time.Second))
			all.add(r.tally)
			if os.Getenv("CRASH_RECORD") != "" {
				if err := r.tally.record(s.name, seed, time.Since(began)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Logf("all, from seed %d: %+v in %v", seed, all, time.Since(began).Round(time.Second))
}
