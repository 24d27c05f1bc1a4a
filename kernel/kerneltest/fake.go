package kerneltest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/carricknet/carrick/kernel"
)

// Fake is a Kernel in memory. The zero Fake is one in which nobody has anything. It may be used by many at once.
type Fake struct {
	mu      sync.Mutex
	states  map[string]kernel.State
	waiting map[string]bool
	calls   int
	fail    int
	err     error
}

// Set is as the method of kernel.Kernel. It refuses what that would refuse before it looks at the kernel.
func (f *Fake) Set(ctx context.Context, owner string, want kernel.State) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := want.Check(); err != nil {
		return fmt.Errorf("state of %s: %w", owner, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.count(); err != nil {
		return err
	}
	if f.states == nil {
		f.states, f.waiting = make(map[string]kernel.State), make(map[string]bool)
	}
	_, known := f.states[owner]
	if want.Empty() {
		delete(f.states, owner)
		delete(f.waiting, owner)
		return nil
	}
	f.states[owner] = want
	if !known {
		f.waiting[owner] = hasContainerEnd(want)
	}
	return nil
}

// Remove is as the method of kernel.Kernel, and one call.
func (f *Fake) Remove(ctx context.Context, owners ...string) error {
	if err := ctx.Err(); err != nil || len(owners) == 0 {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.count(); err != nil {
		return err
	}
	for _, owner := range owners {
		delete(f.states, owner)
		delete(f.waiting, owner)
	}
	return nil
}

// Run is as the method of kernel.Kernel: nobody changes what is in memory.
func (f *Fake) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Stats is as the method of kernel.Kernel, of which Sets alone are counted.
func (f *Fake) Stats() kernel.Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return kernel.Stats{Sets: uint64(f.calls)}
}

// Owners is as the method of kernel.Kernel.
func (f *Fake) Owners(ctx context.Context) ([]kernel.Owned, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.count(); err != nil {
		return nil, err
	}
	var list []kernel.Owned
	for _, owner := range slices.Sorted(maps.Keys(f.states)) {
		list = append(list, kernel.Owned{Owner: owner, Waiting: f.waiting[owner]})
	}
	return list, nil
}

func hasContainerEnd(s kernel.State) bool {
	for _, l := range s.Links {
		if l.Veth != nil && l.Veth.PeerNS == kernel.Host && strings.HasPrefix(l.Veth.Peer, kernel.KindContainerEnd) {
			return true
		}
	}
	return false
}

// count counts a call and says whether it fails. f.mu is held.
func (f *Fake) count() error {
	f.calls++
	if f.calls == f.fail {
		return f.err
	}
	return nil
}

// FailNth makes the nth call from now fail with err, counted from 1 over Set, Remove and Owners, and change nothing. With n 0 none
// fails.
func (f *Fake) FailNth(n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.fail, f.err = 0, n, err
}

// Calls is how many calls there were since the last FailNth: a test that fails each in turn ends when n exceeds it.
func (f *Fake) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Take is what the engine does with the container end of an owner's pair, and GiveBack the reverse.
func (f *Fake) Take(owner string) { f.setWaiting(owner, false) }

// GiveBack puts the container end of an owner's pair back into the host's namespace.
func (f *Fake) GiveBack(owner string) { f.setWaiting(owner, true) }

func (f *Fake) setWaiting(owner string, waiting bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.states[owner]; ok {
		f.waiting[owner] = waiting
	}
}

// Die ends a sandbox: both ends of the owner's pair vanish, and whatever else there is of the owner is its rules.
func (f *Fake) Die(owner string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := kernel.State{Rules: f.states[owner].Rules}
	delete(f.waiting, owner)
	if s.Empty() {
		delete(f.states, owner)
	} else {
		f.states[owner] = s
	}
}

// State is what an owner has.
func (f *Fake) State(owner string) kernel.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states[owner]
}

// String is everything, owner by owner in order of name, as commands.
func (f *Fake) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, owner := range slices.Sorted(maps.Keys(f.states)) {
		fmt.Fprintf(&b, "# %s\n%s", owner, f.states[owner])
	}
	return b.String()
}
