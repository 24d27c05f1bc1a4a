package sim

import (
	"container/heap"
	"iter"
	"time"
)

// event is something that happens at a time. Events of one time happen in the order in which they were made.
type event struct {
	at   time.Duration
	turn uint64
	do   func()
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].turn < e[j].turn
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*e = old[:len(old)-1]
	return last
}

// after has something happen later.
func (w *world) after(d time.Duration, do func()) {
	w.turn++
	heap.Push(&w.events, &event{w.now + d, w.turn, do})
}

// run lets everything happen until a time, or until a promise is broken.
func (w *world) run(until time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= until && w.broken == nil {
		e := heap.Pop(&w.events).(*event)
		w.now = e.at
		e.do()
		w.check()
	}
	w.now = max(w.now, until)
}

// task is what goes on over some time: a call of an engine, the life of a container. Only one runs at a time.
type task struct {
	w     *world
	on    *coroutine
	wake  func()
	ended bool
}

// coroutine is what tasks run on, one after another: its stack has grown already.
type coroutine struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	task  *task
	do    func(*task)
}

// start begins a task at once.
func (w *world) start(do func(*task)) {
	t := &task{w: w}
	if n := len(w.idle) - 1; n >= 0 {
		t.on, w.idle = w.idle[n], w.idle[:n]
	} else {
		t.on = &coroutine{}
		t.on.next, t.on.stop = iter.Pull(t.on.run)
		w.coroutines = append(w.coroutines, t.on)
	}
	t.on.task, t.on.do = t, do
	t.wake = func() {
		if !t.ended {
			t.on.next()
		}
	}
	t.wake()
}

func (c *coroutine) run(yield func(struct{}) bool) {
	c.yield = yield
	defer func() {
		if r := recover(); r != nil && r != any(over{}) {
			panic(r)
		}
	}()
	for {
		c.do(c.task)
		c.task.ended = true
		c.task.w.idle = append(c.task.w.idle, c)
		if !yield(struct{}{}) {
			return
		}
	}
}

// over ends a task that is still going on when its history ends.
type over struct{}

// pause gives the others a turn until wake is called.
func (t *task) pause() {
	if !t.on.yield(struct{}{}) {
		panic(over{})
	}
}

// sleep lets time pass.
func (t *task) sleep(d time.Duration) {
	t.w.after(d, t.wake)
	t.pause()
}
