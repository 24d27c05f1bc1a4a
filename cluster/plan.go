package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A plan is what is to be written so that something becomes true, made from one View and nothing else: no clock, no chance,
// no input or output. The functions Plan… return their result together with the transaction, in one of three ways:
//
//	a transaction with Then   the result holds once it is written
//	one without Then          the result holds already: there is nothing to write
//	an error                  it is refused, for a reason that rests on the facts that If names
//
// The view that a plan is made from may be old. The transaction sees to that by its conditions, Decide by trying again.

// proposer is what plans need of a Cluster to become facts.
type proposer interface {
	View() View
	Propose(ctx context.Context, txn Txn) (View, error)
	ID() string
}

// Decide plans and writes until the facts stay still, and returns the result with the newest view. A refusal is made from a
// copy that may lag behind, so it counts only when the facts that it rests on are confirmed to be the newest; without a
// quorum it stands as it is, for then nothing new is made anyhow. Every other error is one of Propose, behind what.
func Decide[T any](ctx context.Context, c proposer, what string, plan func(View) (T, Txn, error)) (T, View, error) {
	var none T
	view := c.View()
	for {
		result, txn, refusal := plan(view)
		if refusal == nil && len(txn.Then) == 0 {
			return result, view, nil
		}
		if refusal != nil && len(txn.If) == 0 {
			return none, view, refusal // it rests on no fact
		}
		if refusal != nil {
			txn.Then = nil
		}
		next, err := c.Propose(ctx, txn)
		switch {
		case errors.Is(err, ErrConflict) && ctx.Err() == nil:
			view = next
		case refusal != nil:
			return none, next, refusal
		case err != nil:
			return none, next, fmt.Errorf("%s: %w", what, err)
		default:
			return result, next, nil
		}
	}
}

// By is txn as a node proposes it that has this view: it has no effect once the node is fenced. Propose does that by itself;
// whoever applies transactions to a View has to.
func (t Txn) By(node string, v View) Txn {
	t.If = append(slices.Clone(t.If), Cond{Key: belowFenced + node, Index: v.Index()})
	return t
}

// watcher is who has views that follow each other.
type watcher interface {
	View() View
	Watch() (<-chan struct{}, func())
}

// Newer waits for a view that is newer than v, and returns it; or the one that there is, and why ctx ended.
func Newer(ctx context.Context, c watcher, v View) (View, error) {
	wake, stop := c.Watch()
	defer stop()
	for {
		if now := c.View(); now.Index() > v.Index() {
			return now, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return c.View(), ctx.Err()
		}
	}
}
