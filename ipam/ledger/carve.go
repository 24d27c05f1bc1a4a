package ledger

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// question is an address that is asked for in a network of the cluster.
type question struct {
	shared string
	addr   netip.Addr
}

// carve asks the host that has an address in its block for it, and goes on when it is ours.
func (l *Ledger) carve(at Moment, p *pool, addr netip.Addr, after func(Moment, error) Move) Move {
	q := question{p.Shared, addr}
	l.asking[q]++
	finish := func(at Moment, err error) Move {
		if l.asking[q]--; l.asking[q] == 0 {
			delete(l.asking, q)
		}
		if err == nil || l.asking[q] > 0 {
			return after(at, err)
		}
		return q.withdraw(at, func(at Moment) Move { return after(at, err) })
	}
	return agree(at, func(at Moment) (cluster.Txn, error) {
		return cluster.PlanAsk(at.View, q.shared, addr, at.Self)
	}, func(at Moment, err error) Move {
		if err != nil {
			return finish(at, err)
		}
		return q.await(at, finish)
	})
}

// await waits for the answer.
func (q question) await(at Moment, after func(Moment, error) Move) Move {
	if over, err := q.answered(at); over {
		return after(at, err)
	}
	return wait(func(at Moment, err error) Move {
		if err != nil {
			owner, _ := at.View.Owner(q.shared, q.addr)
			return after(at, fmt.Errorf("it is in block %s of host %s, which did not answer within %s", owner.Prefix,
				at.View.NodeName(owner.Node), AnswerTime))
		}
		return q.await(at, after)
	})
}

// answered says whether a question has got its answer: a yes is no error.
func (q question) answered(at Moment) (bool, error) {
	v := at.View
	owner, found := v.Owner(q.shared, q.addr)
	if !found || owner.Node == at.Self {
		return true, nil // ours, or free to be claimed
	}
	w, ok := v.Want(q.shared, q.addr)
	switch {
	case !ok:
		return true, fmt.Errorf("it was given to host %s", v.NodeName(owner.Node))
	case w.Node != at.Self:
		return true, fmt.Errorf("host %s is asking for it at the moment", v.NodeName(w.Node))
	case w.Denied != "":
		return true, fmt.Errorf("host %s has it in its block %s: %s", v.NodeName(owner.Node), owner.Prefix, w.Denied)
	}
	return false, nil
}

// withdraw removes a question of ours. If that fails it stays until the next round of Keep removes it.
func (q question) withdraw(at Moment, after func(Moment) Move) Move {
	txn := cluster.PlanWithdraw(at.View, q.shared, q.addr, at.Self)
	if len(txn.Then) == 0 || flawed(flawQuestionsStay) {
		return after(at)
	}
	m := propose(txn, func(at Moment, _ error) Move { return after(at) })
	m.Late = true
	return m
}

// questions are what is asked of networks that this host has, in their order.
func (l *Ledger) questions(at Moment) []question {
	var shared []string
	var all []question
	for _, p := range l.ordered() {
		if p.Shared != "" && p.Since != unsettled && !slices.Contains(shared, p.Shared) {
			shared = append(shared, p.Shared)
			for _, w := range at.View.Wants(p.Shared) {
				all = append(all, question{p.Shared, w.Addr})
			}
		}
	}
	return all
}

// settleQuestion answers what another host asks of our blocks, and takes back what nobody here waits for any more.
func (l *Ledger) settleQuestion(at Moment, q question) Move {
	w, ok := at.View.Want(q.shared, q.addr)
	switch {
	case !ok || w.Node == "" || flawed(flawNoAnswers) && w.Node != at.Self: // a newer version's waits in vain, and is told so
		return done(nil)
	case w.Node == at.Self && l.asking[q] > 0:
		return done(nil)
	case w.Node == at.Self:
		return q.withdraw(at, func(Moment) Move { return done(nil) })
	case w.Denied != "":
		return done(nil)
	}
	for _, p := range l.ordered() {
		if p.Shared == q.shared && p.Since != unsettled && p.Prefix.Contains(q.addr) {
			return l.answer(at, p, w)
		}
	}
	return done(nil)
}

