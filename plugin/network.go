package plugin

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

// Keys of the engine's own in the options of networks and endpoints (moby, libnetwork/netlabel).
const (
	keyGeneric   = "com.docker.network.generic" // all -o of the user, as one object
	keyInternal  = "com.docker.network.internal"
	keyIPv4      = "com.docker.network.enable_ipv4" // from engine 28 on
	keyIPv6      = "com.docker.network.enable_ipv6"
	keyAdvertise = "com.docker.network.advertise_addr_" // …nmsgs, …ms, from engine 28 on; the engine acts on them itself
	keyPortMap   = "com.docker.network.portmap"
	keyEndpoint  = "com.docker.network.endpoint." // …exposedports, …macaddress, …dnsservers, …sysctls, …ifname
)

// capabilities is the answer to NetworkDriver.GetCapabilities; go-plugins-helpers does not know GwAllocChecker.
type capabilities struct {
	network.CapabilitiesResponse
	GwAllocChecker bool
}

// gatewayRequest and gatewayAnswer are NetworkDriver.GwAllocCheck, which engines from 28 on send before CreateNetwork.
type gatewayRequest struct{ Options map[string]any }

type gatewayAnswer struct{ SkipIPv4, SkipIPv6 bool }

// endpointAnswer is the answer to CreateEndpoint. A field that the request had set must be absent, even if equal.
type endpointAnswer struct {
	Interface struct {
		MacAddress string `json:",omitempty"`
	}
}

// joinAnswer is the answer to Join, with InterfaceName absent for a sandbox that gets no interface.
type joinAnswer struct {
	InterfaceName         *network.InterfaceName `json:",omitempty"`
	Gateway               string                 `json:",omitempty"`
	GatewayIPv6           string                 `json:",omitempty"`
	StaticRoutes          []network.StaticRoute  `json:",omitempty"`
	DisableGatewayService bool                   `json:",omitempty"`
}

// Kinds of a static route in Docker's protocol.
const (
	routeNextHop = 0
	routeOnLink  = 1
)

// endpointRef is a request that names an endpoint and says nothing more that we need.
type endpointRef struct {
	network, endpoint string
	sandboxKey        string // of Join only
}

func parseSkipGateway(body []byte) (map[string]string, about, error) {
	var wire gatewayRequest
	if err := decode(body, &wire); err != nil {
		return nil, about{}, err
	}
	options, err := userOptions(wire.Options)
	return options, about{}, err
}

func parseNetwork(body []byte) (driver.NetworkRequest, about, error) {
	var wire network.CreateNetworkRequest
	if err := decode(body, &wire); err != nil {
		return driver.NetworkRequest{}, about{}, err
	}
	a := about{network: wire.NetworkID}
	req, err := networkRequest(wire)
	return req, a, err
}

func networkRequest(wire network.CreateNetworkRequest) (req driver.NetworkRequest, err error) {
	req.ID = wire.NetworkID
	if err = checkID("NetworkID", wire.NetworkID); err != nil {
		return req, err
	}
	if req.Options, err = userOptions(wire.Options); err != nil {
		return req, err
	}
	if req.Internal, err = truth(wire.Options, keyInternal, false); err != nil {
		return req, err
	}
	if req.IPv4, err = truth(wire.Options, keyIPv4, true); err != nil {
		return req, err
	}
	if req.IPv6, err = truth(wire.Options, keyIPv6, false); err != nil {
		return req, err
	}
	v4, err := parsePools("IPv4Data", wire.IPv4Data, false)
	if err != nil {
		return req, err
	}
	v6, err := parsePools("IPv6Data", wire.IPv6Data, true)
	req.Pools = append(v4, v6...)
	return req, err
}

// userOptions takes the user's -o out of the options of a network, without those that the engine acts on itself.
func userOptions(options map[string]any) (map[string]string, error) {
	var generic map[string]any
	switch v := options[keyGeneric].(type) {
	case nil:
	case map[string]any:
		generic = v
	default:
		return nil, invalid("option %s: %s is not an object", keyGeneric, describe(v))
	}
	given := maps.Clone(generic)
	maps.DeleteFunc(given, func(key string, _ any) bool {
		return key == keyIPv4 || key == keyIPv6 || strings.HasPrefix(key, keyAdvertise)
	})
	return texts(keyGeneric, given)
}

func parsePools(field string, data []*network.IPAMData, v6 bool) ([]driver.PoolData, error) {
	var pools []driver.PoolData
	for i, d := range data {
		name := fmt.Sprintf("%s[%d]", field, i)
		if d == nil {
			return nil, invalid("%s: null is not an address pool", name)
		}
		pool, err := parsePool(name, *d, v6)
		if err != nil {
			return nil, err
		}
		pools = append(pools, pool)
	}
	return pools, nil
}

func parsePool(field string, d network.IPAMData, v6 bool) (driver.PoolData, error) {
	pool := driver.PoolData{Space: d.AddressSpace}
	prefix, err := parsePrefix(field+".Pool", d.Pool, v6)
	if err != nil {
		return pool, err
	}
	// A foreign IPAM driver may answer with host bits, and the engine passes them on.
	pool.Prefix = prefix.Masked()
	if d.Gateway != "" {
		if pool.Gateway, err = parseAddress(field+".Gateway", d.Gateway, v6); err != nil {
			return pool, err
		}
	}
	aux, err := texts(field+".AuxAddresses", d.AuxAddresses)
	if err != nil {
		return pool, err
	}
	for _, name := range slices.Sorted(maps.Keys(aux)) {
		addr, err := parseAddress(fmt.Sprintf("%s.AuxAddresses[%s]", field, quote(name)), aux[name], v6)
		if err != nil {
			return pool, err
		}
		if pool.Aux == nil {
			pool.Aux = make(map[string]netip.Addr, len(aux))
		}
		pool.Aux[name] = addr
	}
	return pool, nil
}

