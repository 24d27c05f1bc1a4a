//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carricknet/carrick/lab"
)

// fiveHosts are scenarios for as many hosts: two may fail, and there is a quorum.
var fiveHosts = []scenario{
	{"LifecyclesUnderChaos", func(s *scene) { newLives(s).play() }},
}

const (
	// grace is how long an address may stay handed out that no container has: leases nobody claimed are released after 60 to
	// 90 s, endpoints of containers that went without a word after 75 s.
	grace = 90*time.Second + sweptAfter
	// nextTry is how long one waits before one asks an engine again that did not do what it should.
	nextTry = 500 * time.Millisecond
	// removable is how long a container may take to be removed: a host is away meanwhile, and its engine starts.
	removable = 5 * time.Minute
)

// A crowdNet is a network on all hosts in which containers come and go.
type crowdNet struct {
	name   string
	v4, v6 netip.Prefix // v6: zero without
	hosts  int          // addresses that are asked for by name are the second to this one
}

// lives is what happens to containers while things happen to hosts.
type lives struct {
	*scene
	sites    []*site
	nets     []crowdNet
	register *register
	over     chan struct{} // closed when nothing new begins

	numbers  atomic.Int64
	ended    atomic.Int64 // lifecycles that went as they should
	cut      atomic.Int64 // that ended by what happened to their host
	mu       sync.Mutex
	refused  map[string]int // by reason
	disaster map[string]int // by kind
	unclear  []string       // refusals for no known reason
	waited   time.Duration  // until nothing was handed out any more
	rebooted map[*lab.Host]bool
}

func newLives(s *scene) *lives {
	l := &lives{scene: s, register: newRegister(), over: make(chan struct{}), refused: map[string]int{}, disaster: map[string]int{},
		rebooted: map[*lab.Host]bool{}}
	for _, h := range s.hosts {
		l.sites = append(l.sites, newSite(h))
	}
	return l
}

// play: containers are started and removed on all hosts in parallel, in several networks, with addresses that they are given
// and that they ask for, while hosts are cut off, plugins and engines killed, hosts rebooted. No address is with two of them at
// any time, whoever is refused one is told why, and when the last is gone, nothing is left.
func (l *lives) play() {
	l.Helper()
	l.littered = true
	l.create()
	var working, beside sync.WaitGroup
	var errs []error
	keep := func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		errs = append(errs, err)
	}
	began := time.Now()
	for _, x := range l.sites {
		for range l.scale.workers {
			r := rand.New(rand.NewPCG(l.rand.Uint64(), 0))
			working.Go(func() { keep(l.work(x, r)) })
		}
	}
	faults, watching := rand.New(rand.NewPCG(l.rand.Uint64(), 0)), make(chan struct{})
	beside.Go(func() { keep(l.disasters(faults)) })
	watched := make(chan error, 1)
	go func() { watched <- l.watch(watching) }()
	for l.broken() == nil && (time.Since(began) < l.scale.living || l.ended.Load() < int64(l.scale.lives)) {
		if err := l.rest(nextTry); err != nil {
			keep(fmt.Errorf("%w: %d of %d lifecycles", err, l.ended.Load(), l.scale.lives))
			break
		}
	}
	chaos := since(began)
	close(l.over)
	beside.Wait()
	working.Wait()
	close(watching)
	keep(<-watched)
	l.Logf("%s of chaos: %s", chaos, l.summary())
	l.must(errors.Join(append(errs, l.broken())...))
	l.leavesNothing()
	l.Logf("in all %s: %s", since(began), l.summary())
}