// answer decides about one question. A yes is on disk as a no to everybody here before it is said: whatever becomes of the
// proposal, the address is not handed out by us meanwhile.
func (l *Ledger) answer(at Moment, p *pool, w cluster.Want) Move {
	p.refresh(at)
	owner, found := p.owner(w.Addr)
	if !found || !p.ours(owner) || p.stale || p.givenUp(owner) { // a block that was given up is nobody's soon, and may be claimed
		return done(nil)
	}
	shared, self := p.Shared, at.Self
	reason := p.denial(w.Addr, owner)
	say := func(at Moment) Move {
		txn, err := cluster.PlanGive(at.View, shared, w, self)
		if reason != "" {
			txn, err = cluster.PlanDeny(at.View, shared, w, self, reason)
		}
		if err != nil || len(txn.Then) == 0 {
			return done(err)
		}
		return propose(txn, func(_ Moment, err error) Move {
			if err != nil && !errors.Is(err, cluster.ErrConflict) {
				err = fmt.Errorf("answer who asks for %s: %w", w.Addr, err)
				if flawed(flawTakenBackEarly) {
					return write(writes(deletion(carveKey(p.ID, w.Addr))), func(Moment) Move {
						delete(p.excluded, w.Addr)
						p.known = false
						return done(err)
					})
				}
				return done(err)
			}
			return done(nil)
		})
	}
	if reason != "" {
		return say(at)
	}
	return l.exclude(at, p, carveRecord{recordVersion, p.ID, w.Addr, w.Index, p.viewed}, say)
}

// denial says why another host cannot have an address of ours.
func (p *pool) denial(addr netip.Addr, owner cluster.Block) string {
	switch l := p.space.leases[addr]; {
	case l != nil && !flawed(flawUsedIsGivenAway):
		return "it is in use"
	case !p.subnet().Usable(addr):
		return "it is not for endpoints"
	case p.frozen(owner):
		return "the block is frozen, since what was handed out of it was lost"
	}
	return ""
}

// exclude notes that an address is given to another host.
func (l *Ledger) exclude(at Moment, p *pool, rec carveRecord, after func(Moment) Move) Move {
	if have, ok := p.excluded[rec.Addr]; ok && have.Want == rec.Want {
		return after(at)
	}
	note := writes(putCarve(rec))
	if flawed(flawExclusionNotOnDisk) {
		note = nil
	}
	return write(note, func(at Moment) Move {
		p.excluded[rec.Addr] = rec
		p.known = false
		p.refresh(at)
		return after(at)
	})
}

// takeBack ends exclusions of addresses that are ours after all: the view is as new as the question, the address is ours in
// it, and the question is gone, so that no answer to it can come any more.
func (l *Ledger) takeBack(at Moment, p *pool) Move {
	p.refresh(at)
	if p.stale || !at.Joined {
		return done(nil)
	}
	var ours []netip.Addr
	var all []store.Write
	for _, addr := range slices.SortedFunc(maps.Keys(p.excluded), netip.Addr.Compare) {
		rec := p.excluded[addr]
		owner, found := at.View.Owner(p.Shared, addr)
		w, asked := at.View.Want(p.Shared, addr)
		if open := asked && w.Index == rec.Want; at.View.Index() < rec.Seen || !found || !p.ours(owner) || open {
			continue
		}
		ours, all = append(ours, addr), append(all, deletion(carveKey(p.ID, addr)))
	}
	if len(ours) == 0 {
		return done(nil)
	}
	return write(all, func(at Moment) Move {
		for _, addr := range ours {
			delete(p.excluded, addr)
		}
		p.known = false
		p.refresh(at)
		return done(nil)
	})
}
