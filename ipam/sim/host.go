package sim

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
	"github.com/carricknet/carrick/store"
)

// Errors of the simulated world.
var (
	errDied = errors.New("the plugin died")
	errDisk = errors.New("input/output error")
)

// host is one machine.
type host struct {
	w       *world
	name    string
	id      string // of its node
	ids     int
	at      int                      // log entry it has come to
	cut     bool                     // it reaches nobody, and nobody it
	copies  time.Duration            // until when it copies the facts, as a new node
	disk    map[string][]byte        // of the ledger
	changed bool                     // since it was checked
	came    map[string]time.Duration // keys of leases that ended, and when
	past    past
	skew    time.Duration
	process *process
	engine  *engine
}

// process is one run of the plugin.
type process struct {
	h       *host
	ledger  *ledger.Ledger
	dead    bool
	busy    bool // a write is under way, and nothing else goes on
	ready   bool // what the driver does at its start is done
	waiting []func()
	watch   []func()
	members map[string]bool // networks that are being joined or left
	turns   map[*network]bool
	freed   []string        // keys of leases that ended, the first first
	isFreed map[string]bool // the same
}

func newHost(w *world, name string) *host {
	h := &host{w: w, name: name, disk: map[string][]byte{}, came: map[string]time.Duration{}}
	h.renew()
	h.engine = &engine{h: h, nets: map[string]*network{}}
	return h
}

// renew makes the host another node, with an empty log.
func (h *host) renew() {
	h.ids++
	h.at = 0
	h.id = fmt.Sprintf("%s.%d", h.name, h.ids)
	h.past.image = nil // a copy of before would be refused
}

// boot starts the plugin.
func (h *host) boot() {
	if h.process != nil {
		return
	}
	p := &process{h: h, members: map[string]bool{}, turns: map[*network]bool{}, isFreed: map[string]bool{}}
	h.process = p
	if h.w.faulty { // facts on disk may be older than those it had; the rest comes when it hears from the others
		h.at = max(0, h.at-h.w.IntN(8))
	}
	h.goesBack()
	h.skew += h.w.within(0, 2*time.Second)
	if h.w.faulty && h.w.chance(0.1) {
		h.skew += h.w.within(-time.Hour, time.Hour)
	}
	l, err := ledger.New(h.read, nil, h.w.within(0, 10*time.Second), p.moment())
	if err != nil {
		h.w.breaks("%s does not start: %v", h.name, err)
		return
	}
	p.ledger = l
	h.w.say("%s: boots at log %d", h.name, h.at)
	h.w.tell(h, h.w.head())
	h.w.start(p.keep)
	h.w.start(p.restore)
}

func (h *host) read(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var keys []string
		for key := range h.disk {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			if !yield(key, h.disk[key]) {
				return
			}
		}
	}
}

// kill ends the plugin between two steps.
func (h *host) kill() {
	if p := h.process; p != nil {
		h.w.say("%s: the plugin is killed", h.name)
		h.w.figures.Kills++
		p.dead, h.process = true, nil
		wake := append(p.waiting, p.watch...)
		p.waiting, p.watch = nil, nil
		for _, f := range wake {
			h.w.after(0, f)
		}
	}
}

func (p *process) moment() ledger.Moment {
	return ledger.Moment{
		Now: time.Unix(1e9, 0).Add(p.h.w.now + p.h.skew), Joined: true, View: p.h.w.log[p.h.at], Self: p.h.id, Seed: p.h.w.Uint64(),
	}
}

// news wakes who waits for facts.
func (p *process) news() {
	watch := p.watch
	p.watch = nil
	for _, f := range watch {
		f()
	}
}

// turn waits until no write is under way. It is false if the plugin has died.
func (t *task) turn(p *process) bool {
	for p.busy && !p.dead {
		p.waiting = append(p.waiting, t.wake)
		t.pause()
	}
	return !p.dead
}

