package driver

import "context"

// turn is a mutex that can be waited for until a context ends: of the calls that wait behind one that hangs, each can still
// be answered.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turn) give() { <-t }
