package driver

import (
	"context"
	"fmt"
	"reflect"

	"github.com/carricknet/carrick/kernel"
)

// guardOwner is what the kernel knows the guard by.
const guardOwner = "node"

// guard is what this host owes the other nodes, whatever networks it has, as it was set last.
type guard struct {
	turn turn
	set  kernel.State
	err  error // why it is not as it should be; written under Driver.mu as well
}

// KeepGuard brings Config.Guard in step now. A failure is an alarm, and Run tries again.
func (d *Driver) KeepGuard(ctx context.Context) error { return d.keepGuard(ctx, true) }

// keepGuard does nothing where nothing has changed, unless it is to look.
func (d *Driver) keepGuard(ctx context.Context, look bool) error {
	if d.Guard == nil {
		return nil
	}
	g := &d.guard
	if err := g.turn.take(ctx); err != nil {
		return fmt.Errorf("guard: waiting for another change of it: %w", err)
	}
	defer g.turn.give()
	want := d.Guard()
	if same := reflect.DeepEqual(want, g.set); same && g.err == nil && (!look || want.Empty()) {
		return nil
	}
	err := d.Kernel.Set(ctx, guardOwner, want)
	switch {
	case err != nil && (g.err == nil || g.err.Error() != err.Error()):
		d.Logger.WithError(err).Error(unguarded)
	case err == nil && g.err != nil:
		d.Logger.Info("what containers of this host forge is kept from the other nodes again")
	}
	d.change(func() { g.err = err })
	if err == nil {
		g.set = want
	}
	return err
}

// DropGuard removes the guard if this host has no network. It is for the end of the plugin, which may be removed next: what it
// leaves for networks to go on would then stay for ever.
func (d *Driver) DropGuard(ctx context.Context) error {
	if d.Guard == nil || len(d.all()) > 0 {
		return nil
	}
	g := &d.guard
	if err := g.turn.take(ctx); err != nil {
		return fmt.Errorf("guard: waiting for another change of it: %w", err)
	}
	defer g.turn.give()
	g.set = kernel.State{}
	return d.Kernel.Set(ctx, guardOwner, g.set)
}

const unguarded = "containers of this host may send forged frames to other nodes"

// guards tells whether there is a guard to be kept, which is then nobody's orphan.
func (d *Driver) guards() bool { return d.Guard != nil && !d.Guard().Empty() }
