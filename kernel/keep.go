package kernel

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long a change of somebody else's waits for more of them: a program that takes a device away and makes it
	// anew is not to be met half way.
	settle = 200 * time.Millisecond
	// auditEvery is how often all is read and compared although no event has told of a change: there are none for sysctls and
	// mounts, and some are missed. A network of 10,000 remote endpoints is read in 20 ms.
	auditEvery = 30 * time.Second
	// calm is after how long without a repair an owner is no longer fought over. Within it the next one waits, twice as long each
	// time that the same has to be repaired, up to auditEvery: two programs that undo each other are not to do it a thousand
	// times a minute.
	calm = time.Minute
)

// A memory is what was last set for an owner, and how often that had to be repaired.
type memory struct {
	want    State // FDB and Neighs are its own
	index   map[ref]int
	repairs map[string]int // what was repaired since it was calm, and how often
	next    time.Time      // the next repair is not before
	failure string         // of the last, "": none
}

// Run keeps what was set as it is, until ctx ends: what others change is changed back, within a second if the kernel tells of
// it. While it runs, a Set believes that entries of forwarding and neighbour tables are as the last Set left them, and does not
// read them.
func (k *Kernel) Run(ctx context.Context) error {
	if err := k.lock(ctx); err != nil {
		return ended(ctx, err)
	}
	err := k.listen()
	k.unlock()
	if err != nil {
		return err
	}
	defer k.deafen()
	audit := time.NewTicker(k.auditEvery)
	defer audit.Stop()
	var due <-chan time.Time // fires when it is time to look at what is in doubt
	settling := false        // it does so within settle
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.doubts.arrived:
			if !settling {
				due, settling = time.After(settle), true
			}
		case <-due:
			due, settling = k.look(ctx, k.doubts.take()), false
		case <-audit.C:
			k.audit(ctx)
		}
	}
}

