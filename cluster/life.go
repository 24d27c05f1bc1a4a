package cluster

import (
	"context"
	"io"
	"sync"
)

// life is the goroutines of one run, and the connections they serve.
type life struct {
	mu    sync.Mutex
	ctx   context.Context // nil before begin
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ended bool
}

func (l *life) begin(ctx context.Context) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx != nil {
		return false
	}
	l.ctx, l.stop = context.WithCancel(ctx)
	return true
}

// enter tells whether the life goes on, and until leave is called it does not end.
func (l *life) enter() (context.Context, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || l.ended {
		return nil, false
	}
	l.wg.Add(1)
	return l.ctx, true
}

func (l *life) leave() { l.wg.Done() }

// spawn starts f unless the life has not begun, or is ending.
func (l *life) spawn(f func(ctx context.Context)) bool {
	ctx, ok := l.enter()
	if ok {
		go func() {
			defer l.leave()
			f(ctx)
		}()
	}
	return ok
}

func (l *life) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.stop()
	l.wg.Wait()
}

// closeWith closes c when ctx ends. The function it returns takes that back; once it has returned, c is not touched any
// more. It must be called, once.
func closeWith(ctx context.Context, c io.Closer) (stop func()) {
	closed := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(closed)
		c.Close()
	})
	return func() {
		if !cancel() {
			<-closed
		}
	}
}
