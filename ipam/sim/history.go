package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// Plan is what a history is played from.
type Plan struct {
	Seed  uint64
	Hosts int
	Flaw  Flaw                 // none, but where the checks are checked
	Trace func(string, ...any) // nil, or where every event goes
}

// Figures are sums over histories.
type Figures struct {
	Given, Refused, Proposals, LostAnswers, Kills, PowerLosses, Cuts, Forgotten, DiskErrors, OldDisks int

	Second     int // addresses of a second subnet that nobody asked for by name
	HandedBack int // blocks
}

// Add adds the figures of another history.
func (f *Figures) Add(o Figures) {
	f.Given += o.Given
	f.Refused += o.Refused
	f.Proposals += o.Proposals
	f.LostAnswers += o.LostAnswers
	f.Kills += o.Kills
	f.PowerLosses += o.PowerLosses
	f.Cuts += o.Cuts
	f.Forgotten += o.Forgotten
	f.DiskErrors += o.DiskErrors
	f.OldDisks += o.OldDisks
	f.Second += o.Second
	f.HandedBack += o.HandedBack
}

// Flaw is something that is wrong with the world, so that promises have to break.
type Flaw string

// Flaws of the world. Those of the ledger are in package ledger, behind a build tag.
const (
	NoFlaw                Flaw = ""
	FlawBlindLog          Flaw = "the log does not look at conditions"
	FlawLostWrites        Flaw = "the disk forgets what it has said is there"
	FlawConflictIsSuccess Flaw = "a conflict is answered as a success"
	FlawLogTakesFenced    Flaw = "the log takes what a forgotten host proposed"
	FlawOldDisk           Flaw = "a disk goes back to an older copy, and nobody notices"
)

// Flaws are all of them.
var Flaws = []Flaw{FlawBlindLog, FlawLostWrites, FlawConflictIsSuccess, FlawLogTakesFenced, FlawOldDisk}

// settleTime is how long it may take until all is well again: a lease that nobody uses is found after 60 s at two looks, 15 s
// apart. In idleTime what is not needed is given back: what was used rests for 60 s before, and where it goes back into another host's
// block it rests again. Then everything is removed.
const (
	lullAfter  = 15 * time.Second
	lullTime   = 95 * time.Second
	settleTime = 130 * time.Second
	idleTime   = 250 * time.Second
	finishTime = 60 * time.Second
)

// faultTime is how long faults happen: 4 to 12 s in most histories, three times that in some, eight times in a few. What goes wrong
// in a few steps is found soonest in many short ones. In a few more users do next to nothing for a while (lull), so that blocks are
// given back while things go wrong.
func (w *world) faultTime() time.Duration {
	t := w.within(4*time.Second, 12*time.Second)
	switch n := w.IntN(20); {
	case n < 1:
		return 8 * t
	case n < 3:
		w.long = true
		return lullAfter + lullTime + t
	case n < 6:
		return 3 * t
	}
	return t
}

// Play plays one history. An error is a broken promise.
func Play(plan Plan) (Figures, error) {
	w := newWorld(plan)
	w.trace = plan.Trace
	defer func() {
		for _, c := range w.coroutines {
			c.stop()
		}
	}()
	for _, h := range w.hosts {
		w.start(h.engine.works)
	}
	w.start(w.faults)
	w.run(w.faultTime())
	w.heal()
	w.run(w.calmed + settleTime)
	if w.broken == nil {
		w.waiting()
	}
	w.run(w.calmed + settleTime + idleTime)
	if w.broken == nil {
		w.unneeded()
	}
	w.start(w.finish)
	w.run(w.calmed + settleTime + idleTime + finishTime)
	if w.broken == nil {
		w.empty()
	}
	return w.figures, w.broken
}

// lull says whether users do next to nothing, and less goes wrong.
func (w *world) lull() bool { return w.long && w.now > lullAfter && w.now < lullAfter+lullTime }

// works is what users of a host do: networks come and go, and containers.
func (e *engine) works(t *task) {
	w := t.w
	for w.faulty {
		t.sleep(w.within(0, 3*time.Second))
		if w.lull() && !w.chance(0.05) {
			continue
		}
		def := w.nets[w.IntN(len(w.nets))]
		nw := e.nets[def.shared]
		switch {
		case nw == nil:
			w.start(func(t *task) { e.create(t, def) })
		case nw.made && len(nw.containers) == 0 && w.chance(0.2):
			w.start(func(t *task) { e.remove(t, nw) })
		case nw.made && len(nw.containers) < 12:
			for range 1 + w.IntN(3) {
				lifetime := w.within(0, 15*time.Second)
				if w.chance(0.05) { // longer than the sweep leaves alone what nobody uses
					lifetime = 85 * time.Second
				}
				w.start(func(t *task) { e.live(t, nw, lifetime) })
			}
		}
	}
}

// faults is what goes wrong from outside.
func (w *world) faults(t *task) {
	for w.faulty {
		t.sleep(w.within(0, 4*time.Second))
		if w.lull() {
			t.sleep(w.within(0, 15*time.Second))
		}
		if !w.faulty {
			return
		}
		h := w.hosts[w.IntN(len(w.hosts))]
		w.hosts[w.IntN(len(w.hosts))].copied()
		if w.chance(0.15) {
			w.contend()
		}
		switch n := w.IntN(20); {
		case n < 8:
			h.kill()
			w.after(w.within(0, 6*time.Second), h.boot)
		case n < 11:
			h.loses()
			w.after(w.within(time.Second, 15*time.Second), h.boot)
		case n < 17:
			w.cuts()
		case n < 18:
			w.say("the engine of %s dies", h.name)
			h.engine.dies()
		case h.w.quorum(h):
			w.start(func(t *task) { w.forget(t, h) })
		}
	}
}

