package ledger

import (
	"errors"
	"net/netip"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// Moment is all that a step may know of the world around the Ledger.
type Moment struct {
	Now    time.Time
	Joined bool         // the host is in a cluster; else View and Self are empty
	View   cluster.View // the newest that the host has
	Self   string       // its id
	Seed   uint64       // a new random number, for what is drawn
	// Nodes are those of the cluster, so that it is known who is gone; nil: nobody is.
	Nodes func() []cluster.Node
}

// Kind says what a Move wants to be done.
type Kind int

// Kinds of a Move.
const (
	Done    Kind = iota // nothing: Answer or Err is the result
	Write               // Writes and Drop on disk, all or none; no other step of the Ledger comes in between
	Propose             // Txn to the cluster
	Ask                 // Cluster.Undisputed; it may take a while
	Wait                // for a change of the facts, or a moment
)

// Answer is the result of a call that has one.
type Answer struct {
	Pool   string       // of RequestPool
	Prefix netip.Prefix // of RequestPool the subnet, of RequestAddress the address with the subnet's length
}

// Move is what has to be done next for a call. Whoever does it tells Next how it went, and when it is, and gets another
// Move, until one is Done. All but Write may take long, and other steps of the Ledger may come in between. A Move that
// is never told of is one at which the host died.
type Move struct {
	Kind   Kind
	Answer Answer
	Err    error
	Writes []store.Write
	Drop   []string // everything below these keys is deleted
	Txn    cluster.Txn
	Late   bool // the proposal is made although the call's time is over

	next func(Moment, error) Move
}

// Next goes on. An error of a Write means that nothing was written; one of a Propose that is neither cluster.ErrConflict nor a
// refusal means that the transaction may be written yet.
func (m Move) Next(at Moment, err error) Move { return m.next(at, err) }

func done(err error) Move { return Move{Kind: Done, Err: err} }

// write has what is written on disk, and only then calls after, which changes the Ledger accordingly.
func write(writes []store.Write, after func(Moment) Move) Move {
	return Move{Kind: Write, Writes: writes, next: func(at Moment, err error) Move {
		if err != nil {
			return done(err)
		}
		return after(at)
	}}
}

func propose(txn cluster.Txn, next func(Moment, error) Move) Move {
	return Move{Kind: Propose, Txn: txn, next: next}
}

func wait(next func(Moment, error) Move) Move { return Move{Kind: Wait, next: next} }

// agree proposes what plan makes of the newest view, and asks it again after a conflict. A refusal is made from a view that may
// be old: it counts when the conditions that plan gives with it are confirmed, and without a quorum as it is.
func agree(at Moment, plan func(Moment) (cluster.Txn, error), after func(Moment, error) Move) Move {
	txn, refusal := plan(at)
	switch {
	case refusal == nil && len(txn.Then) == 0, refusal != nil && len(txn.If) == 0:
		return after(at, refusal)
	case refusal != nil:
		txn.Then = nil
	}
	return propose(txn, func(at Moment, err error) Move {
		switch {
		case errors.Is(err, cluster.ErrConflict) && !flawed(flawConflictIsFinal):
			return agree(at, plan, after)
		case refusal != nil:
			return after(at, refusal)
		}
		return after(at, err)
	})
}

// inOrder does one step after another, whatever becomes of each, and ends with their errors.
func inOrder(at Moment, steps []func(Moment) Move, errs ...error) Move {
	if len(steps) == 0 {
		return done(errors.Join(errs...))
	}
	return then(at, steps[0](at), func(at Moment, m Move) Move { return inOrder(at, steps[1:], append(errs, m.Err)...) })
}

// then goes on after a call is done, with how it ended.
func then(at Moment, m Move, after func(Moment, Move) Move) Move {
	if m.Kind == Done {
		return after(at, m)
	}
	next := m.next
	m.next = func(at Moment, err error) Move { return then(at, next(at, err), after) }
	return m
}
