package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netns"
)

// Config says where a Kernel works.
type Config struct {
	// Dir is where our namespace is pinned, by a bind mount of the name "shared". It must lie on a mount that is shared
	// with the host (`rbind,rshared`), or the namespace ends with our process.
	Dir    string
	Logger *logrus.Logger // nil discards
}

// Kernel makes the kernel match States. The namespace of the thread that calls New is Host.
type Kernel struct {
	dir  string
	log  *logrus.Logger
	host *space
	proc procfs

	// turn holds one token while nobody works. The kernel serialises changes by RTNL anyhow: measured on Linux 6.18, eight
	// workers are no faster than one. A channel, so that waiting can be given up.
	turn chan struct{}

	// The rest is guarded by turn.
	shared *space             // our namespace, or nil while it is not known to be there
	known  map[string][]place // the devices of each owner, or nil when they must be looked for
	mute   bool               // the last announcement failed, which has been logged
	memory map[string]*memory // of each owner, what was last set
	// listening: Run hears of what others change.
	listening bool

	raised bool // the limits of the neighbour tables are as high as they should be, or cannot be

	doubts     *doubts
	auditEvery time.Duration
	counted    counted

	closing sync.Once
	closed  chan struct{} // there will be no more turns
}

// New opens the host's namespace and starts nothing.
func New(c Config) (*Kernel, error) {
	log := c.Logger
	if log == nil {
		log = logrus.New()
		log.SetOutput(io.Discard)
	}
	fd, err := netns.GetFromPath(ownNS)
	if err != nil {
		return nil, fmt.Errorf("network namespace of the host: %w", err)
	}
	host, err := openSpace(Host, fd)
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		dir: c.Dir, log: log, host: host, turn: make(chan struct{}, 1), closed: make(chan struct{}),
		memory: make(map[string]*memory), doubts: newDoubts(), auditEvery: auditEvery,
	}
	k.turn <- struct{}{}
	return k, nil
}

// Close gives back what New and Set opened, and leaves the kernel as it is: containers go on talking. It may be called
// twice, and waits for a Set that is under way. Whoever comes later is told ErrClosed.
func (k *Kernel) Close() {
	k.closing.Do(func() {
		<-k.turn
		close(k.closed)
		k.host.close()
		k.shared.close()
		k.proc.close()
	})
}

// ErrClosed is what a Kernel says after Close.
var ErrClosed = errors.New("the kernel is not changed any more: this process ends, or begins anew")

// Set makes the kernel have exactly want for the owner: it makes, changes and removes what differs. Setting the same again
// does nothing; the zero State removes all. One Set works at a time, the others wait until ctx ends.
//
// When it fails, the error is the command that failed and the kernel's reason, and what was done until then stays: another
// Set goes on from there, and Set of the zero State clears it away. Forwarding and neighbour entries that the kernel refuses
// keep nothing else from being done; the error names the first of them. Devices of others are never touched: one that has a
// wanted name is an error.
func (k *Kernel) Set(ctx context.Context, owner string, want State) error {
	if owner == Unclaimed && !want.Empty() {
		return fmt.Errorf("owner %q: stands for devices without an owner, and can only be cleared", owner)
	}
	if err := want.Check(); err != nil {
		return fmt.Errorf("state of %s: %w", owner, err)
	}
	return k.set(ctx, want, owner)
}

// Remove is Set of the zero State for many owners at once: a thousand pairs go in half a second rather than in twenty.
func (k *Kernel) Remove(ctx context.Context, owners ...string) error {
	if len(owners) == 0 {
		return nil
	}
	return k.set(ctx, State{}, owners...)
}

// set sets what one owner wants, or removes what several have.
func (k *Kernel) set(ctx context.Context, want State, owners ...string) (err error) {
	for _, owner := range owners {
		if err := checkOwner(owner); err != nil {
			return err
		}
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	defer k.counted.set(time.Now(), &err)
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return err
	}
	if want.tunnels() && !k.raised {
		k.raised = true
		if err := k.raiseLimits(); err != nil {
			k.log.WithError(err).Warn("the limits of the neighbour tables stay as they are: with many containers some may not find others")
		}
	}
	s, ops, err := k.plan(want, owners...)
	if err == nil {
		err = k.apply(s, ops)
	}
	if err != nil {
		k.forget()
		for _, owner := range owners { // until it is known again what is to be
			delete(k.memory, owner)
		}
		return err
	}
	k.settled(s, want, owners)
	k.note(s, want, owners)
	if want.needs(Shared) {
		return nil
	}
	return k.dropShared(s)
}

// apply does what is to be done. Only refused entries are no reason to stop.
func (k *Kernel) apply(s *scope, ops []op) error {
	if len(ops) == 0 {
		return nil
	}
	k.debug(s, ops)
	return k.quietly(func() error { return applyAll(s, ops) })
}

func applyAll(s *scope, ops []op) error {
	var refused *refusals
	for _, o := range ops {
		err := o.apply(s)
		if _, many := o.(setEntries); err != nil && !many {
			return fmt.Errorf("%s: %w", o, err)
		}
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

// debug logs every request.
func (k *Kernel) debug(s *scope, ops []op) {
	if !k.log.IsLevelEnabled(logrus.DebugLevel) {
		return
	}
	for _, o := range ops {
		for line := range strings.SplitSeq(o.String(), "\n") {
			k.log.WithField("owner", s.owner).Debug(line)
		}
	}
}

// plan reads what the owners have and says what to do.
func (k *Kernel) plan(want State, owners ...string) (*scope, []op, error) {
	s, have, err := k.read(want, owners, k.recall)
	if err != nil {
		return nil, nil, err
	}
	return s, diff(have, want), nil
}

func (k *Kernel) lock(ctx context.Context) error {
	select {
	case <-k.turn:
	case <-k.closed:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change of the kernel: %w", context.Cause(ctx))
	}
	if err := ctx.Err(); err != nil { // both were ready, and select took either
		k.unlock()
		return err
	}
	return nil
}

func (k *Kernel) unlock() { k.turn <- struct{}{} }

func (k *Kernel) space(ns NS) *space {
	if ns == Shared {
		return k.shared
	}
	return k.host
}

// spaces are the namespaces there are.
func (k *Kernel) spaces() []*space {
	if k.shared == nil {
		return []*space{k.host}
	}
	return []*space{k.host, k.shared}
}

// tunnels says whether a State has a VXLAN device.
func (s State) tunnels() bool {
	return slices.ContainsFunc(s.Links, func(l Link) bool { return l.VXLAN != nil })
}

// needs says whether anything of the State is in a namespace.
func (s State) needs(ns NS) bool {
	for _, l := range s.Links {
		if l.NS == ns || l.Veth != nil && l.Veth.PeerNS == ns {
			return true
		}
	}
	for _, c := range s.Sysctls {
		if c.NS == ns {
			return true
		}
	}
	for _, r := range s.Rules {
		if r.NS == ns {
			return true
		}
	}
	return false // all the rest is on one of the links
}
