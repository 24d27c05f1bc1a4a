package ipam

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// RequestPool makes a provisional pool, or finds the one that the same words made before.
func (i *IPAM) RequestPool(ctx context.Context, r PoolRequest) (id string, prefix netip.Prefix, data map[string]string, err error) {
	var inUse []netip.Prefix
	if r.Pool == "" {
		if inUse, err = i.inUse(); err != nil {
			return "", netip.Prefix{}, nil, fmt.Errorf("choose a subnet: %w", err)
		}
	}
	answer, err := i.answer(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.RequestPool(at, r, inUse) })
	if err != nil {
		return "", netip.Prefix{}, nil, err
	}
	return answer.Pool, answer.Prefix, nil, nil
}

// ReleasePool drops a provisional pool. One that belongs to a network stays until Unbind.
func (i *IPAM) ReleasePool(ctx context.Context, id string) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.ReleasePool(at, id) })
}

// RequestAddress hands out an address: the gateway's, one that is asked for by name, or any. It is on disk when it is
// answered, and the same request again has the same answer.
func (i *IPAM) RequestAddress(ctx context.Context, pool, address string, options map[string]string) (netip.Prefix, error) {
	answer, err := i.answer(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.RequestAddress(at, pool, address, options) })
	if err != nil {
		return netip.Prefix{}, err
	}
	select {
	case i.used <- struct{}{}: // Run may have to claim ahead
	default:
	}
	return answer.Prefix, nil
}

// ReleaseAddress takes an address back. An unknown one is free already; one that an endpoint uses stays the endpoint's.
func (i *IPAM) ReleaseAddress(ctx context.Context, pool, address string) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.ReleaseAddress(at, pool, address) })
}

// Describe says what was asked for a network's pools: its name, and for each subnet the range, gateway and auxiliary
// addresses as the user gave them. ours is false if the address space is another IPAM driver's.
func (i *IPAM) Describe(space string, subnets []netip.Prefix) (name string, described []cluster.Subnet, ours bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ledger.Describe(space, subnets)
}

// Bind ties pools to a network of Docker's. For a network of the cluster, which has been joined before, the host gets its
// first block of each subnet. Bound again the same way it succeeds; on failure everything is as it was.
func (i *IPAM) Bind(ctx context.Context, network, shared string, subnets []cluster.Subnet) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Bind(at, network, shared, subnets) })
}

// Unbind drops the pools of a network and every lease in them. Blocks are given back by cluster.LeaveNetwork.
func (i *IPAM) Unbind(ctx context.Context, network string) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Unbind(at, network) })
}

// Use says that an endpoint has addresses of a network. It fails, and changes nothing, if one was not handed out or is
// another endpoint's.
func (i *IPAM) Use(ctx context.Context, network, endpoint string, addrs []netip.Addr) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Use(at, network, endpoint, addrs) })
}

// Unuse says that an endpoint is gone. Its addresses are released by Docker, or by the sweep.
func (i *IPAM) Unuse(ctx context.Context, endpoint string) error {
	return i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Unuse(at, endpoint) })
}

// Reown asks for the addresses of a network that are leased here and are not this host's any more. What others have by now
// stays theirs, and is an alarm while a container has it.
func (i *IPAM) Reown(ctx context.Context, network string) error {
	i.mu.Lock()
	lost := i.ledger.Strays(i.moment(), network)
	i.mu.Unlock()
	for _, addr := range lost {
		if err := i.call(ctx, func(at ledger.Moment) ledger.Move { return i.ledger.Reown(at, network, addr) }); err != nil {
			return err
		}
	}
	return nil
}

// Alarms are what an operator should look at.
func (i *IPAM) Alarms() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ledger.Alarms(i.moment())
}

func (i *IPAM) call(ctx context.Context, call func(ledger.Moment) ledger.Move) error {
	_, err := i.answer(ctx, call)
	return err
}

func (i *IPAM) answer(ctx context.Context, call func(ledger.Moment) ledger.Move) (ledger.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, ledger.AnswerTime)
	defer cancel()
	return i.do(ctx, call)
}