// call is one call of the ledger from its first step to its last, as package ipam does it.
func (t *task) call(p *process, start func(*ledger.Ledger, ledger.Moment) ledger.Move) (ledger.Answer, error) {
	if p == nil || !t.turn(p) {
		return ledger.Answer{}, errDied
	}
	deadline := t.w.now + ledger.AnswerTime
	move := start(p.ledger, p.moment())
	for move.Kind != ledger.Done {
		var err error
		switch move.Kind {
		case ledger.Write:
			err = t.write(p, move)
		case ledger.Propose:
			until := deadline
			if move.Late {
				until = max(deadline, t.w.now+2*time.Second)
			}
			err = t.propose(p, move.Txn, until)
		case ledger.Ask:
			t.sleep(t.w.within(0, 5*time.Millisecond))
		case ledger.Wait:
			err = t.await(p, deadline)
		}
		if p.dead || move.Kind != ledger.Write && !t.turn(p) {
			return ledger.Answer{}, errDied
		}
		if move.Kind == ledger.Write {
			p.busy = false
		}
		move = move.Next(p.moment(), err)
		if p.ledger.Notes(); move.Kind != ledger.Write && !p.busy {
			p.release()
		}
	}
	return move.Answer, move.Err
}

// release lets who waits for the end of a write go on.
func (p *process) release() {
	waiting := p.waiting
	p.waiting = nil
	for _, f := range waiting {
		p.h.w.after(0, f)
	}
}

// write is one transaction of the store. The plugin may die before it is on disk, or after.
func (t *task) write(p *process, move ledger.Move) error {
	p.busy = true
	w, h := t.w, p.h
	if w.faulty && w.chance(0.01) {
		w.figures.DiskErrors++
		return errDisk
	}
	before, rest := w.within(0, time.Millisecond), w.within(0, time.Millisecond)
	if w.faulty && w.chance(0.02) {
		before, rest = w.within(0, 2*time.Second), w.within(0, 2*time.Second)
	}
	t.sleep(before)
	if p.dead {
		return errDied
	}
	w.oldest(p, move)
	w.sameName(p, move)
	if w.plan.Flaw != FlawLostWrites || !w.chance(0.05) {
		h.apply(move)
	}
	h.stumbles()
	t.sleep(rest)
	return nil
}

// stumbles kills the plugin where it hurts: something is done, and whoever asked for it has no answer.
func (h *host) stumbles() {
	if h.w.faulty && h.w.chance(0.02) {
		h.w.after(0, h.kill)
		h.w.after(h.w.within(100*time.Millisecond, 4*time.Second), h.boot)
	}
}

func (h *host) apply(move ledger.Move) {
	h.changed, h.w.disksChanged = true, true
	h.tells()
	for _, below := range move.Drop {
		maps.DeleteFunc(h.disk, func(key string, _ []byte) bool { return strings.HasPrefix(key, below) })
		maps.DeleteFunc(h.came, func(key string, _ time.Duration) bool { return strings.HasPrefix(key, below) })
		h.process.forget(func(key string) bool { return strings.HasPrefix(key, below) })
	}
	for _, wr := range move.Writes {
		h.put(wr)
		if h.w.trace != nil {
			h.w.say("%s: disk: %s %s", h.name, wr.Key, wr.Value)
		}
	}
}

func (h *host) put(wr store.Write) {
	h.process.follow(wr)
	h.cameBack(wr)
	h.givesUp(wr)
	if wr.Value == nil {
		h.w.ended[wr.Key] = h.w.now
		delete(h.disk, wr.Key)
		return
	}
	h.disk[wr.Key] = wr.Value
}

