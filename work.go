package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/plugin"
)

const (
	// retryAfter is how long work waits after a failure: an address that comes by DHCP, or a disk that was full, is met
	// within seconds.
	retryAfter = 2 * time.Second
	// patience is how long a failure may be one that goes by itself. Meanwhile calls wait for up to 10 s rather than fail,
	// for the engine does not try again what fails while the host boots.
	patience = 30 * time.Second
)

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
	said, well := "", time.Now() // when it last worked, or was new
	var damage []string
	for ctx.Err() == nil {
		h := &host{config: config, dir: stateDir, log: log, damage: damage}
		err := h.attempt(ctx, server)
		damage = h.damage
		if ctx.Err() != nil {
			return
		}
		if h.ready {
			well = time.Now()
		}
		if errors.Is(err, cluster.ErrAgain) {
			log.Info(err)
			server.Waiting("this host's part in the cluster to begin again")
			continue
		}
		if errors.Is(err, errMoved) {
			log.WithError(err).Warn("the others have to hear of it: starting again")
			server.Waiting("this host to be known at its new address")
			continue
		}
		if err.Error() != said {
			said = err.Error()
			log.WithError(err).Error("cannot work; trying again")
		}
		if time.Since(well) < patience {
			server.Waiting("this to pass: " + said)
		} else {
			server.Refuse(err)
		}
		pause(ctx, retryAfter)
	}
}

// pause tells whether ctx goes on after d.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// attempt builds everything from the leaves up, hands it to the server, and runs it until ctx ends or a part fails. What
// it leaves behind is at rest: no call is at work in it, and nothing is open.
func (h *host) attempt(ctx context.Context, server *plugin.Server) (err error) {
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.openLeaves(); err != nil {
		return err
	}
	var node member
	if h.cluster != nil { // a nil *Cluster in an interface would not be nil
		node = h.cluster
		server.Waiting("other hosts to say whether they know more than this host's disk")
		h.unsure = !h.cluster.Compare(ctx)
	}
	if err := h.build(h.kernel, h.underlay, node); err != nil {
		return err
	}
	server.Waiting("what was here before the restart to be found again")
	if err := h.driver.Restore(ctx); err != nil {
		return err
	}
	server.Ready(h.backend())
	h.ready = true
	err = h.run(ctx)
	err = errors.Join(err, server.Withdraw(ctx, fmt.Sprintf("another start, after: %v", err)))
	if ctx.Err() != nil {
		h.rest(ctx)
	}
	return err
}

// restLimit bounds what is done when the plugin is told to end: the engine kills it 10 s later.
const restLimit = 2 * time.Second

// rest leaves the host as it was, if there are no networks.
func (h *host) rest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restLimit)
	defer cancel()
	if err := h.driver.DropGuard(ctx); err != nil {
		h.log.WithError(err).Warn("rules of this plugin stay on this host")
	}
}

// errMoved ends the work on an address that is not this host's any more.
var errMoved = errors.New("the address of this host has changed")

// followEvery is how often the host's address is looked at, and the MTU of the device that has it.
const followEvery = time.Second

// followAddress ends with errMoved when this host has lost its address and has another at two looks, as when a DHCP server
// gives it a new one: everything that stands on the address is then built again. An address that merely would not be chosen
// any more stays: a VPN that comes up is no reason to move.
func followAddress(ctx context.Context, period time.Duration, was netip.Addr, spec string, find func(spec string) (netip.Addr, error)) error {
	var next netip.Addr
	for pause(ctx, period) {
		_, lost := find(was.String())
		now, err := find(spec)
		switch {
		case lost == nil || err != nil:
			next = netip.Addr{}
		case now == next:
			return fmt.Errorf("%w: it was %s and is %s", errMoved, was, now)
		default:
			next = now
		}
	}
	return nil
}

// followDevice logs what tell says when that is new, as what happens to a device at runtime is told by nobody.
func followDevice(ctx context.Context, period time.Duration, tell func() []string, log *logrus.Logger) error {
	var said []string
	for pause(ctx, period) {
		now := tell()
		for _, text := range now {
			if !slices.Contains(said, text) {
				log.Warn(text)
			}
		}
		for _, text := range said {
			if !slices.Contains(now, text) {
				log.Info("no longer: " + text)
			}
		}
		said = now
	}
	return nil
}
