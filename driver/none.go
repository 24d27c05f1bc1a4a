package driver

import (
	"context"

	"github.com/carricknet/carrick/kernel"
)

// None is the mode of networks that give a container nothing but its loopback device. It may be attached to other
// networks at any time.
func None(_ context.Context, n *Network) (Plan, error) {
	return nonePlan{}, CheckOptions(n)
}

type nonePlan struct{}

func (nonePlan) Network(Remote) kernel.State { return kernel.State{} }

func (nonePlan) Endpoint(Endpoint) (kernel.State, Attachment) {
	return kernel.State{}, Attachment{NoGatewayService: true}
}
