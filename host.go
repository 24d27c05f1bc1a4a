package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/ipam"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/overlay"
	"github.com/carricknet/carrick/store"
)

// host is everything below the socket.
type host struct {
	config  Config
	dir     string // stateDir, but in tests
	log     *logrus.Logger
	ready   bool         // it has worked
	alone   *os.File     // held open as long as this process is the only one of its kind on the host
	state   *store.Store // driver's
	leases  *store.Store // ipam's
	raft    *store.Store // the cluster's; nil without one
	damage  []string     // what was found wrong with them; a store forgets it when it is written
	kernel  *kernel.Kernel
	machine machine          // the same, or one in memory
	address netip.Addr       // by which the others reach this host
	cluster *cluster.Cluster // nil without SECRET
	unsure  bool             // no other node has said yet whether the stores are the newest
	wake    <-chan struct{}  // something in the cluster is not what it was
	unwatch func()
	ipam    *ipam.IPAM
	driver  *driver.Driver
}

// openLeaves opens what stands on nothing of ours.
func (h *host) openLeaves() (err error) {
	if h.alone, err = lock(hostDir); err != nil {
		return err
	}
	if h.kernel, err = kernel.New(kernel.Config{Dir: pinDir, Logger: h.log}); err != nil {
		return err
	}
	if err := h.openStores(); err != nil || h.config.Secret == "" {
		return err
	}
	if h.address, err = h.kernel.Address(h.config.Advertise); err != nil {
		return fmt.Errorf("ADVERTISE=%s: %w", h.config.Advertise, err)
	}
	h.cluster, err = cluster.New(cluster.Config{
		Secret: []byte(h.config.Secret), Join: h.config.Join, Advertise: h.address, Name: h.config.Node,
		GossipPort: h.config.GossipPort, RaftPort: h.config.RaftPort,
		Dir: filepath.Join(h.dir, "cluster"), Log: raftLog{h.raft}, Disk: h.reached, Version: version, Logger: h.log,
	})
	return err
}

// openStores opens them and keeps what has to be said of them. State and leases are made first of all, and together.
func (h *host) openStores() (err error) {
	open := func(name string) (*store.Store, error) { return store.Open(filepath.Join(h.dir, name)) }
	if h.state, err = open("state"); err != nil {
		return err
	}
	if h.leases, err = open("leases"); err != nil {
		return err
	}
	if h.config.Secret != "" {
		if h.raft, err = open("raft"); err != nil {
			return err
		}
	}
	if err := h.miss(); err != nil {
		return err
	}
	h.tell("state", h.state)
	h.tell("leases", h.leases)
	if h.raft != nil {
		h.tell("raft", h.raft)
	}
	return nil
}

// miss says of stores that were only made now that they are missed, if another one was there before.
func (h *host) miss() error {
	for _, s := range []*store.Store{h.state, h.leases} {
		for _, other := range []*store.Store{h.state, h.leases, h.raft} {
			if other == nil || other == s || !wasThere(other) {
				continue
			}
			if err := s.Missed("other stores of this host were there"); err != nil {
				return err
			}
		}
	}
	return nil
}

func wasThere(s *store.Store) bool {
	for range s.Prefix("") {
		return true
	}
	return s.Damage() != ""
}

// tell logs what was found wrong with a store, and keeps it for Status.
func (h *host) tell(name string, s *store.Store) {
	if mended := s.Mended(); mended != "" {
		h.log.WithField("store", name).Warn(mended)
	}
	if damage := s.Damage(); damage != "" && !slices.Contains(h.damage, damage) {
		h.log.WithField("store", name).Error(damage)
		h.damage = append(h.damage, damage)
	}
}