// create makes the networks: blocks of 16 addresses and of one, both families, and a range.
func (l *lives) create() {
	l.Helper()
	wide, _ := l.nextSubnets()
	single, _ := l.nextSubnets()
	dual4, dual6 := l.nextSubnets()
	ranged, _ := l.nextSubnets()
	single = netip.PrefixFrom(single.Addr(), 26)
	l.nets = []crowdNet{
		{name: "broad", v4: wide, hosts: 250},
		{name: "single", v4: single, hosts: 60},
		{name: "dual", v4: dual4, v6: dual6, hosts: 250},
		{name: "ranged", v4: ranged, hosts: 250},
	}
	flags := [][]string{
		{"--subnet", wide.String()},
		{"--subnet", single.String()},
		{"--ipv6", "--subnet", dual4.String(), "--subnet", dual6.String()},
		{"--subnet", ranged.String(), "--ip-range", netip.PrefixFrom(at(ranged, 128), 25).String()},
	}
	for i, n := range l.nets {
		l.all(func(h *lab.Host) error { return l.scene.create(h, n.name, flags[i]...) })
	}
}

// broken is an error as soon as the scenario has failed, whatever else is to come.
func (l *lives) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, text := range append(l.register.duplicates(), l.unclear...) {
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// work lets one container after another live on a host.
func (l *lives) work(x *site, r *rand.Rand) error {
	for {
		select {
		case <-l.over:
			return nil
		case <-l.ctx.Done():
			return l.ctx.Err()
		default:
		}
		name := fmt.Sprintf("life%d-%s", l.numbers.Add(1), x.host.Name)
		if err := l.live(x, name, r); err != nil {
			return fmt.Errorf("%s on %s: %w", name, x.host.Name, err)
		}
	}
}

// live is the life of one container. Whatever becomes of it, it is gone in the end.
func (l *lives) live(x *site, name string, r *rand.Rand) error {
	n := l.nets[r.IntN(len(l.nets))]
	flags := []string{"--network", n.name}
	if r.IntN(3) == 0 {
		number := 2 + r.IntN(n.hosts)
		flags = append(flags, "--ip", at(n.v4, number).String())
		if n.v6.IsValid() {
			flags = append(flags, "--ip6", at(n.v6, number).String())
		}
	}
	if r.IntN(4) == 0 {
		flags = append(flags, "--restart", "always")
	}
	again := r.IntN(5) == 0
	stay := time.Duration(r.Int64N(int64(l.scale.stay)))
	life := l.register.life(x)
	c, err := l.begin(x, name, flags)
	switch {
	case err != nil:
		l.refuse(x, name, err)
	case l.register.take(x, life, c, n.name):
		if again {
			l.register.drop(name)
			if err = l.restart(x, name, n.name); err != nil {
				l.refuse(x, name, err)
			}
		}
		if err == nil {
			if err := l.linger(stay); err != nil {
				return err
			}
			if l.register.life(x) == life {
				l.ended.Add(1)
			} else {
				l.cut.Add(1)
			}
		}
	default:
		l.cut.Add(1)
	}
	l.register.drop(name)
	return l.remove(x, name)
}

// begin starts a container and looks what it was given.
func (l *lives) begin(x *site, name string, flags []string) (c *container, err error) {
	err = x.do(l.ctx, func(h *lab.Host) error {
		c, err = l.start(h, name, flags...)
		return err
	})
	return c, err
}

func (l *lives) restart(x *site, name, network string) error {
	life := l.register.life(x)
	return x.do(l.ctx, func(h *lab.Host) error {
		if _, err := h.Docker(l.ctx, "restart", "-t", "0", name); err != nil {
			return err
		}
		c, err := l.look(h, name)
		if err == nil {
			l.register.take(x, life, c, network)
		}
		return err
	})
}

// linger lets time go by, less if everything is over.
func (l *lives) linger(d time.Duration) error {
	select {
	case <-time.After(d):
	case <-l.over:
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
	return nil
}

// remove asks until a container is gone: its engine may be dead.
func (l *lives) remove(x *site, name string) error {
	began := time.Now()
	for {
		err := x.do(l.ctx, func(h *lab.Host) error {
			_, err := h.Docker(l.ctx, "rm", "-f", name)
			return err
		})
		if err == nil || strings.Contains(err.Error(), "No such container") {
			return nil
		}
		if time.Since(began) > removable {
			return fmt.Errorf("is not removed: %w", err)
		}
		if err := l.rest(nextTry); err != nil {
			return err
		}
	}
}

// refuse counts why a container was not started, or not again.
func (l *lives) refuse(x *site, name string, err error) {
	class := classify(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if class == "" {
		l.unclear = append(l.unclear, fmt.Sprintf("%s on %s was refused for a reason that no fault explains: %v", name, x.host.Name, err))
		return
	}
	l.refused[class]++
}

// refusals are the reasons for which a container may be refused, by what is in the sentence. The first that fits counts.
var refusals = []struct{ class, words string }{
	{"no quorum", "quorum"},
	{"no quorum", "not a member"},
	{"another has the address", "is in use"},
	{"another has the address", "is asking for it"},
	{"another has the address", "is being given to another host"}, // it has asked, and may have given up since
	{"another has the address", "was given to host"},
	{"another has the address", "others were faster"},
	{"its host does not answer", "did not answer within"},
	{"no address left", "no address left"},
	{"the plugin was killed as it answered", "the request is empty"},
	{"the plugin is not there", "plugin"},
	{"the engine is not there", "Cannot connect to the Docker daemon"},
	{"the engine is not there", "error during connect"},
	{"the engine is not there", "docker.sock"},
	{"the engine is not there", "EOF"},
	{"the host is off", "signal: killed"},
	{"the host is off", "exit status 137"},
	{"the host is off", "is off"},
	{"the host is off", "nsenter: "},
}

// classify returns "" for what no fault explains.
func classify(err error) string {
	text := err.Error()
	for _, r := range refusals {
		if strings.Contains(text, r.words) {
			return r.class
		}
	}
	return ""
}

// summary are the figures.
func (l *lives) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d lifecycles, %d cut short; refused: %s; disasters: %s; at most %d addresses at once; %d duplicates",
		l.ended.Load(), l.cut.Load(), counts(l.refused), counts(l.disaster), l.register.most(), len(l.register.duplicates()))
}

// counts prints what there is of each kind.
func counts(of map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, of[kind]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// leavesNothing: all containers are gone. So are their addresses, after a while, and with the networks all the rest.
func (l *lives) leavesNothing() {
	l.Helper()
	l.joined(l.hosts...)
	l.all(func(h *lab.Host) error {
		left, err := h.Docker(l.ctx, "ps", "-aq")
		if err == nil && left != "" {
			err = fmt.Errorf("%s: containers that were removed are there: %s", h.Name, left)
		}
		return err
	})
	var err error
	l.waited, err = l.wait(grace, func() error { return onAll(l.hosts, l.leases) })
	l.must(err)
	l.Logf("no address is handed out any more %s after the last container went", l.waited)
	l.must(onAll(l.hosts, func(h *lab.Host) error { return l.hasEndpoints(h, 0) }))
	l.all(l.sweep)
	l.must(onAll(l.hosts, func(h *lab.Host) error {
		var blocks []any
		err := l.carrick(h, &blocks, "ipam", "blocks")
		if err == nil && len(blocks) > 0 {
			err = fmt.Errorf("%s: blocks of networks that are gone: %v", h.Name, blocks)
		}
		return err
	}))
	l.nothingReserved()
	for h := range l.rebooted {
		l.must(l.sameAfterBoot(h))
	}
}

// leases is an error while a host has an address handed out.
func (l *lives) leases(h *lab.Host) error {
	var all []struct {
		Addr     netip.Addr `json:"addr"`
		State    string     `json:"state"`
		Endpoint string     `json:"endpoint"`
	}
	if err := l.carrick(h, &all, "ipam", "leases"); err != nil {
		return err
	}
	var errs []error
	for _, a := range all {
		if a.State == "in use" || a.State == "idle" {
			errs = append(errs, fmt.Errorf("%s: %s is %s by %q and no container has it", h.Name, a.Addr, a.State, a.Endpoint))
		}
	}
	return errors.Join(errs...)
}
