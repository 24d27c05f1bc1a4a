//go:build nemesis

package cluster

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// disk is a KV that may be slow, and whose host may lose its power: what was not acknowledged before is there or not.
type disk struct {
	*memKV

	mu    sync.Mutex
	slow  time.Duration     // at most, for each write
	saved map[string][]byte // what will be there after the power cut; nil: there is power
	// lies: it acknowledges before it has written, and loses what it was given within the last moments before a power cut.
	lies bool
	late []unwritten
}

// unwritten is what undoes one batch of a disk that lies.
type unwritten struct {
	at   time.Time
	undo []Write
}

// lieFor is how long a disk that lies keeps what it was given in its memory.
const lieFor = 400 * time.Millisecond

// Apply is of KV. While the power is cut the program of the host goes on for a moment, and finds that all is well; nobody
// hears it.
func (d *disk) Apply(writes ...Write) error {
	d.mu.Lock()
	slow, begun := d.slow, d.saved == nil
	d.mu.Unlock()
	if slow > 0 {
		<-time.After(rand.N(slow))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if begun && d.saved != nil && rand.IntN(2) == 0 { // it was being written
		rescued := &memKV{data: d.saved}
		_ = rescued.Apply(writes...) // never fails: nobody told it to
	}
	if d.lies {
		d.late = slices.DeleteFunc(d.late, func(u unwritten) bool { return time.Since(u.at) > lieFor })
		u := unwritten{at: time.Now()}
		for _, w := range writes {
			had, _ := d.Get(w.Key)
			u.undo = append(u.undo, Write{Key: w.Key, Value: had})
		}
		d.late = append(d.late, u)
	}
	return d.memKV.Apply(writes...)
}

// cutPower ends all writing until restorePower.
func (d *disk) cutPower() {
	d.mu.Lock()
	defer d.mu.Unlock()
	saved := &memKV{data: map[string][]byte{}}
	for key, value := range d.Prefix("") {
		saved.data[key] = value
	}
	for _, u := range slices.Backward(d.late) {
		if time.Since(u.at) <= lieFor {
			_ = saved.Apply(u.undo...) // never fails: nobody told it to
		}
	}
	d.saved, d.late = saved.data, nil
}

// restorePower is for when the program of the host has ended.
func (d *disk) restorePower() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memKV.mu.Lock()
	defer d.memKV.mu.Unlock()
	d.memKV.data, d.saved = maps.Clone(d.saved), nil
}

func (d *disk) setSlow(slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = slow
}