// contend has users of several hosts ask for addresses of one block, its owner's among them.
func (w *world) contend() {
	def := w.nets[w.IntN(len(w.nets))]
	blocks := w.newest().Blocks(def.shared)
	if len(blocks) == 0 {
		return
	}
	block := blocks[w.IntN(len(blocks))].Prefix
	for range 1 + w.IntN(4) {
		addr := w.someAddress(block)
		for _, h := range w.hosts {
			if !w.chance(0.5) {
				continue
			}
			lifetime := w.within(0, 5*time.Second)
			w.after(w.within(0, 5*time.Second), func() {
				if nw := h.engine.nets[def.shared]; nw != nil && nw.made && w.faulty {
					w.start(func(t *task) { h.engine.lives(t, nw, addr, lifetime) })
				}
			})
		}
	}
}

// loses is the loss of power: whatever was going on ends.
func (h *host) loses() {
	h.w.say("%s loses power", h.name)
	h.w.figures.PowerLosses++
	h.kill()
	h.engine.dies()
}

// dies ends an engine with its containers. The next one deletes the endpoints that it still knows, some of them.
func (e *engine) dies() {
	e.run++
	w := e.h.w
	for _, shared := range w.shared {
		nw := e.nets[shared]
		if nw == nil {
			continue
		}
		if nw.underWay = false; nw.removing && !nw.half {
			nw.made, nw.removing = true, false // the driver has not heard of it
		}
		stale := nw.containers
		for _, c := range stale {
			w.lets(c)
		}
		run := e.run
		w.start(func(t *task) {
			t.sleep(w.within(time.Second, 10*time.Second))
			for _, c := range stale {
				if e.run == run && c.addr.IsValid() {
					e.end(t, c)
				}
			}
			if e.run == run {
				nw.containers = slices.DeleteFunc(nw.containers, func(c *container) bool { return slices.Contains(stale, c) })
			}
		})
	}
}

// cuts parts the hosts anew: one alone, two sides, or all together again.
func (w *world) cuts() {
	w.figures.Cuts++
	part := w.IntN(3)
	for _, h := range w.hosts {
		was := h.cut
		h.cut = part > 0 && w.chance([]float64{0, 0.2, 0.5}[part])
		if was && !h.cut {
			w.tell(h, w.head())
		}
		if h.cut {
			w.say("%s is cut off", h.name)
		}
	}
}

// forget takes a host out of the cluster that may be alive.
func (w *world) forget(t *task, h *host) {
	by := w.hosts[w.IntN(len(w.hosts))]
	if by == h || by.process == nil {
		return
	}
	id := h.id
	_ = t.decide(by.process, func(v cluster.View) (cluster.Txn, error) { return cluster.PlanForget(v, id) }) // the log tells
}

// forgets is told of what is new in the log: when a host hears that it was forgotten, it joins as a new node. That may be written when
// whoever has asked for it does not wait any more, and all is well again.
func (w *world) forgets(txn cluster.Txn) {
	for _, op := range txn.Then {
		id, is := strings.CutPrefix(op.Key, "forgotten/")
		n := slices.IndexFunc(w.hosts, func(h *host) bool { return h.id == id })
		if !is || n < 0 || op.Value == nil {
			continue
		}
		w.figures.Forgotten++
		w.shaken = w.now
		w.say("%s is forgotten", w.hosts[n].name)
		w.start(func(t *task) {
			t.sleep(w.within(0, 10*time.Second))
			w.hosts[n].rejoin(t)
		})
	}
}

// rejoin makes a forgotten host a new node, when it reaches the others.
func (h *host) rejoin(t *task) {
	for {
		if _, fenced := h.w.newest().Fenced(h.id); !fenced {
			return
		}
		if !h.cut {
			h.engine.hurries(t)
			h.kill()
			h.renew()
			h.disowns()
			h.copies = h.w.now + h.w.within(0, 3*time.Second)
			h.w.say("%s is now %s", h.name, h.id)
			h.w.register(h)
			h.boot()
			return
		}
		t.sleep(time.Second)
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.say("all is well")
	w.faulty, w.calmed = false, w.now
	for _, h := range w.hosts {
		h.cut = false
		h.boot()
		w.tell(h, w.head())
	}
	w.after(100*time.Second, func() {
		for _, h := range w.hosts {
			w.start(h.engine.fills)
		}
	})
}

// fills starts containers until there is no more room, or enough: who is refused then has to be told why.
func (e *engine) fills(t *task) {
	w := t.w
	for _, shared := range w.shared {
		if nw := e.nets[shared]; nw != nil && nw.made {
			for range 1 + w.IntN(6) {
				lifetime := w.within(0, 3*time.Second)
				w.start(func(t *task) { e.live(t, nw, lifetime) })
				t.sleep(w.within(0, 300*time.Millisecond))
			}
		}
	}
}

// finish removes everything.
func (w *world) finish(*task) {
	for _, h := range w.hosts {
		for _, shared := range w.shared {
			w.start(func(t *task) {
				for range 10 {
					if nw := h.engine.nets[shared]; nw != nil && len(nw.containers) == 0 {
						h.engine.remove(t, nw)
					}
					t.sleep(finishTime / 12)
				}
			})
		}
	}
}
