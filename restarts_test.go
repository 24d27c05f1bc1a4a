package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cluster/clustertest"
)

// TestStartsThatFailLeaveNothing: each engine takes back in its own way what the plugin had done. What was asked for is
// free at once: with engine 29 the container has lost its network, and somebody connects it again.
func TestStartsThatFailLeaveNothing(t *testing.T) {
	for _, family := range families {
		for _, f := range []flaw{joinUnheard, linkRefused} {
			t.Run(fmt.Sprint(family, " ", f), func(t *testing.T) {
				e := engines(t, &clustertest.Cluster{}, 1)[0]
				e.family = family
				net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
				e.must(err)
				neighbour, err := e.run(net)
				e.must(err)
				before := e.held()
				for range 3 {
					e.flaw = f
					if _, err := e.run(net, "10.1.0.77", "fd01::77"); err == nil {
						t.Error("the start did not fail")
					} else {
						t.Log(err)
					}
					eventually(t, "nothing is left of the start", func() string { return differs(before, e.held()) })
					e.flaw = ""
					c, err := e.run(net, "10.1.0.77", "fd01::77")
					e.must(err)
					e.stop(c)
				}
				e.stop(neighbour)
				e.remove(net)
				eventually(t, "nothing is left", e.left)
			})
		}
	}
}

// TestEngineRestarts: an engine that starts asks the pools for all that it knows again. Over a live restore its containers
// run on; else it takes them for dead, and removes them. No engine tells which of the two it is.
func TestEngineRestarts(t *testing.T) {
	for _, family := range families {
		for _, live := range []bool{true, false} {
			t.Run(fmt.Sprint(family, " live ", live), func(t *testing.T) {
				e := engines(t, &clustertest.Cluster{}, 1)[0]
				e.family = family
				net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
				e.must(err)
				empty := e.held()
				var all []*container
				for range 3 {
					c, err := e.run(net)
					e.must(err)
					all = append(all, c)
				}
				before := e.held()
				if !live {
					e.restart() // the engine ends the plugin with itself
				}
				e.replay(net, all, live)
				if diff := differs(before, e.held()); diff != "" {
					t.Errorf("the replay has changed something:\n%s", diff)
				}
				taken := all[0].addresses
				if c, err := e.run(net, bareAddress(taken[0]), bareAddress(taken[1])); err == nil {
					t.Errorf("%v were given twice", c.addresses)
				}
				more, err := e.run(net)
				e.must(err)
				for _, c := range all {
					if c.addresses[0] == more.addresses[0] || c.addresses[1] == more.addresses[1] {
						t.Errorf("%v was given again: %v", c.addresses, more.addresses)
					}
				}
				for _, c := range append(all, more) {
					e.stop(c)
				}
				eventually(t, "the network is empty", func() string { return differs(empty, e.held()) })
				e.remove(net)
				eventually(t, "nothing is left", e.left)
			})
		}
	}
}

// replay is the start of an engine, with what is running then.
func (e *engine) replay(n *dockerNet, running []*container, live bool) {
	e.Helper()
	must := func(method string, body object) object {
		e.Helper()
		got, err := e.call(method, body)
		e.must(err)
		return got
	}
	must("NetworkDriver.GetCapabilities", nil)
	if must("IpamDriver.GetCapabilities", nil)["RequiresRequestReplay"] != true {
		e.Fatal("the engine would not replay anything")
	}
	for i, p := range n.pools {
		must("IpamDriver.GetDefaultAddressSpaces", nil)
		got := must("IpamDriver.RequestPool", object{
			"AddressSpace": localSpace, "Pool": p.prefix, "SubPool": "", "Options": n.ipamOptions, "V6": strings.Contains(p.prefix, ":"),
		})
		if got["PoolID"] != p.id || got["Pool"] != p.prefix {
			e.Errorf("pool %s is %v now", p.id, got)
		}
		ask := func(address string, options object) {
			e.Helper()
			got := must("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": bareAddress(address), "Options": options})
			if got["Address"] != address {
				e.Errorf("%s is %v now", address, got)
			}
		}
		ask(p.gateway, object{"RequestAddressType": "com.docker.network.gateway"})
		for _, c := range running {
			ask(c.addresses[i], nil)
		}
	}
	if !live {
		return
	}
	for _, c := range running {
		must("NetworkDriver.EndpointOperInfo", object{"NetworkID": n.id, "EndpointID": c.id})
	}
}

// TestNamesOfEngine29 reach the leases.
func TestNamesOfEngine29(t *testing.T) {
	e := engines(t, &clustertest.Cluster{}, 3)[2]
	net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
	e.must(err)
	c, err := e.run(net)
	e.must(err)
	named := 0
	for _, value := range e.host.leases.Prefix("") {
		if strings.Contains(string(value), "name-of-"+c.id[:6]) {
			named++
		}
	}
	if named != len(net.pools) {
		t.Errorf("%d leases have the container's name, want %d", named, len(net.pools))
	}
}

// held is what a host has of ours, but for the blocks of addresses: those stay claimed until the network is removed.
func (e *engine) held() string {
	held := e.kernel.String()
	for key := range e.host.state.Prefix("") {
		held += "state: " + key + "\n"
	}
	for key := range e.host.leases.Prefix("lease/") {
		held += "leases: " + key + "\n"
	}
	return held
}

// differs is empty if two states are the same.
func differs(before, after string) string {
	if before == after {
		return ""
	}
	return "before:\n" + before + "after:\n" + after
}