// lock makes sure that this process is the only Carrick on its host: another one, installed under another name, has other
// records, and each would take the other's networks for orphans. The lock is on a directory that all of them see, and ends
// with the process.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(errors.New("another Carrick plugin is at work on this host: one is enough, disable the other"), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("flock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// reached is how far the stores have come.
func (h *host) reached() []cluster.Reached {
	var all []cluster.Reached
	for _, s := range []struct {
		name string
		*store.Store
	}{{"state", h.state}, {"leases", h.leases}, {"raft", h.raft}} {
		p := s.Position()
		all = append(all, cluster.Reached{Name: s.name, Store: p.ID, Commits: p.Commits})
	}
	return all
}

// machine is what ipam and driver need of the kernel.
type machine interface {
	driver.Kernel
	InUse() ([]netip.Prefix, error)
	Run(ctx context.Context) error
	Stats() kernel.Stats
}

// member is what they need of the cluster.
type member interface {
	ipam.Cluster
	driver.Records
}

// build makes ipam and driver over the leaves.
func (h *host) build(m machine, find func() (overlay.Underlay, error), node member) (err error) {
	pools := ipam.Config{
		Store: h.leases, Damaged: h.leases.Damage() != "", Pools: h.config.Pools, InUse: m.InUse, Logger: h.log,
	}
	networks := driver.Config{
		Modes: modes(find), Default: defaultMode(h.config), Name: driverName,
		Kernel: m, Guard: h.guard, Store: h.state, Damaged: h.state.Damage() != "", Unsure: h.unsure, Logger: h.log,
	}
	if h.cluster != nil {
		pools.Regressed = h.cluster.Regressed()
		networks.Damaged = networks.Damaged || pools.Regressed != ""
	}
	if node != nil {
		pools.Cluster, pools.Nodes, networks.Facts, networks.Records = node, node.Nodes, node, node
		h.wake, h.unwatch = node.Watch()
	}
	if h.ipam, err = ipam.New(pools); err != nil {
		return err
	}
	networks.Pools, networks.Leases = h.ipam, h.ipam
	h.driver, h.machine = driver.New(networks), m
	return nil
}

// underlay is what carries the overlay now.
func (h *host) underlay() (overlay.Underlay, error) {
	link, mtu, err := h.kernel.Underlay(h.address)
	return overlay.Underlay{VTEP: h.address, Link: link, MTU: mtu, Port: h.config.VXLANPort}, err
}

// guard is what the kernel of a node needs for the sake of the others.
func (h *host) guard() kernel.State {
	if h.cluster == nil {
		return kernel.State{}
	}
	status := h.cluster.Status()
	if status.State == cluster.Left {
		return kernel.State{}
	}
	var nodes []netip.Addr
	for _, n := range status.Nodes {
		if n.Addr.IsValid() {
			nodes = append(nodes, n.Addr)
		}
	}
	return overlay.Guard(h.config.VXLANPort, cluster.FirstVNI, h.address, nodes)
}

// run runs what runs until ctx ends or one of them fails.
func (h *host) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if h.cluster != nil {
		g.Go(func() error { return h.cluster.Run(ctx) })
		g.Go(func() error { return followAddress(ctx, followEvery, h.address, h.config.Advertise, h.kernel.Address) })
		g.Go(func() error { return followDevice(ctx, followEvery, h.aboutDevice, h.log) })
	}
	g.Go(func() error { return h.machine.Run(ctx) })
	g.Go(func() error { return h.ipam.Run(ctx) })
	g.Go(func() error { return h.driver.Run(ctx, h.wake) })
	return g.Wait()
}

// close gives back what openLeaves took.
func (h *host) close() error {
	if h.unwatch != nil {
		h.unwatch()
	}
	var errs []error
	for _, s := range []*store.Store{h.state, h.leases, h.raft} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if h.kernel != nil {
		h.kernel.Close()
	}
	if h.alone != nil {
		errs = append(errs, h.alone.Close())
	}
	return errors.Join(errs...)
}

// raftLog is a store as the cluster wants it: a leaf, it has a type of its own for a write.
type raftLog struct{ *store.Store }

func (l raftLog) Apply(writes ...cluster.Write) error {
	all := make([]store.Write, len(writes))
	for i, w := range writes {
		all[i] = store.Write(w)
	}
	return l.Store.Apply(all...)
}