func parseNetworkRef(body []byte) (string, about, error) {
	var wire network.DeleteNetworkRequest
	if err := decode(body, &wire); err != nil {
		return "", about{}, err
	}
	return wire.NetworkID, about{network: wire.NetworkID}, checkID("NetworkID", wire.NetworkID)
}

func parseEndpoint(body []byte) (driver.EndpointRequest, about, error) {
	var wire network.CreateEndpointRequest
	if err := decode(body, &wire); err != nil {
		return driver.EndpointRequest{}, about{}, err
	}
	a := about{network: wire.NetworkID, endpoint: wire.EndpointID}
	if wire.Interface == nil {
		wire.Interface = &network.EndpointInterface{}
	}
	a.address = strings.Trim(wire.Interface.Address+" "+wire.Interface.AddressIPv6, " ")
	req, err := endpointRequest(wire)
	return req, a, err
}

func endpointRequest(wire network.CreateEndpointRequest) (driver.EndpointRequest, error) {
	req := driver.EndpointRequest{Network: wire.NetworkID, ID: wire.EndpointID}
	if err := checkIDs(wire.NetworkID, wire.EndpointID); err != nil {
		return req, err
	}
	if s := wire.Interface.Address; s != "" {
		addr, err := parsePrefix("Interface.Address", s, false)
		if err != nil {
			return req, err
		}
		req.Addrs = append(req.Addrs, addr)
	}
	if s := wire.Interface.AddressIPv6; s != "" {
		addr, err := parsePrefix("Interface.AddressIPv6", s, true)
		if err != nil {
			return req, err
		}
		req.Addrs = append(req.Addrs, addr)
	}
	var err error
	if s := wire.Interface.MacAddress; s != "" {
		if req.MAC, err = parseMAC("Interface.MacAddress", s); err != nil {
			return req, err
		}
	}
	given := maps.Clone(wire.Options)
	maps.DeleteFunc(given, func(key string, _ any) bool {
		return key == keyPortMap || strings.HasPrefix(key, keyEndpoint)
	})
	req.Options, err = texts("Options", given)
	return req, err
}

func parseEndpointRef(body []byte) (endpointRef, about, error) {
	var wire network.JoinRequest // the calls that name an endpoint share its fields
	if err := decode(body, &wire); err != nil {
		return endpointRef{}, about{}, err
	}
	ref := endpointRef{wire.NetworkID, wire.EndpointID, wire.SandboxKey}
	a := about{network: wire.NetworkID, endpoint: wire.EndpointID}
	if err := checkIDs(wire.NetworkID, wire.EndpointID); err != nil {
		return ref, a, err
	}
	return ref, a, checkSandboxKey(wire.SandboxKey)
}

func skipGateway(_ context.Context, b Backend, options map[string]string) (any, error) {
	v4, v6, err := b.Networks.SkipGateway(options)
	return gatewayAnswer{v4, v6}, err
}

func createNetwork(ctx context.Context, b Backend, req driver.NetworkRequest) (any, error) {
	return empty{}, b.Networks.CreateNetwork(ctx, req)
}

func deleteNetwork(ctx context.Context, b Backend, id string) (any, error) {
	return empty{}, b.Networks.DeleteNetwork(ctx, id)
}

func createEndpoint(ctx context.Context, b Backend, req driver.EndpointRequest) (any, error) {
	mac, err := b.Endpoints.CreateEndpoint(ctx, req)
	var answer endpointAnswer
	if mac != (kernel.MAC{}) && req.MAC == (kernel.MAC{}) {
		answer.Interface.MacAddress = mac.String()
	}
	return answer, err
}

func deleteEndpoint(ctx context.Context, b Backend, ref endpointRef) (any, error) {
	return empty{}, b.Endpoints.DeleteEndpoint(ctx, ref.network, ref.endpoint)
}

func endpointInfo(ctx context.Context, b Backend, ref endpointRef) (any, error) {
	info, err := b.Endpoints.EndpointInfo(ctx, ref.network, ref.endpoint)
	if info == nil {
		info = map[string]string{} // some engines range over it without a look
	}
	return network.InfoResponse{Value: info}, err
}

func join(ctx context.Context, b Backend, ref endpointRef) (any, error) {
	at, err := b.Sandboxes.Join(ctx, ref.network, ref.endpoint, ref.sandboxKey)
	if err != nil {
		return nil, err
	}
	answer := joinAnswer{
		Gateway:               addressText(at.Gateway4),
		GatewayIPv6:           addressText(at.Gateway6),
		DisableGatewayService: at.NoGatewayService,
	}
	if at.Link != "" {
		answer.InterfaceName = &network.InterfaceName{SrcName: at.Link, DstPrefix: at.Prefix}
	}
	for _, r := range at.Routes {
		route := network.StaticRoute{Destination: r.Dst.String(), RouteType: routeOnLink}
		if r.Via.IsValid() {
			route.RouteType, route.NextHop = routeNextHop, r.Via.String()
		}
		answer.StaticRoutes = append(answer.StaticRoutes, route)
	}
	return answer, nil
}

func leave(ctx context.Context, b Backend, ref endpointRef) (any, error) {
	return empty{}, b.Sandboxes.Leave(ctx, ref.network, ref.endpoint)
}

// addressText is "" for no address, where netip says "invalid IP".
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
