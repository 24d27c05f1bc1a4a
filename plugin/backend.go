package plugin

import (
	"context"
	"net/netip"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/ipam"
	"github.com/carricknet/carrick/kernel"
)

// Backend is what the calls are handed to, once it works.
type Backend struct {
	Networks  Networks
	Endpoints Endpoints
	Sandboxes Sandboxes
	Pools     Pools
	Addresses Addresses
	Reports   Reports
	Ledger    Ledger
	Measures  Measures
	Members   Members
	Rescue    Rescue
	// Alarms are sentences for the operator beside those of the cluster; nil: none.
	Alarms func() []string
	// Warnings are sentences about what could be better; nil: none.
	Warnings func() []string
}

// Networks is NetworkDriver's calls about networks.
type Networks interface {
	// SkipGateway says for which families Docker is to reserve no gateway address.
	SkipGateway(options map[string]string) (v4, v6 bool, err error)
	CreateNetwork(ctx context.Context, n driver.NetworkRequest) error
	DeleteNetwork(ctx context.Context, network string) error
}

// Endpoints is NetworkDriver's calls about endpoints.
type Endpoints interface {
	// CreateEndpoint returns the endpoint's MAC, or the zero MAC when the request had one.
	CreateEndpoint(ctx context.Context, e driver.EndpointRequest) (kernel.MAC, error)
	DeleteEndpoint(ctx context.Context, network, endpoint string) error
	EndpointInfo(ctx context.Context, network, endpoint string) (map[string]string, error)
}

// Sandboxes is NetworkDriver's calls about an endpoint's place in a sandbox.
type Sandboxes interface {
	Join(ctx context.Context, network, endpoint, sandboxKey string) (driver.Attachment, error)
	Leave(ctx context.Context, network, endpoint string) error
}

// Pools is IpamDriver's calls about pools.
type Pools interface {
	RequestPool(ctx context.Context, p ipam.PoolRequest) (id string, prefix netip.Prefix, data map[string]string, err error)
	ReleasePool(ctx context.Context, pool string) error
}

// Addresses is IpamDriver's calls about addresses.
type Addresses interface {
	RequestAddress(ctx context.Context, pool, address string, options map[string]string) (netip.Prefix, error)
	ReleaseAddress(ctx context.Context, pool, address string) error
}

// Reports is what the command line shows. The values are sent as JSON.
type Reports interface {
	Status(ctx context.Context) (any, error)
	Networks(ctx context.Context) (any, error)
	Endpoints(ctx context.Context) (any, error)
}

// Ledger is what the command line shows of addresses. The values are sent as JSON. A pool is meant by its subnet, or by the
// name or the identifier of its network; "" means all.
type Ledger interface {
	Pools(ctx context.Context, pool string) (any, error)
	Blocks(ctx context.Context, pool string) (any, error)
	Leases(ctx context.Context, pool string) (any, error)
	Who(ctx context.Context, addr netip.Addr) (any, error)
}

// Measures is what other programs watch. The value is sent as JSON.
type Measures interface {
	Metrics(ctx context.Context) (any, error)
}

// Members is what the command line changes.
type Members interface {
	Leave(ctx context.Context) error
	Rejoin(ctx context.Context) error
	Forget(ctx context.Context, node string) error
}

// Rescue is what the command line does when hosts are lost. Loss is sent as JSON.
type Rescue interface {
	Loss(ctx context.Context) (any, error)
	Recover(ctx context.Context) error
	RemoveNetwork(ctx context.Context, network string) error
}
