package kernel

import (
	"maps"
	"sync"
)

// expected is a link as it was set, and whose it is.
type expected struct {
	Link
	owner  string
	master int // index
}

// as says whether a device is as it is expected, by what every event tells.
func (e expected) as(d device) bool {
	return d.Name == e.Name && d.Up == e.Up && d.master == e.master &&
		(e.MTU == 0 || d.MTU == e.MTU) && (e.MAC == (MAC{}) || d.MAC == e.MAC) &&
		(e.Bridge == nil || d.Bridge == nil || *d.Bridge == *e.Bridge) &&
		(e.master == 0 || len(portFlags(d.Link, e.Link)) == 0)
}

// A doubt is about what of an owner something may not be as it is wanted.
type doubt uint8

const (
	doubtLinks doubt = 1 << iota // and rules and all else that is quickly read
	doubtTables
	doubtAll = doubtLinks | doubtTables
)

// doubts are the owners of which something may not be as they want it. Events come while a Set works: they have a lock of
// their own.
type doubts struct {
	mu      sync.Mutex
	links   map[place]expected // without names
	ruling  map[string]bool    // owners that have rules
	owners  map[string]doubt   // in doubt
	arrived chan struct{}      // there is a new one
}

func newDoubts() *doubts {
	return &doubts{
		links: make(map[place]expected), ruling: make(map[string]bool), owners: make(map[string]doubt), arrived: make(chan struct{}, 1),
	}
}

// add is called with the lock.
func (d *doubts) add(owner string, about doubt) {
	d.owners[owner] |= about
	select {
	case d.arrived <- struct{}{}:
	default:
	}
}

// link looks at what is told of a link, or that there is none any more.
func (d *doubts) link(at place, now device, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ours := d.links[at]; ours && (gone || !e.as(now)) {
		d.add(e.owner, doubtLinks)
	}
}

// port looks at what a bridge tells of a port, or that it is none any more.
func (d *doubts) port(at place, now Link, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ours := d.links[at]; ours && e.master != 0 && (gone || len(portFlags(now, e.Link)) != 0) {
		d.add(e.owner, doubtLinks)
	}
}

func (d *doubts) entry(at place, forwarding bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ours := d.links[at]; ours && (forwarding && e.VXLAN != nil || !forwarding && e.Bridge != nil) {
		d.add(e.owner, doubtTables)
	}
}

func (d *doubts) rules() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for owner := range d.ruling {
		d.add(owner, doubtLinks)
	}
}

// again: there is a doubt still, and it is known when to look.
func (d *doubts) again(owner string, about doubt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owners[owner] |= about
}

// differing adds the owners of links that are not as they are expected.
func (d *doubts) differing(at map[place]device, owners map[string]doubt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, e := range d.links {
		if now, there := at[p]; !there || !e.as(now) {
			owners[e.owner] |= doubtLinks
		}
	}
}

// all: events were lost.
func (d *doubts) all() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.links {
		d.add(e.owner, doubtAll)
	}
	for owner := range d.ruling {
		d.add(owner, doubtAll)
	}
}

// about says what of an owner is in doubt.
func (d *doubts) about(owner string) doubt {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owners[owner]
}

// take gives back the owners in doubt. From then on they are not.
func (d *doubts) take() map[string]doubt {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := d.owners
	d.owners = make(map[string]doubt)
	return taken
}

// expect notes what was set.
func (d *doubts) expect(owner string, want State, index map[ref]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.links, func(_ place, e expected) bool { return e.owner == owner })
	delete(d.ruling, owner)
	delete(d.owners, owner)
	for _, l := range want.Links {
		e := expected{Link: l, owner: owner}
		if l.Master != "" {
			e.master = index[ref{l.NS, l.Master}]
		}
		d.links[place{ns: l.NS, index: index[ref{l.NS, l.Name}]}] = e
	}
	if len(want.Rules) != 0 {
		d.ruling[owner] = true
	}
}
