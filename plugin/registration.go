package plugin

import (
	"context"

	helper "github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
)

// manifest is the answer to Plugin.Activate, which only plugins that are not managed are asked.
type manifest struct{ Implements []string }

func activate(context.Context, *Server) (any, error) {
	return manifest{[]string{"NetworkDriver", "IpamDriver"}}, nil
}

// networkCapabilities: networks are made on each host, not by Swarm's manager; what is connected to them may be on other
// hosts, so that Swarm spreads the names in those of its scope (--scope swarm --config-from).
func networkCapabilities(context.Context, *Server) (any, error) {
	return capabilities{
		CapabilitiesResponse: network.CapabilitiesResponse{Scope: network.LocalScope, ConnectivityScope: network.GlobalScope},
		GwAllocChecker:       true,
	}, nil
}

// addressCapabilities: MAC addresses are the driver's, addresses do not depend on them.
func addressCapabilities(_ context.Context, s *Server) (any, error) {
	return ipamCapabilities{helper.CapabilitiesResponse{RequiresMACAddress: s.config.RequestMAC}, s.config.RequestReplay}, nil
}

func addressSpaces(_ context.Context, s *Server) (any, error) {
	return helper.AddressSpacesResponse{
		LocalDefaultAddressSpace:  s.config.LocalSpace,
		GlobalDefaultAddressSpace: s.config.GlobalSpace,
	}, nil
}
