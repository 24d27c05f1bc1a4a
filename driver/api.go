package driver

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// Errors that callers may tell apart. All are wrapped with a sentence for the operator.
var (
	ErrInvalid  = errors.New("invalid request")
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
)

// A Mode is one way of putting containers on a wire.
type Mode struct {
	// Open validates a network and returns its plan. Required.
	Open Open
	// Shared says that networks of this mode span hosts: the cluster decides on them and hears of their endpoints.
	Shared bool
	// NoGateway says that Docker is not to reserve a gateway address.
	NoGateway bool
}

// Open validates n, makes its defaults explicit and returns its plan. It may look at the host but changes nothing.
type Open func(ctx context.Context, n *Network) (Plan, error)

// A Plan says what one network needs of the kernel. Its methods are pure.
type Plan interface {
	// Network is what the network itself needs, given what is behind other VTEPs.
	Network(remote Remote) kernel.State
	// Endpoint is what one endpoint of this host needs, and what Docker is to be told of it.
	Endpoint(e Endpoint) (kernel.State, Attachment)
}

// Network is one network as this host keeps it.
type Network struct {
	Version  int               `json:"v"`
	ID       string            `json:"id"` // Docker's, different on each host
	Mode     string            `json:"mode"`
	Options  map[string]string `json:"options,omitempty"` // as the user gave them, without mode
	Internal bool              `json:"internal,omitempty"`
	IPv4     bool              `json:"ipv4"`
	IPv6     bool              `json:"ipv6,omitempty"`
	Subnets  []cluster.Subnet  `json:"subnets,omitempty"`
	MTU      int               `json:"mtu,omitempty"`    // bytes, of the container's interface
	Shared   string            `json:"shared,omitempty"` // the cluster's identifier of it
	Name     string            `json:"name,omitempty"`   // of --ipam-opt network=NAME
	VNI      uint32            `json:"vni,omitempty"`
	Ours     bool              `json:"ours,omitempty"` // its addresses are of our IPAM
	Half     bool              `json:"half,omitempty"` // its making or removal has not come to its end: what there is of it goes
}

// Endpoint is one container's place on a network: here, or behind another VTEP.
type Endpoint struct {
	Version int            `json:"v"`
	ID      string         `json:"id"`
	Network string         `json:"network"`
	MAC     kernel.MAC     `json:"mac"`
	Addrs   []netip.Prefix `json:"addrs,omitempty"`
	Half    bool           `json:"half,omitempty"` // its making has not come to its end: what there is of it goes
	VTEP    netip.Addr     `json:"-"`              // zero: this host
}

// Remote is what a shared network has behind other VTEPs.
type Remote struct {
	VTEPs     []netip.Addr // of the nodes that take part in the network now
	Endpoints []Endpoint   // no two of one MAC or address
	Nodes     []netip.Addr // of every node of the cluster, this one too, whether it takes part or not
}

// Attachment is what Docker is told at Join.
type Attachment struct {
	Link             string // in the host's namespace, to be moved into the sandbox; "": none
	Prefix           string // of its name there, "eth"
	Gateway4         netip.Addr
	Gateway6         netip.Addr
	Routes           []kernel.Route
	NoGatewayService bool // docker_gwbridge is not wanted
}

// PoolData is one address pool of CreateNetwork.
type PoolData struct {
	Space   string
	Prefix  netip.Prefix
	Gateway netip.Addr
	Aux     map[string]netip.Addr
}

// NetworkRequest is CreateNetwork.
type NetworkRequest struct {
	ID       string
	Options  map[string]string // -o
	Internal bool
	IPv4     bool
	IPv6     bool
	Pools    []PoolData
}

// EndpointRequest is CreateEndpoint. The zero MAC means that the engine leaves it to us.
type EndpointRequest struct {
	Network string
	ID      string
	Addrs   []netip.Prefix
	MAC     kernel.MAC
	Options map[string]string // --driver-opt, without what the engine adds
}

// Kernel is what the driver needs of package kernel.
type Kernel interface {
	// Set gives owner exactly what want says; the zero State removes all.
	Set(ctx context.Context, owner string, want kernel.State) error
	// Remove is Set of the zero State for many owners at once, which is quicker than one after the other.
	Remove(ctx context.Context, owners ...string) error
	// Owners lists every owner that has something in the kernel.
	Owners(ctx context.Context) ([]kernel.Owned, error)
}

// Facts is what the driver needs of the cluster's slow facts.
type Facts interface {
	ID() string
	View() cluster.View
	Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error)
}

// Records is what the driver needs of the cluster's fast facts.
type Records interface {
	Attend(network string, on bool)
	Publish(network, key string, value []byte)
	Remote(network string) []cluster.Row
	Sync(ctx context.Context, network string) error
	Nodes() []cluster.Node
	// Revision is another number whenever Remote or Nodes may return something else than before.
	Revision(network string) uint64
}

// Pools is what the driver needs of the address pools.
type Pools interface {
	// Describe returns what is known of provisional pools: the name given by --ipam-opt network=, and range, gateway
	// and auxiliary addresses as the user gave them. ours is false if the pools are another IPAM driver's.
	Describe(space string, subnets []netip.Prefix) (name string, described []cluster.Subnet, ours bool)
	// Bind ties pools to a network of this host; shared is the cluster's identifier of it, if it has one.
	Bind(ctx context.Context, network, shared string, subnets []cluster.Subnet) error
	// Unbind drops the pools of a network and every lease in them.
	Unbind(ctx context.Context, network string) error
}

// Leases is what the driver needs of the leased addresses.
type Leases interface {
	// Use says that an endpoint has these addresses. They must be leased, and no other endpoint's.
	Use(ctx context.Context, network, endpoint string, addrs []netip.Addr) error
	// Unuse says that the endpoint is gone.
	Unuse(ctx context.Context, endpoint string) error
	// Reown asks the cluster for what is leased in a network and is not this host's any more.
	Reown(ctx context.Context, network string) error
}

// Store is what must not be forgotten: what Apply was given is on disk when it returns.
type Store interface {
	Prefix(prefix string) iter.Seq2[string, []byte]
	Apply(writes ...store.Write) error
}

// NetworkStatus is a network as the command line shows it.
type NetworkStatus struct {
	ID       string   `json:"id"`
	Mode     string   `json:"mode"`
	Shared   string   `json:"shared,omitempty"`
	Name     string   `json:"name,omitempty"`
	VNI      uint32   `json:"vni,omitempty"`
	MTU      int      `json:"mtu,omitempty"`
	Subnets  []string `json:"subnets,omitempty"`
	Internal bool     `json:"internal,omitempty"`
	Local    int      `json:"local"`
	Remote   int      `json:"remote"`
	Refused  int      `json:"refused,omitempty"` // records of other hosts that are not believed
	Problem  string   `json:"problem,omitempty"`
}

// EndpointStatus is an endpoint as the command line shows it.
type EndpointStatus struct {
	Network string   `json:"network"` // Docker's identifier on this host
	ID      string   `json:"id"`
	MAC     string   `json:"mac"`
	Addrs   []string `json:"addrs,omitempty"`
	Node    string   `json:"node,omitempty"`
	VTEP    string   `json:"vtep,omitempty"`
}
