package main

import (
	"context"
	"errors"
	"slices"

	"github.com/carricknet/carrick/plugin"
)

// localSpace and globalSpace are told to the engine before there is an IPAM.
const (
	localSpace  = "carrick"
	globalSpace = "carrick-global"
)

var errNoCluster = errors.New("this host is in no cluster: SECRET is not set")

// backend is what the server hands the calls to.
func (h *host) backend() plugin.Backend {
	return plugin.Backend{
		Networks: h.driver, Endpoints: h.driver, Sandboxes: h.driver,
		Pools: h.ipam, Addresses: h.ipam,
		Reports: h, Members: h, Alarms: h.alarms,
	}
}

// alarms are those of the parts that are not the cluster.
func (h *host) alarms() []string {
	return slices.Concat(h.damage, h.driver.Alarms(), h.ipam.Alarms())
}

// Status is what `carrick status` shows of the cluster; nothing without one.
func (h *host) Status(context.Context) (any, error) {
	if h.cluster == nil {
		return nil, nil
	}
	return h.cluster.Status(), nil
}

// Networks is what `carrick networks` shows.
func (h *host) Networks(context.Context) (any, error) { return h.driver.Networks(), nil }

// Endpoints is what `carrick endpoints` shows.
func (h *host) Endpoints(context.Context) (any, error) { return h.driver.Endpoints(), nil }

// Leave takes this node out of the cluster.
func (h *host) Leave(ctx context.Context) error {
	if h.cluster == nil {
		return errNoCluster
	}
	return h.cluster.Leave(ctx)
}

// Forget takes another node out of the cluster, for good.
func (h *host) Forget(ctx context.Context, node string) error {
	if h.cluster == nil {
		return errNoCluster
	}
	return h.cluster.Forget(ctx, node)
}
