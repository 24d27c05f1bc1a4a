//go:build crash

package crash

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestKilledStarts kills the binary as it is released, at system calls of its start on a host with a container: what the points do not
// see, as they are only where this package expects changes. CRASH_STRACE says how many starts (20), CRASH_SEED at which calls. strace
// counts the calls of each thread, so the same seed is not quite the same moments.
func TestKilledStarts(t *testing.T) {
	starts, seed := setting(t, "CRASH_STRACE", 20), uint64(setting(t, "CRASH_SEED", 1))
	for _, cluster := range []bool{false, true} {
		t.Run(fmt.Sprint("in a cluster ", cluster), func(t *testing.T) {
			w := &worker{binary: build(t, "")}
			h := w.prepare(t, t, cluster)
			e := &engine{host: h, family: 28, ids: &w.ids, nets: map[string]*dockerNet{}, running: map[string]*container{}, names: map[string]string{}}
			e.states = []state{e.settled()}
			e.unit("create", func() error { return e.create("one", dual) })
			e.unit("run", func() error { return e.run("a", "one") })
			killed, random := map[string]int{}, rand.New(rand.NewPCG(seed, 0))
			for range starts {
				h.kill()
				calls := []string{"sendto,sendmsg", "fsync,write,pwrite64", "openat", "ioctl,bind,setsockopt"}
				call := calls[random.IntN(len(calls))]
				h.under = []string{"strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=" + call,
					"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, 1+random.IntN(25))}
				_, died := h.start(0)
				h.under = nil
				if died {
					killed[call]++
				} else {
					h.kill()
				}
				h.start(0)
				e.eventually("as before the start", e.states[len(e.states)-1].differs)
			}
			e.unit("rm", func() error { _ = e.stop("a"); return e.remove("one") })
			e.eventually("nothing is left", e.states[0].differs)
			t.Logf("%d starts from seed %d, killed at: %v", starts, seed, killed)
			if len(killed) == 0 {
				t.Error("no start was killed")
			}
		})
	}
}
