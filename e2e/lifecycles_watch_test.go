//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carricknet/carrick/lab"
)

// lookAround is the time between looks at all containers of all hosts.
const lookAround = 5 * time.Second

// A register has who holds which address, as those know who start containers: from when one runs until somebody asks to remove it, or
// until what runs on its host ends. Both come before the address is anybody else's to have, so what is held twice is given twice.
type register struct {
	mu    sync.Mutex
	held  map[string]holding // by network and address
	lifes map[*site]int      // how often all that ran on a host has ended
	high  int
	twice []string
}

type holding struct {
	container string
	site      *site
	since     time.Time
}

func newRegister() *register { return &register{held: map[string]holding{}, lifes: map[*site]int{}} }

func (r *register) life(x *site) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lifes[x]
}

// take notes what a container holds, unless all that ran on its host has ended since its start was asked for.
func (r *register) take(x *site, life int, c *container, network string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lifes[x] != life || c.pid == 0 {
		return false
	}
	for _, addr := range c.addrs(network) {
		key := network + " " + addr.String()
		if other, held := r.held[key]; held {
			r.twice = append(r.twice, fmt.Sprintf("%s was given to %s on %s, and %s on %s has had it for %s", key, c.name, x.host.Name,
				other.container, other.site.host.Name, since(other.since)))
		}
		r.held[key] = holding{c.name, x, time.Now()}
	}
	r.high = max(r.high, len(r.held))
	return true
}

// drop is called before the removal of a container is asked for.
func (r *register) drop(container string) {
	r.forget(func(h holding) bool { return h.container == container })
}

// end is called before all that runs on a host ends.
func (r *register) end(x *site) {
	r.forget(func(h holding) bool { return h.site == x })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lifes[x]++
}

func (r *register) forget(which func(holding) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, h := range r.held {
		if which(h) {
			delete(r.held, key)
		}
	}
}

func (r *register) found(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.twice = append(r.twice, text)
}

func (r *register) duplicates() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.twice)
}

// most is the largest number of addresses that were held at once.
func (r *register) most() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.high
}

// watch asks all engines again and again which containers run, and compares their addresses. It knows of those that started
// again by themselves, too. A container that has an address in two looks has had it all the time between them: if two have the
// same in both, they had it at once.
func (l *lives) watch(stop <-chan struct{}) error {
	looks, last := 0, map[string][]string{}
	for {
		now := l.around()
		looks++
		for key, holders := range now {
			var both []string
			for _, c := range holders {
				if slices.Contains(last[key], c) {
					both = append(both, c)
				}
			}
			if len(both) > 1 {
				l.register.found(fmt.Sprintf("%s: is with %s at once, as their engines say", key, strings.Join(both, " and ")))
			}
		}
		last = now
		pause := lookAround
		for _, holders := range now {
			if len(holders) > 1 {
				pause = 0 // one of them goes, or is too much
			}
		}
		select {
		case <-stop:
			l.Logf("looked at all containers %d times", looks)
			return nil
		case <-l.ctx.Done():
			return l.ctx.Err()
		case <-time.After(pause):
		}
	}
}

// runningOnes prints a line for each network of each container that runs: container and start, network, addresses.
const runningOnes = `docker ps -q | xargs -r docker inspect -f '{{$c := .}}{{range $n, $e := .NetworkSettings.Networks}}` +
	`{{$c.Name}}/{{$c.State.Pid}}/{{$c.State.StartedAt}} {{$n}} {{$e.IPAddress}} {{$e.GlobalIPv6Address}}{{println}}{{end}}' 2>/dev/null || true`

// around returns who has which address, as the engines say that answer.
func (l *lives) around() map[string][]string {
	var mu sync.Mutex
	all := map[string][]string{}
	var asking sync.WaitGroup
	for _, x := range l.sites {
		asking.Go(func() {
			var text string
			err := x.do(l.ctx, func(h *lab.Host) (err error) {
				text, err = h.Run(l.ctx, "sh", "-c", runningOnes)
				return err
			})
			if err != nil {
				return // the host is off
			}
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(text) {
				fields := strings.Fields(line)
				for _, addr := range fields[min(2, len(fields)):] {
					key := fields[1] + " " + addr
					all[key] = append(all[key], x.host.Name+fields[0])
				}
			}
		})
	}
	asking.Wait()
	return all
}
