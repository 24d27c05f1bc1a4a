package plugin

import (
	"context"
	"errors"

	helper "github.com/docker/go-plugins-helpers/ipam"

	"github.com/carricknet/carrick/ipam"
)

// ipamCapabilities is the answer to IpamDriver.GetCapabilities; go-plugins-helpers does not know the replay.
type ipamCapabilities struct {
	helper.CapabilitiesResponse
	RequiresRequestReplay bool
}

// addressRef is a request that names an address in a pool, or leaves the address open.
type addressRef struct {
	pool, address string
	options       map[string]string
}

// errNoPrefix guards Docker against an answer that it would take for the whole of IPv4.
var errNoPrefix = errors.New("internal error: the pools answered without an address")

func parsePoolRequest(body []byte) (ipam.PoolRequest, about, error) {
	var wire helper.RequestPoolRequest
	if err := decode(body, &wire); err != nil {
		return ipam.PoolRequest{}, about{}, err
	}
	req := ipam.PoolRequest{Space: wire.AddressSpace, Pool: wire.Pool, SubPool: wire.SubPool, Options: wire.Options, V6: wire.V6}
	if wire.AddressSpace == "" {
		return req, about{address: wire.Pool}, invalid("AddressSpace is missing")
	}
	return req, about{address: wire.Pool}, nil
}

func parsePoolRef(body []byte) (string, about, error) {
	var wire helper.ReleasePoolRequest
	if err := decode(body, &wire); err != nil {
		return "", about{}, err
	}
	return wire.PoolID, about{pool: wire.PoolID}, checkPool(wire.PoolID)
}

func parseAddressRef(body []byte) (addressRef, about, error) {
	var wire helper.RequestAddressRequest // ReleaseAddress has the same fields but Options
	if err := decode(body, &wire); err != nil {
		return addressRef{}, about{}, err
	}
	ref := addressRef{wire.PoolID, wire.Address, wire.Options}
	return ref, about{pool: wire.PoolID, address: wire.Address}, checkPool(wire.PoolID)
}

func parseRelease(body []byte) (addressRef, about, error) {
	ref, a, err := parseAddressRef(body)
	if err == nil && ref.address == "" {
		err = invalid("Address is missing")
	}
	return ref, a, err
}

func checkPool(id string) error {
	if id == "" {
		return invalid("PoolID is missing")
	}
	return nil
}

func requestPool(ctx context.Context, b Backend, req ipam.PoolRequest) (any, error) {
	id, prefix, data, err := b.Pools.RequestPool(ctx, req)
	if err == nil && !prefix.IsValid() {
		err = errNoPrefix
	}
	if err != nil {
		return nil, err
	}
	return helper.RequestPoolResponse{PoolID: id, Pool: prefix.String(), Data: data}, nil
}

// granted adds what was handed out to what the log says.
func (a about) granted(answer any) about {
	switch answer := answer.(type) {
	case helper.RequestPoolResponse:
		a.pool, a.address = answer.PoolID, answer.Pool
	case helper.RequestAddressResponse:
		a.address = answer.Address
	}
	return a
}

func releasePool(ctx context.Context, b Backend, id string) (any, error) {
	return empty{}, b.Pools.ReleasePool(ctx, id)
}

func requestAddress(ctx context.Context, b Backend, ref addressRef) (any, error) {
	prefix, err := b.Addresses.RequestAddress(ctx, ref.pool, ref.address, ref.options)
	if err == nil && !prefix.IsValid() {
		err = errNoPrefix
	}
	if err != nil {
		return nil, err
	}
	return helper.RequestAddressResponse{Address: prefix.String()}, nil
}

func releaseAddress(ctx context.Context, b Backend, ref addressRef) (any, error) {
	return empty{}, b.Addresses.ReleaseAddress(ctx, ref.pool, ref.address)
}
