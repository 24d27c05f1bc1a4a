package cluster

import "sync"

// wakers are channels of capacity one: whoever is busy is woken once afterwards, however much has changed.
type wakers struct {
	mu  sync.Mutex
	all map[chan struct{}]bool
}

// revisions number the states of something, for those who are woken to see what they have to look at.
type revisions struct {
	last, all uint64
	each      map[string]uint64
}

// maxRevisions is how many are numbered by themselves: a few times maxNetworks, of which most are no longer there then.
const maxRevisions = 1 << 16

// raise numbers anew what has changed; everything if that is not said.
func (r *revisions) raise(changed []string) {
	r.last++
	if len(changed) == 0 || len(r.each) > maxRevisions {
		r.all, r.each = r.last, nil
		return
	}
	if r.each == nil {
		r.each = map[string]uint64{}
	}
	for _, name := range changed {
		r.each[name] = r.last
	}
}

func (r *revisions) of(name string) uint64 { return max(r.all, r.each[name]) }

func (w *wakers) watch() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[chan struct{}]bool{}
	}
	w.all[ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, ch)
	}
}

func (w *wakers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.all {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
