package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/ipam"
	"github.com/carricknet/carrick/plugin"
	"github.com/carricknet/carrick/store"
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
		Reports: h, Ledger: h, Members: h, Rescue: h,
		Measures: h, Alarms: h.alarms, Warnings: h.warningTexts,
	}
}

// alarms are those of the parts that are not the cluster.
func (h *host) alarms() []string {
	return slices.Concat(h.damage, h.broken(), h.narrow(), h.driver.Alarms(), h.ipam.Alarms())
}

// broken are sentences about stores that write no more.
func (h *host) broken() []string {
	var all []string
	for _, s := range []*store.Store{h.state, h.leases, h.raft} {
		if s == nil {
			continue
		}
		if err := s.Broken(); err != nil {
			all = append(all, err.Error()+": see to the disk, then disable and enable the plugin; traffic goes on meanwhile")
		}
	}
	return all
}

// narrow are sentences about networks whose largest packets the underlay does not carry any more.
func (h *host) narrow() []string {
	if h.cluster == nil {
		return nil
	}
	u, err := h.underlay()
	if err != nil {
		return nil // without an address nothing is carried, which others say
	}
	var all []string
	for _, n := range h.driver.MTUs("overlay") {
		if err := u.Carries(n.MTU); err != nil {
			all = append(all, fmt.Sprintf("network %s: %v", n.ID, err))
		}
	}
	return all
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

// Pools is what `carrick ipam pools` shows.
func (h *host) Pools(_ context.Context, which string) (any, error) {
	return h.ipam.Pools(which, h.elsewhere())
}

// Blocks is what `carrick ipam blocks` shows.
func (h *host) Blocks(_ context.Context, which string) (any, error) {
	return h.ipam.Blocks(which, h.elsewhere())
}

// Leases is what `carrick ipam leases` shows.
func (h *host) Leases(_ context.Context, which string) (any, error) { return h.ipam.Leases(which) }

// Who is what `carrick ipam who` shows.
func (h *host) Who(_ context.Context, addr netip.Addr) (any, error) {
	return h.ipam.Who(addr, h.elsewhere())
}

// elsewhere is what the driver knows of the networks whose addresses ipam gives.
func (h *host) elsewhere() ipam.Elsewhere {
	return ipam.Elsewhere{Modes: h.driver.ModeOf(), Told: func(shared string) (all []ipam.Told, heard bool) {
		endpoints, heard := h.driver.Heard(shared)
		for _, e := range endpoints {
			t := ipam.Told{Node: e.Node, Endpoint: e.ID, MAC: e.MAC.String()}
			for _, p := range e.Addrs {
				t.Addrs = append(t.Addrs, p.Addr())
			}
			all = append(all, t)
		}
		return all, heard
	}}
}

// Leave takes this node out of the cluster.
func (h *host) Leave(ctx context.Context) error {
	if h.cluster == nil {
		return errNoCluster
	}
	if err := h.cluster.Leave(ctx); err != nil {
		return err
	}
	return h.driver.KeepGuard(ctx) // which goes: the plugin may be removed next
}

// Rejoin lets a host that has left join as a new node.
func (h *host) Rejoin(ctx context.Context) error {
	if h.cluster == nil {
		return errNoCluster
	}
	return h.cluster.Rejoin(ctx)
}

// Loss is what Recover would go on without.
func (h *host) Loss(ctx context.Context) (any, error) {
	if h.cluster == nil {
		return nil, errNoCluster
	}
	return h.cluster.Loss(ctx)
}

// Recover makes this node the only voter of the cluster.
func (h *host) Recover(ctx context.Context) error {
	if h.cluster == nil {
		return errNoCluster
	}
	return h.cluster.Recover(ctx)
}

// RemoveNetwork removes a network that Docker has lost.
func (h *host) RemoveNetwork(ctx context.Context, network string) error {
	return h.driver.RemoveNetwork(ctx, network)
}

// Forget takes another node out of the cluster, for good.
func (h *host) Forget(ctx context.Context, node string) error {
	if h.cluster == nil {
		return errNoCluster
	}
	return h.cluster.Forget(ctx, node)
}
