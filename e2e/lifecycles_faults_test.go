//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carricknet/carrick/lab"
)

// A site is a host that is switched off and on while others run commands on it. None begins while it is being switched.
type site struct {
	host *lab.Host

	mu     sync.Mutex
	off    bool
	on     chan struct{} // closed when it is not off
	inside sync.WaitGroup
}

func newSite(h *lab.Host) *site {
	x := &site{host: h, on: make(chan struct{})}
	close(x.on)
	return x
}

// do runs something on the host, when it is on.
func (x *site) do(ctx context.Context, f func(h *lab.Host) error) error {
	for {
		x.mu.Lock()
		if !x.off {
			x.inside.Add(1)
			x.mu.Unlock()
			defer x.inside.Done()
			return f(x.host)
		}
		on := x.on
		x.mu.Unlock()
		select {
		case <-on:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// switched lets nothing begin until f returns.
func (x *site) switched(f func() error) error {
	x.mu.Lock()
	x.off, x.on = true, make(chan struct{})
	x.mu.Unlock()
	err := f()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = false
	close(x.on)
	return err
}

// A disaster happens to one host, which is as before when it returns, but for what ran on it.
type disaster struct {
	name string
	do   func(l *lives, x *site, r *rand.Rand) error
}

var disasters = []disaster{
	{"host cut off", (*lives).cutOff},
	{"plugin killed", func(l *lives, x *site, _ *rand.Rand) error { return l.killPlugin(x.host) }},
	{"engine killed", (*lives).engineKilled},
	{"host rebooted", (*lives).rebooting},
}

// disasters happen to one host after the other, and each kind as often as the others.
func (l *lives) disasters(r *rand.Rand) error {
	for {
		hosts := r.Perm(len(l.sites))
		for i, kind := range r.Perm(len(disasters)) {
			select {
			case <-l.over:
				return nil
			case <-l.ctx.Done():
				return l.ctx.Err()
			default:
			}
			d, x := disasters[kind], l.sites[hosts[i]]
			began := time.Now()
			if err := d.do(l, x, r); err != nil {
				return fmt.Errorf("%s: %s: %w", x.host.Name, d.name, err)
			}
			l.Logf("%s: %s, as before after %s", x.host.Name, d.name, since(began))
			l.mu.Lock()
			l.disaster[d.name]++
			l.mu.Unlock()
		}
	}
}

// moment is half a second to what a container stays at most and some seconds more, so that it outlasts some and others outlast it.
func (l *lives) moment(r *rand.Rand) time.Duration {
	return 500*time.Millisecond + time.Duration(r.Int64N(int64(l.scale.stay+5*time.Second)))
}

func (l *lives) cutOff(x *site, r *rand.Rand) error {
	if err := l.venue.lab.Cut(l.ctx, x.host); err != nil {
		return err
	}
	if err := l.linger(l.moment(r)); err != nil {
		return err
	}
	return l.venue.lab.Heal(l.ctx, x.host)
}

// engineKilled: containers live on with their addresses until an engine starts, which ends them.
func (l *lives) engineKilled(x *site, r *rand.Rand) error {
	if err := l.killEngine(x.host); err != nil {
		return err
	}
	if err := l.linger(l.moment(r) / 2); err != nil {
		return err
	}
	l.register.end(x)
	if err := x.host.StartEngine(l.ctx); err != nil {
		return err
	}
	return l.rest(accepted)
}

func (l *lives) rebooting(x *site, _ *rand.Rand) error {
	err := x.switched(func() error {
		l.register.end(x)
		l.rebooted[x.host] = true
		if err := x.host.PowerOff(l.ctx); err != nil {
			return err
		}
		x.inside.Wait()
		return x.host.PowerOn(l.ctx)
	})
	if err != nil {
		return err
	}
	return l.rest(accepted)
}

// sameAfterBoot is asBefore for a host that was rebooted, where the engine has made its own bridges anew, with other MAC addresses.
// What follows compares with what is there now.
func (l *lives) sameAfterBoot(h *lab.Host) error {
	if err := l.runInEachWay(h); err != nil {
		return err
	}
	now, err := h.Settled(l.ctx)
	if err != nil {
		return err
	}
	if diff := l.difference(withoutBridges(l.venue.empty[h.Name]), withoutBridges(now)); diff != "" {
		return fmt.Errorf("%s: not as before it was rebooted:\n%s", h.Name, diff)
	}
	l.venue.empty[h.Name] = now
	return nil
}

// withoutBridges leaves out the devices that an engine makes for itself, and what follows from their MAC addresses. One that is
// killed while a container starts leaves a veth on its own bridge.
func withoutBridges(d lab.Dump) lab.Dump {
	d = slices.Clone(d)
	for i, section := range d {
		_, kind, _ := strings.Cut(section.Title, ": ")
		if strings.HasPrefix(kind, "iptables") || strings.HasPrefix(kind, "ip6tables") || kind == "nft" {
			continue
		}
		d[i].Lines = slices.DeleteFunc(slices.Clone(section.Lines), func(line string) bool {
			return strings.Contains(line, "docker0") || strings.Contains(line, "docker_gwbridge") || strings.Contains(line, "veth") // ours are ck…
		})
	}
	return d
}
