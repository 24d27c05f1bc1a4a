package plugin

import (
	"context"

	"github.com/docker/go-plugins-helpers/network"
)

// work is what is left of a request after it was understood.
type work func(ctx context.Context, b Backend) (any, error)

// about is what the log says of a request.
type about struct{ network, endpoint, pool, address string }

// empty is the answer of a call that has nothing to say.
type empty struct{}

// route is one call. Exactly one of parse and always is set.
type route struct {
	// query says that the call changes nothing: it is logged at level debug.
	query bool
	// parse understands a request and needs no backend for it.
	parse func(body []byte) (about, work, error)
	// always answers whatever state the backend is in, and does not look at the body.
	always func(ctx context.Context, s *Server) (any, error)
}

// routes are the calls by their path. go-plugins-helpers' handlers would serve one protocol per socket.
var routes = map[string]route{
	"/Plugin.Activate": {query: true, always: activate},

	"/NetworkDriver.GetCapabilities": {query: true, always: networkCapabilities},
	"/NetworkDriver.GwAllocCheck":    {query: true, parse: call(parseSkipGateway, skipGateway)},
	"/NetworkDriver.CreateNetwork":   {parse: call(parseNetwork, createNetwork)},
	"/NetworkDriver.DeleteNetwork":   {parse: call(parseNetworkRef, deleteNetwork)},
	// Swarm's leader asks these two of drivers of scope global; ours is local.
	"/NetworkDriver.AllocateNetwork":  {parse: call(parseNetworkRef, allocateNetwork)},
	"/NetworkDriver.FreeNetwork":      {parse: call(parseNetworkRef, nothing[string])},
	"/NetworkDriver.CreateEndpoint":   {parse: call(parseEndpoint, createEndpoint)},
	"/NetworkDriver.DeleteEndpoint":   {parse: call(parseEndpointRef, deleteEndpoint)},
	"/NetworkDriver.EndpointOperInfo": {query: true, parse: call(parseEndpointRef, endpointInfo)},
	"/NetworkDriver.Join":             {parse: call(parseEndpointRef, join)},
	"/NetworkDriver.Leave":            {parse: call(parseEndpointRef, leave)},
	// The gateway is docker_gwbridge's, which publishes the ports. Whoever takes that over does it in Join and Leave:
	// engine 29 never revokes after a live restore.
	"/NetworkDriver.ProgramExternalConnectivity": {parse: call(parseEndpointRef, nothing[endpointRef])},
	"/NetworkDriver.RevokeExternalConnectivity":  {parse: call(parseEndpointRef, nothing[endpointRef])},
	// Nodes of a Swarm; our cluster finds its own.
	"/NetworkDriver.DiscoverNew":    {query: true, parse: call(parseDiscovery, nothing[empty])},
	"/NetworkDriver.DiscoverDelete": {query: true, parse: call(parseDiscovery, nothing[empty])},

	"/IpamDriver.GetCapabilities":         {query: true, always: addressCapabilities},
	"/IpamDriver.GetDefaultAddressSpaces": {query: true, always: addressSpaces},
	"/IpamDriver.RequestPool":             {parse: call(parsePoolRequest, requestPool)},
	"/IpamDriver.ReleasePool":             {parse: call(parsePoolRef, releasePool)},
	"/IpamDriver.RequestAddress":          {parse: call(parseAddressRef, requestAddress)},
	"/IpamDriver.ReleaseAddress":          {parse: call(parseRelease, releaseAddress)},

	"/Carrick.Status":    {query: true, always: status},
	"/Carrick.Networks":  {query: true, parse: call(parseNothing, listNetworks)},
	"/Carrick.Endpoints": {query: true, parse: call(parseNothing, listEndpoints)},
	"/Carrick.Metrics":   {query: true, parse: call(parseNothing, listMetrics)},
	"/Carrick.Pools":     {query: true, parse: call(parsePoolName, listPools)},
	"/Carrick.Blocks":    {query: true, parse: call(parsePoolName, listBlocks)},
	"/Carrick.Leases":    {query: true, parse: call(parsePoolName, listLeases)},
	"/Carrick.Who":       {query: true, parse: call(parseWho, tellWho)},
	"/Carrick.Leave":     {parse: call(parseNothing, leaveCluster)},
	"/Carrick.Forget":    {parse: call(parseForget, forgetNode)},
	"/Carrick.Join":      {parse: call(parseNothing, rejoinCluster)},
	"/Carrick.Loss":      {query: true, parse: call(parseNothing, tellLoss)},
	"/Carrick.Recover":   {parse: call(parseNothing, recoverCluster)},

	"/Carrick.RemoveNetwork": {parse: call(parseRemoval, removeNetwork)},
}

// call joins the two halves of a call.
func call[R any](parse func([]byte) (R, about, error), do func(context.Context, Backend, R) (any, error)) func([]byte) (about, work, error) {
	return func(body []byte) (about, work, error) {
		req, a, err := parse(body)
		return a, func(ctx context.Context, b Backend) (any, error) { return do(ctx, b, req) }, err
	}
}

// nothing answers a call that asks nothing of us.
func nothing[R any](context.Context, Backend, R) (any, error) { return empty{}, nil }

func parseDiscovery(body []byte) (empty, about, error) {
	var wire network.DiscoveryNotification
	return empty{}, about{}, decode(body, &wire)
}

func allocateNetwork(context.Context, Backend, string) (any, error) {
	return nil, invalid("this driver's networks are of scope local: Swarm has nothing to allocate for them")
}
