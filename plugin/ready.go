package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// What a server may be doing, as the command line shows it.
const (
	stateStarting = "starting"
	stateReady    = "ready"
	stateRefusing = "refusing"
)

var (
	errStopping = errors.New("the plugin is being stopped")
	errBusy     = errors.New("too many calls are at work, and none of them came to its end in time")
	errGone     = errors.New("nobody waits for the answer any more: nothing was done")
)

// phase is one state of a server; it is replaced as a whole.
type phase struct {
	name    string
	waiting string        // starting: for what
	reason  error         // refusing: why
	backend Backend       // ready
	changed chan struct{} // closed when another phase follows
}

// gate holds calls until there is somebody to hand them to.
type gate struct {
	mu    sync.Mutex // guards the following
	now   *phase
	held  int           // calls that have a backend
	freed chan struct{} // closed when none has one any more
}

func newGate() *gate {
	return &gate{now: &phase{name: stateStarting, waiting: "the plugin's start", changed: make(chan struct{})}}
}

func (g *gate) current() *phase {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *gate) enter(next phase) {
	next.changed = make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.now.changed)
	g.now = &next
}

// hold is current for a call: it has the backend, if there is one, until release.
func (g *gate) hold() *phase {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.now.name == stateReady {
		if g.held == 0 {
			g.freed = make(chan struct{})
		}
		g.held++
	}
	return g.now
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held--; g.held == 0 {
		close(g.freed)
	}
}

// free waits until no call has a backend. In a phase that is not ready none gets one meanwhile.
func (g *gate) free(ctx context.Context) error {
	g.mu.Lock()
	held, freed := g.held, g.freed
	g.mu.Unlock()
	if held == 0 {
		return nil
	}
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// backend waits for the phase to be ready or refusing, at most for the given time. If the error is nil the caller says
// release when it is through with the backend.
func (g *gate) backend(ctx context.Context, limit time.Duration) (Backend, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		p := g.hold()
		switch p.name {
		case stateReady:
			return p.backend, nil
		case stateRefusing:
			return Backend{}, fmt.Errorf("the plugin cannot work: %w", p.reason)
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return Backend{}, context.Cause(ctx)
		case <-timer.C:
			return Backend{}, fmt.Errorf("the plugin is not ready: waited %s for %s", limit, g.current().waiting)
		}
	}
}
