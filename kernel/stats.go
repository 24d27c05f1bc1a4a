package kernel

import (
	"maps"
	"sync"
	"time"
)

// Stats is what a Kernel has done since it was made.
type Stats struct {
	Sets    uint64        // changes that were asked for, with those that found nothing to do
	Failed  uint64        // how many of them failed
	SetTime time.Duration // how long they worked, without waiting for one another
	// Repairs counts what others had changed and was changed back, by what it was: Repairable lists that.
	Repairs map[string]uint64
}

// Repairable are the keys that Stats.Repairs may have.
func Repairable() []string {
	return []string{"address", "entry", "link", "namespace", "route", "rule", "sysctl"}
}

type counted struct {
	mu    sync.Mutex
	stats Stats
}

// Stats gives back a copy.
func (k *Kernel) Stats() Stats {
	k.counted.mu.Lock()
	defer k.counted.mu.Unlock()
	s := k.counted.stats
	s.Repairs = maps.Clone(s.Repairs)
	return s
}

func (c *counted) set(began time.Time, err *error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Sets++
	c.stats.SetTime += time.Since(began)
	if *err != nil {
		c.stats.Failed++
	}
}

func (c *counted) repaired(ops []op) {
	for _, o := range ops {
		what, n := "link", 1
		switch o := o.(type) {
		case addAddr, delAddr:
			what = "address"
		case addRoute, delRoute:
			what = "route"
		case setEntries:
			what, n = "entry", len(o)
		case writeSysctl:
			what = "sysctl"
		case setRules:
			what = "rule"
		case announce:
			continue
		}
		c.add(what, n)
	}
}

func (c *counted) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stats.Repairs == nil {
		c.stats.Repairs = make(map[string]uint64)
	}
	c.stats.Repairs[what] += uint64(n)
}
