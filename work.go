package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/ipam"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/overlay"
	"github.com/carricknet/carrick/plugin"
	"github.com/carricknet/carrick/store"
)

// retryAfter is how long work waits after a failure: an address that comes by DHCP, or a disk that was full, is met within
// seconds, and the log is not flooded.
const retryAfter = 2 * time.Second

// work keeps everything below the socket at work until ctx ends. Whatever fails is the answer to every call until it works
// again; nothing ends the process.
func work(ctx context.Context, server *plugin.Server, log *logrus.Logger) {
	config, err := parseConfig(os.Getenv)
	if err != nil {
		log.WithError(err).Error("the settings are wrong")
		server.Refuse(err)
		<-ctx.Done()
		return
	}
	log.SetLevel(config.LogLevel)
	for ctx.Err() == nil {
		err := attempt(ctx, server, config, log)
		if ctx.Err() != nil {
			return
		}
		log.WithError(err).Error("cannot work; trying again")
		server.Refuse(err)
		wait(ctx, retryAfter)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// attempt builds everything from the leaves up, hands it to the server, and runs it until ctx ends or a part fails.
func attempt(ctx context.Context, server *plugin.Server, config Config, log *logrus.Logger) (err error) {
	h := &host{config: config, log: log}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.openLeaves(); err != nil {
		return err
	}
	if err := h.build(); err != nil {
		return err
	}
	server.Waiting("what was here before the restart to be found again")
	if err := h.driver.Restore(ctx); err != nil {
		return err
	}
	server.Ready(h.backend())
	return h.run(ctx)
}

// host is everything below the socket.
type host struct {
	config  Config
	log     *logrus.Logger
	state   *store.Store // driver's
	leases  *store.Store // ipam's
	raft    *store.Store // the cluster's; nil without one
	damage  []string     // what was found wrong with them; a store forgets it when it is written
	kernel  *kernel.Kernel
	cluster *cluster.Cluster // nil without SECRET
	ipam    *ipam.IPAM
	driver  *driver.Driver
}

// openLeaves opens what stands on nothing of ours.
func (h *host) openLeaves() (err error) {
	if h.kernel, err = kernel.New(kernel.Config{Dir: pinDir, Logger: h.log}); err != nil {
		return err
	}
	if h.state, err = h.openStore("state"); err != nil {
		return err
	}
	if h.leases, err = h.openStore("leases"); err != nil {
		return err
	}
	if h.config.Secret == "" {
		return nil
	}
	if h.raft, err = h.openStore("raft"); err != nil {
		return err
	}
	address, err := h.kernel.Address(h.config.Advertise)
	if err != nil {
		return fmt.Errorf("ADVERTISE=%s: %w", h.config.Advertise, err)
	}
	h.cluster, err = cluster.New(cluster.Config{
		Secret: []byte(h.config.Secret), Join: h.config.Join, Advertise: address, Name: h.config.Node,
		GossipPort: h.config.GossipPort, RaftPort: h.config.RaftPort,
		Dir: filepath.Join(stateDir, "cluster"), Log: raftLog{h.raft}, Version: version, Logger: h.log,
	})
	return err
}

// openStore opens one of the stores and keeps what has to be said of it.
func (h *host) openStore(name string) (*store.Store, error) {
	s, err := store.Open(filepath.Join(stateDir, name))
	if err != nil {
		return nil, err
	}
	if mended := s.Mended(); mended != "" {
		h.log.WithField("store", name).Warn(mended)
	}
	if damage := s.Damage(); damage != "" {
		h.log.WithField("store", name).Error(damage)
		h.damage = append(h.damage, damage)
	}
	return s, nil
}

// build makes ipam and driver over the leaves.
func (h *host) build() (err error) {
	pools := ipam.Config{
		Store: h.leases, Damaged: h.leases.Damage() != "", Pools: h.config.Pools, InUse: h.kernel.InUse, Logger: h.log,
	}
	networks := driver.Config{
		Modes: modes(h.underlay), Default: defaultMode(h.config), Name: driverName,
		Kernel: h.kernel, Store: h.state, Damaged: h.state.Damage() != "", Logger: h.log,
	}
	if h.cluster != nil { // a nil *Cluster in an interface would not be nil
		pools.Cluster = h.cluster
		networks.Facts, networks.Records = h.cluster, h.cluster
	}
	if h.ipam, err = ipam.New(pools); err != nil {
		return err
	}
	networks.Pools, networks.Leases = h.ipam, h.ipam
	h.driver = driver.New(networks)
	return nil
}

// underlay is what carries the overlay now.
func (h *host) underlay() (overlay.Underlay, error) {
	address, err := h.kernel.Address(h.config.Advertise)
	if err != nil {
		return overlay.Underlay{}, err
	}
	link, mtu, err := h.kernel.Underlay(address)
	return overlay.Underlay{VTEP: address, Link: link, MTU: mtu, Port: h.config.VXLANPort}, err
}

// run runs what runs until ctx ends or one of them fails.
func (h *host) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var wake <-chan struct{}
	if h.cluster != nil {
		var stop func()
		wake, stop = h.cluster.Watch()
		defer stop()
		g.Go(func() error { return h.cluster.Run(ctx) })
	}
	g.Go(func() error { return h.ipam.Run(ctx) })
	g.Go(func() error { return h.driver.Run(ctx, wake) })
	return g.Wait()
}

// close gives back what openLeaves took.
func (h *host) close() error {
	var errs []error
	for _, s := range []*store.Store{h.state, h.leases, h.raft} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if h.kernel != nil {
		h.kernel.Close()
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
