package main

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/ipam"
)

// who is what a host says of an address in the one network that there is.
func (e *engine) who(addr string) ipam.AddressStatus {
	e.Helper()
	got, err := e.host.Who(e.Context(), netip.MustParseAddr(addr))
	e.must(err)
	all := got.([]ipam.AddressStatus)
	if len(all) != 1 {
		e.Fatalf("host%d: %s: %+v", e.n, addr, all)
	}
	return all[0]
}

// TestEveryHostTellsWhoHasAnAddress: the one that has it, one that has another container in the network, one that has the
// network only, and one that does not have it.
func TestEveryHostTellsWhoHasAnAddress(t *testing.T) {
	all := engines(t, &clustertest.Cluster{}, 4)
	var nets []*dockerNet
	for _, e := range all[:3] {
		n, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
		e.must(err)
		nets = append(nets, n)
	}
	c, err := all[0].run(nets[0])
	all[0].must(err)
	_, err = all[1].run(nets[1])
	all[1].must(err)
	for _, cidr := range c.addresses {
		addr := bareAddress(cidr)
		for n, want := range []string{
			"in use, here true", "in use, here false", "unknown, here false", "unknown, here false",
		} {
			a := all[n].who(addr)
			if got := fmt.Sprintf("%s, here %v", a.State, a.Here); got != want || a.Host != "host0" || a.Mode != "overlay" {
				t.Errorf("host%d: %s, want %s: %+v", n, got, want, a)
			}
			if known := a.State == ipam.StateUsed; known != (a.Endpoint == c.id) || known != (a.MAC != "") {
				t.Errorf("host%d: %+v", n, a)
			}
		}
	}
	all[0].node.(watched).Suspend(true)
	if a := all[1].who(bareAddress(c.addresses[0])); a.State != ipam.StateUnknown || a.HostState != "suspended" {
		t.Errorf("of a host that does not answer: %+v", a)
	}
	pools, err := all[1].host.Pools(t.Context(), "10.1.0.0/24")
	all[1].must(err)
	if p := pools.([]ipam.PoolStatus)[0]; p.Stranded == 0 || p.Told == nil || *p.Told != 0 || p.Used != 1 {
		t.Errorf("%+v", p)
	}
	all[0].node.(watched).Suspend(false)
	all[0].stop(c)
	eventually(t, "a released address is nobody's on every host", func() string {
		if here, there := all[0].who(bareAddress(c.addresses[0])), all[1].who(bareAddress(c.addresses[0])); here.State != ipam.StateResting || there.State != ipam.StateUnused {
			return fmt.Sprintf("%+v, %+v", here, there)
		}
		return ""
	})
}
