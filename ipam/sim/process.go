package sim

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// keep is what the plugin does by itself: as IPAM.Run, and what the driver has to tell the cluster.
func (p *process) keep(t *task) {
	swept, every := t.w.now, ledger.SweepEvery
	if t.w.faulty { // the plugin may live for a few seconds only
		every = t.w.within(time.Second, every)
	}
	for !p.dead {
		looked := p.h.at
		if t.w.now-swept >= every {
			swept = t.w.now
			_, _ = t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Sweep(at) })
		}
		_, _ = t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Keep(at) })
		if p.dead {
			return
		}
		if p.ready {
			p.leaveAll(t)
		}
		if p.dead {
			return
		}
		pause := t.w.within(time.Second, 3*time.Second)
		switch {
		case p.h.at != looked: // news came meanwhile
			pause = 0
		case t.w.calm():
			pause = ledger.SweepEvery
		}
		t.rest(p, pause)
	}
}

// rest waits for news, or for that time.
func (t *task) rest(p *process, d time.Duration) {
	woken := false
	wake := func() {
		if !woken {
			woken = true
			t.wake()
		}
	}
	p.watch = append(p.watch, wake)
	t.w.after(d, wake)
	t.pause()
}

// restore is what the driver does at its start: networks are bound again, half ones removed, until all are done.
func (p *process) restore(t *task) {
	e := p.h.engine
	p.purge(t)
	open := slices.Sorted(maps.Keys(e.nets))
	for len(open) > 0 && !p.dead {
		open = slices.DeleteFunc(open, func(shared string) bool {
			nw := e.nets[shared]
			if nw == nil || nw.underWay || p.dead || !nw.half && !nw.made {
				return true
			}
			do := p.rebind
			if nw.half {
				do = e.exit
			}
			err := e.driver(t, nw, do)
			return err == nil || errors.Is(err, errGone)
		})
		t.sleep(time.Second)
	}
	p.ready = true
}

func (p *process) rebind(t *task, nw *network) error {
	err := p.h.engine.enter(t, nw)
	if err != nil || p.dead || nw.half {
		return err
	}
	used := slices.Clone(nw.containers)
	for _, c := range used {
		if c.used {
			_, err := t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
				return l.Use(at, nw.id, c.endpoint, []netip.Addr{c.addr})
			})
			if errors.Is(err, errDied) || errors.Is(err, errDisk) || c.lost && errors.Is(err, cluster.ErrNoQuorum) {
				return err
			}
			if err == nil {
				c.lost = false
			}
			if err != nil && c.used && (c.holds || !c.lost) {
				t.w.breaks("%s has %s, and the plugin says after its start: %v", c, c.addr, err)
			}
		}
	}
	for _, addr := range p.ledger.Strays(p.moment(), nw.id) {
		_, err := t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Reown(at, nw.id, addr) })
		if errors.Is(err, cluster.ErrNoQuorum) {
			break // it is tried again at the next start, and alarmed until then
		}
		if err != nil {
			return err
		}
	}
	for _, c := range used {
		t.w.regains(c)
	}
	return nil
}