// ended is err, unless it comes of the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen begins to hear of changes in all namespaces, those that come later too.
func (k *Kernel) listen() error {
	k.listening = true
	for _, sp := range k.spaces() {
		if err := sp.listen(k.heard, k.doubts.all); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) deafen() {
	select {
	case <-k.turn:
	case <-k.closed: // which has closed everything
		return
	}
	defer k.unlock()
	k.listening = false
	for _, sp := range k.spaces() {
		sp.stopListening()
	}
}

// note notes what owners have after a Set that succeeded.
func (k *Kernel) note(s *scope, want State, owners []string) {
	for _, owner := range owners {
		old := k.memory[owner]
		delete(k.memory, owner)
		k.doubts.expect(owner, want, s.index)
		if want.Empty() {
			continue
		}
		m := &memory{want: want, index: maps.Clone(s.index)}
		m.want.FDB, m.want.Neighs = slices.Clone(want.FDB), slices.Clone(want.Neighs)
		if old != nil {
			m.repairs, m.next = old.repairs, old.next
		}
		k.memory[owner] = m
	}
}

// recall is what an owner's tables were left as, or nil if that cannot be relied upon.
func (k *Kernel) recall(owner string, owned []device) *memory {
	m := k.memory[owner]
	if m == nil || !k.listening || k.doubts.about(owner)&doubtTables != 0 || len(owned) != len(m.want.Links) {
		return nil
	}
	for _, l := range m.want.Links {
		i := slices.IndexFunc(owned, func(d device) bool { return d.NS == l.NS && d.Name == l.Name })
		e := expected{Link: l}
		if l.Master != "" {
			e.master = m.index[ref{l.NS, l.Master}]
		}
		if i < 0 || owned[i].alias == "" || owned[i].index != m.index[ref{l.NS, l.Name}] || !e.as(owned[i]) {
			return nil
		}
	}
	return m
}

// audit looks at everything that is kept. Links are compared all at once: most owners have no more than one.
func (k *Kernel) audit(ctx context.Context) {
	if k.lock(ctx) != nil {
		return
	}
	suspects := make(map[string]doubt)
	devices, err := k.devices()
	if err == nil {
		k.remember(devices)
		at := make(map[place]device, len(devices))
		for _, d := range devices {
			at[place{ns: d.NS, index: d.index}] = d
		}
		for owner, m := range k.memory {
			if len(m.want.Addrs)+len(m.want.Routes)+len(m.want.FDB)+len(m.want.Neighs)+len(m.want.Sysctls)+len(m.want.Rules) != 0 {
				suspects[owner] = doubtAll
			}
		}
		k.doubts.differing(at, suspects)
	}
	k.unlock()
	if err != nil {
		k.log.WithError(err).Warn("what the kernel has cannot be compared with what it should have; trying again")
		return
	}
	k.look(ctx, suspects)
}

// look compares what owners have with what was set for them, and repairs what differs. It says when to look again at those
// that are being fought over.
func (k *Kernel) look(ctx context.Context, owners map[string]doubt) <-chan time.Time {
	list := slices.Sorted(maps.Keys(owners))
	wait := time.Duration(0)
	for _, bridges := range []bool{true, false} { // ports after what they are ports of
		for _, owner := range list {
			if k.lock(ctx) != nil {
				return nil
			}
			m := k.memory[owner]
			switch {
			case m == nil || bridges != m.hasBridge():
			case time.Until(m.next) > 0:
				k.doubts.again(owner, owners[owner])
				if left := time.Until(m.next); wait == 0 || left < wait {
					wait = left
				}
			default:
				k.repair(owner, m, owners[owner])
			}
			k.unlock()
		}
	}
	if wait == 0 {
		return nil
	}
	return time.After(wait)
}

func (m *memory) hasBridge() bool {
	return slices.ContainsFunc(m.want.Links, func(l Link) bool { return l.Bridge != nil })
}

// repair makes what an owner has what was last set for it. A failure is logged when it is new, and tried again by the next
// audit.
func (k *Kernel) repair(owner string, m *memory, about doubt) {
	ops, err := k.restore(owner, m, about)
	if err != nil {
		k.forget()
		if err.Error() != m.failure {
			k.log.WithError(err).WithField("owner", owner).Error("somebody has changed what is ours, and it cannot be repaired; trying again")
		}
		m.failure = err.Error()
		return
	}
	m.failure = ""
	if len(ops) == 0 {
		return
	}
	what := summary(ops)
	if time.Since(m.next) > calm || m.repairs == nil {
		m.repairs = make(map[string]int)
	}
	m.next = time.Now().Add(min(settle<<m.repairs[what], auditEvery))
	m.repairs[what] = min(m.repairs[what]+1, 10) // settle<<10 is beyond auditEvery
	k.counted.repaired(ops)
	k.log.WithField("owner", owner).Warn("repaired what somebody else had changed: " + what)
}

// restore is a Set of what was last set, which gives back what there was to do. Tables that are not in doubt are read only if a
// link is not as it should be: what a table loses with its link it loses one by one, and each is told of.
func (k *Kernel) restore(owner string, m *memory, about doubt) ([]op, error) {
	if err := k.prepareShared(m.want.needs(Shared)); err != nil {
		return nil, err
	}
	recall := k.recall
	if about&doubtTables != 0 {
		recall = nil
	}
	s, have, err := k.read(m.want, []string{owner}, recall)
	if err != nil {
		return nil, err
	}
	want := m.want
	have.Links, want.Links = withoutLost(have.Links, want.Links)
	ops := diff(have, want)
	if len(ops) == 0 {
		k.doubts.expect(owner, want, s.index)
		return nil, nil
	}
	if err := k.apply(s, ops); err != nil {
		return nil, err
	}
	k.known[owner] = nil
	k.settled(s, want, []string{owner})
	m.index = maps.Clone(s.index)
	k.doubts.expect(owner, want, s.index)
	return ops, nil
}

// withoutLost leaves out pairs that are not where they were set. The other end is in a container, or died with it: another pair
// would lead nowhere, and nothing of what has become of this one can be mended from here.
func withoutLost(have, want []Link) ([]Link, []Link) {
	lost := func(other []Link) func(Link) bool {
		return func(l Link) bool { return l.Veth != nil && !State{Links: other}.has(l.NS, l.Name) }
	}
	return slices.DeleteFunc(slices.Clone(have), lost(want)), slices.DeleteFunc(slices.Clone(want), lost(have))
}

// summary names the first things that were done.
func summary(ops []op) string {
	const most = 3
	var lines []string
	for _, o := range ops {
		lines = append(lines, strings.Split(o.String(), "\n")...)
	}
	if len(lines) <= most {
		return strings.Join(lines, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(lines[:most], "; "), len(lines)-most)
}