// follow keeps the order in which addresses came back: by the end of a lease, or with a block or from another host, which is anew.
func (p *process) follow(wr store.Write) {
	kind, rest, _ := strings.Cut(wr.Key, "/")
	switch kind {
	case "carve":
		p.forgetOne("lease/" + rest)
	case "lease":
		p.forgetOne(wr.Key)
		if wr.Value == nil && p.h.disk[wr.Key] != nil {
			p.freed, p.isFreed[wr.Key] = append(p.freed, wr.Key), true
		}
	case "block":
		pool, text, _ := strings.Cut(rest, "|/")
		block, err := netip.ParsePrefix(text)
		if err != nil {
			p.h.w.breaks("%s is not the key of a block", wr.Key)
		}
		p.forget(func(key string) bool {
			addr, same := strings.CutPrefix(key, "lease/"+pool+"|/")
			return same && block.Contains(netip.MustParseAddr(addr))
		})
	}
}

func (p *process) forgetOne(key string) {
	if p.isFreed[key] {
		p.forget(func(k string) bool { return k == key })
	}
}

func (p *process) forget(which func(key string) bool) {
	p.freed = slices.DeleteFunc(p.freed, func(key string) bool {
		over := which(key)
		if over {
			delete(p.isFreed, key)
		}
		return over
	})
}

// await waits for news, or a moment.
func (t *task) await(p *process, deadline time.Duration) error {
	if t.w.now >= deadline {
		return context.DeadlineExceeded
	}
	woken := false
	wake := func() {
		if !woken {
			woken = true
			t.wake()
		}
	}
	p.watch = append(p.watch, wake)
	t.w.after(min(500*time.Millisecond, deadline-t.w.now), wake)
	t.pause()
	return nil
}

// propose is one transaction of the cluster. Its fate is decided here: written in time or late or never, with an answer or without.
func (t *task) propose(p *process, txn cluster.Txn, deadline time.Duration) error {
	w, h := t.w, p.h
	view := w.log[h.at]
	if how, fenced := view.Fenced(h.id); fenced && w.plan.Flaw != FlawLogTakesFenced {
		return fmt.Errorf("%w: it was %s", cluster.ErrNotMember, how)
	}
	plain := txn
	if w.plan.Flaw != FlawLogTakesFenced {
		txn = txn.By(h.id, view)
	}
	w.figures.Proposals++
	for !w.quorum(h) {
		if w.now >= deadline {
			return fmt.Errorf("propose: %w", cluster.ErrNoQuorum)
		}
		t.sleep(min(200*time.Millisecond, max(time.Millisecond, deadline-w.now)))
		if p.dead {
			return errDied
		}
	}
	var result error
	written, id := false, h.id
	apply := func() {
		result, written = w.append(txn, h.name), true
		if !h.cut && h.process == p { // the answer, of either kind, comes with the facts that it rests on
			h.at = w.head()
			w.after(0, p.news)
			h.stumbles()
		}
	}
	h.mayForget(txn)
	lost := w.faulty && (w.chance(0.06) || handsBack(txn) && w.chance(0.5))
	if lost && w.chance(0.6) { // written some time, or never; nobody here will know
		w.figures.LostAnswers++
		if w.chance(0.7) {
			w.after(w.within(0, 25*time.Second), apply)
		}
		t.sleep(max(0, deadline-w.now))
		return fmt.Errorf("propose: %w", cluster.ErrNoQuorum)
	}
	w.after(w.within(time.Millisecond, 15*time.Millisecond), apply)
	if lost {
		w.figures.LostAnswers++
		t.sleep(max(0, deadline-w.now))
		return fmt.Errorf("propose: %w", cluster.ErrNoQuorum)
	}
	t.sleep(w.within(16*time.Millisecond, 30*time.Millisecond))
	if p.dead {
		return errDied
	}
	if !written {
		return fmt.Errorf("propose: %w", cluster.ErrNoQuorum)
	}
	if _, fenced := w.log[h.at].Fenced(id); result != nil && !fenced && strings.HasPrefix(result.Error(), "forgotten/"+id+":") {
		return t.propose(p, plain, deadline) // something else was deleted meanwhile: see cluster.Cond
	}
	if w.plan.Flaw == FlawConflictIsSuccess && w.chance(0.5) {
		return nil
	}
	return result
}
