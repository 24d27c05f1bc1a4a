package plugin

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/carricknet/carrick/ipam"
)

// maxNode bounds the name or identifier of a node, in bytes.
const maxNode = 255

// Status is the answer to Carrick.Status. It is given in every state.
type Status struct {
	State   string   `json:"state"` // starting, ready or refusing
	Version string   `json:"version"`
	Uptime  int64    `json:"uptime"`            // seconds
	Waiting string   `json:"waiting,omitempty"` // starting: for what
	Reason  string   `json:"reason,omitempty"`  // refusing: why
	Alarms  []string `json:"alarms"`
	// Warnings are what could be better; nobody needs to look.
	Warnings []string `json:"warnings,omitempty"`
	Cluster  any      `json:"cluster,omitempty"` // ready: what Reports.Status says
}

func status(ctx context.Context, s *Server) (any, error) {
	p := s.gate.current()
	st := Status{
		State: p.name, Version: s.config.Version, Uptime: int64(time.Since(s.began) / time.Second),
		Waiting: p.waiting, Alarms: []string{},
	}
	if p.reason != nil {
		st.Reason = p.reason.Error()
	}
	if p.name != stateReady {
		return st, nil
	}
	if p.backend.Alarms != nil {
		st.Alarms = append(st.Alarms, p.backend.Alarms()...)
	}
	if p.backend.Warnings != nil {
		st.Warnings = p.backend.Warnings()
	}
	cluster, err := p.backend.Reports.Status(ctx)
	if err != nil {
		st.Alarms = append(st.Alarms, fmt.Sprintf("the cluster's state cannot be told: %v", err))
		return st, nil
	}
	st.Cluster = cluster
	return st, nil
}

// forgetRequest is Carrick.Forget.
type forgetRequest struct {
	Node string `json:"node"`
}

func parseNothing(body []byte) (empty, about, error) {
	var wire empty
	return empty{}, about{}, decode(body, &wire)
}

func parseForget(body []byte) (string, about, error) {
	var wire forgetRequest
	if err := decode(body, &wire); err != nil {
		return "", about{}, err
	}
	if wire.Node == "" || len(wire.Node) > maxNode {
		return "", about{}, invalid("node %s is not a node's name or identifier", quote(wire.Node))
	}
	return wire.Node, about{}, nil
}

// removeRequest is Carrick.RemoveNetwork.
type removeRequest struct {
	Network string `json:"network"`
}

func parseRemoval(body []byte) (string, about, error) {
	var wire removeRequest
	if err := decode(body, &wire); err != nil {
		return "", about{}, err
	}
	if wire.Network == "" || len(wire.Network) > maxNode {
		return "", about{}, invalid("network %s is not a network's name or identifier", quote(wire.Network))
	}
	return wire.Network, about{network: wire.Network}, nil
}

func listMetrics(ctx context.Context, b Backend, _ empty) (any, error) {
	return b.Measures.Metrics(ctx)
}

func listNetworks(ctx context.Context, b Backend, _ empty) (any, error) {
	return b.Reports.Networks(ctx)
}

func listEndpoints(ctx context.Context, b Backend, _ empty) (any, error) {
	return b.Reports.Endpoints(ctx)
}

// poolsRequest is Carrick.Pools, Carrick.Blocks and Carrick.Leases.
type poolsRequest struct {
	Pool string `json:"pool"` // "" means all
}

func parsePoolName(body []byte) (string, about, error) {
	var wire poolsRequest
	if err := decode(body, &wire); err != nil {
		return "", about{}, err
	}
	if len(wire.Pool) > maxNode {
		return "", about{}, invalid("pool %s is not a subnet, or the name or identifier of a network", quote(wire.Pool))
	}
	return wire.Pool, about{pool: wire.Pool}, nil
}

// whoRequest is Carrick.Who.
type whoRequest struct {
	Address string `json:"address"`
}

func parseWho(body []byte) (netip.Addr, about, error) {
	var wire whoRequest
	if err := decode(body, &wire); err != nil {
		return netip.Addr{}, about{}, err
	}
	addr, err := ipam.ParseAddress(wire.Address)
	if err != nil {
		return addr, about{}, invalid("%s is not an IPv4 or IPv6 address, as in 10.1.0.3 or fd00:1::3", quote(wire.Address))
	}
	return addr, about{address: wire.Address}, nil
}

func listPools(ctx context.Context, b Backend, pool string) (any, error) {
	return b.Ledger.Pools(ctx, pool)
}

func listBlocks(ctx context.Context, b Backend, pool string) (any, error) {
	return b.Ledger.Blocks(ctx, pool)
}

func listLeases(ctx context.Context, b Backend, pool string) (any, error) {
	return b.Ledger.Leases(ctx, pool)
}

func tellWho(ctx context.Context, b Backend, addr netip.Addr) (any, error) {
	return b.Ledger.Who(ctx, addr)
}

func leaveCluster(ctx context.Context, b Backend, _ empty) (any, error) {
	return empty{}, b.Members.Leave(ctx)
}

func forgetNode(ctx context.Context, b Backend, node string) (any, error) {
	return empty{}, b.Members.Forget(ctx, node)
}

func rejoinCluster(ctx context.Context, b Backend, _ empty) (any, error) {
	return empty{}, b.Members.Rejoin(ctx)
}

func tellLoss(ctx context.Context, b Backend, _ empty) (any, error) { return b.Rescue.Loss(ctx) }

func recoverCluster(ctx context.Context, b Backend, _ empty) (any, error) {
	return empty{}, b.Rescue.Recover(ctx)
}

func removeNetwork(ctx context.Context, b Backend, network string) (any, error) {
	return empty{}, b.Rescue.RemoveNetwork(ctx, network)
}
