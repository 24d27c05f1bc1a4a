package kernel

import (
	"context"
	"fmt"
	"io"
	"sync"

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
	closed sync.Once
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
	k := &Kernel{dir: c.Dir, log: log, host: host, turn: make(chan struct{}, 1)}
	k.turn <- struct{}{}
	return k, nil
}

// Close gives back what New and Set opened, and leaves the kernel as it is: containers go on talking. It may be called
// twice, and waits for a Set that is under way.
func (k *Kernel) Close() {
	k.closed.Do(func() {
		<-k.turn // and never again given back: later calls wait for their context
		k.host.close()
		k.shared.close()
		k.proc.close()
	})
}

// Set makes the kernel have exactly want for the owner: it makes, changes and removes what differs. Setting the same again
// does nothing; the zero State removes all. One Set works at a time, the others wait until ctx ends.
//
// When it fails, the error is the command that failed and the kernel's reason, and what was done until then stays: another
// Set goes on from there, and Set of the zero State clears it away. Devices of others are never touched: one that has a
// wanted name is an error.
func (k *Kernel) Set(ctx context.Context, owner string, want State) error {
	if err := checkOwner(owner); err != nil {
		return err
	}
	if owner == Unclaimed && !want.Empty() {
		return fmt.Errorf("owner %q: stands for devices without an owner, and can only be cleared", owner)
	}
	if err := want.Check(); err != nil {
		return fmt.Errorf("state of %s: %w", owner, err)
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if err := k.prepareShared(want.needs(Shared)); err != nil {
		return err
	}
	s, ops, err := k.plan(owner, want)
	if err != nil {
		return err
	}
	debug := k.log.IsLevelEnabled(logrus.DebugLevel)
	for _, o := range ops {
		if debug {
			k.log.WithField("owner", owner).Debug(o)
		}
		if err := o.apply(s); err != nil {
			k.forget()
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	k.settled(s, owner, want)
	if want.needs(Shared) {
		return nil
	}
	return k.dropShared(s)
}

// plan reads what the owner has and says what to do.
func (k *Kernel) plan(owner string, want State) (*scope, []op, error) {
	s, have, err := k.read(owner, want)
	if err != nil {
		return nil, nil, err
	}
	return s, diff(have, want), nil
}

func (k *Kernel) lock(ctx context.Context) error {
	select {
	case <-k.turn:
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
