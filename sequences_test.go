package main

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
)

// families are the first numbers of the engines' versions that call differently: 28 asks whether a network needs a gateway,
// and 29 gives names to the IPAM driver, takes back in another order and forgets over a live restore what it had programmed.
var families = []int{20, 28, 29}

// A flaw is why a container does not start although the plugin has agreed.
type flaw string

const (
	// The plugin was killed in Join, and the engine's second attempt has no body (moby, pkg/plugins/client.go).
	joinUnheard flaw = "Join without a body"
	// As when the sandbox has such a route already, or a published port is taken.
	linkRefused flaw = "the link is not configured"
)

// container is one that runs, on one network.
type container struct {
	net       *dockerNet
	id        string
	addresses []string // one of each pool
}

// run is `docker run`: what engines do, and take back when a call fails. wish is what `--ip` and `--ip6` say.
func (e *engine) run(n *dockerNet, wish ...string) (*container, error) {
	c := &container{net: n, id: e.id()}
	mac := fmt.Sprintf("02:42:00:%02x:%02x:%02x", e.n, e.calls>>8, e.calls&0xff)
	body := object{"Address": "", "AddressIPv6": "", "MacAddress": mac}
	options := object{"com.docker.network.endpoint.macaddress": mac}
	if e.family >= 29 {
		options["com.docker.network.endpoint.name"] = "name-of-" + c.id[:6]
	}
	for i, p := range n.pools {
		address := ""
		if len(wish) > i {
			address = wish[i]
		}
		got, err := e.call("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": address, "Options": options})
		if err != nil {
			e.releaseAll(c)
			return nil, err
		}
		c.addresses = append(c.addresses, got["Address"].(string))
		field := "Address"
		if strings.Contains(p.prefix, ":") {
			field = "AddressIPv6"
		}
		body[field] = got["Address"]
	}
	_, err := e.call("NetworkDriver.CreateEndpoint", object{"NetworkID": n.id, "EndpointID": c.id, "Interface": body, "Options": object{}})
	if err != nil {
		e.releaseAll(c)
		return nil, err
	}
	if err := e.join(c); err != nil {
		return nil, err
	}
	return c, nil
}

// join is the part of a start that engines take back each in its way.
func (e *engine) join(c *container) error {
	ref := object{"NetworkID": c.net.id, "EndpointID": c.id, "SandboxKey": "/var/run/docker/netns/1"}
	if e.flaw == joinUnheard {
		ref = nil
	}
	join, err := e.call("NetworkDriver.Join", ref)
	if err == nil && join["InterfaceName"].(map[string]any)["SrcName"] != kernel.Name("ckc", c.id) {
		err = fmt.Errorf("Join said %v", join)
	}
	leaves := 0
	switch {
	case err == nil && e.flaw == linkRefused:
		err = errors.New(string(linkRefused))
		leaves = 1
	case err == nil:
		e.kernel.Take("endpoint/" + c.id)
		return nil
	}
	if e.family >= 29 {
		leaves++
	}
	for range leaves {
		e.teardown("NetworkDriver.Leave", object{"NetworkID": c.net.id, "EndpointID": c.id})
	}
	e.delete(c)
	return err
}

func (e *engine) releaseAll(c *container) {
	for i, a := range c.addresses {
		e.teardown("IpamDriver.ReleaseAddress", object{"PoolID": c.net.pools[i].id, "Address": bareAddress(a)})
	}
}

// stop is what follows the end of a container.
func (e *engine) stop(c *container) {
	ref := object{"NetworkID": c.net.id, "EndpointID": c.id}
	e.teardown("NetworkDriver.Leave", ref)
	e.kernel.GiveBack("endpoint/" + c.id)
	e.delete(c)
}

func (e *engine) delete(c *container) {
	e.teardown("NetworkDriver.DeleteEndpoint", object{"NetworkID": c.net.id, "EndpointID": c.id})
	e.releaseAll(c)
}

// left is what there is of ours.
func (e *engine) left() string {
	left := e.kernel.String()
	for key := range e.host.state.Prefix("") {
		left += "state: " + key + "\n"
	}
	for key := range e.host.leases.Prefix("") {
		left += "leases: " + key + "\n"
	}
	for f := range e.node.View().Prefix("") {
		left += "facts: " + f.Key + "\n"
	}
	return left
}

func eventually(t *testing.T, what string, wrong func() string) {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for wrong() != "" {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: not within a minute:\n%s", what, wrong())
		}
		<-tick.C
	}
}

// missing are entries for containers of other hosts that a host lacks.
func (e *engine) missing(net *dockerNet, others map[*engine][]*container) string {
	state := e.kernel.String()
	var all []string
	for o, containers := range others {
		for _, c := range containers {
			for _, a := range c.addresses {
				entry := fmt.Sprintf("neigh replace %s lladdr", bareAddress(a))
				if o != e && !strings.Contains(state, entry) {
					all = append(all, entry)
				}
			}
		}
	}
	return strings.Join(all, "\n")
}

func TestThreeHostsOneNetwork(t *testing.T) {
	for name, subnets := range map[string][]string{"given": {"10.1.0.0/24", "fd01::/64"}, "named": {""}} {
		t.Run(name, func(t *testing.T) {
			all := engines(t, &clustertest.Cluster{}, 3)
			var options object
			if name == "named" {
				options = object{"network": "blue"}
			}
			nets, running := map[*engine]*dockerNet{}, map[*engine][]*container{}
			owner := map[string]*engine{}
			start := func(e *engine) {
				c, err := e.run(nets[e])
				e.must(err)
				running[e] = append(running[e], c)
				for _, a := range c.addresses {
					if owner[a] != nil {
						t.Errorf("host%d and host%d both gave %s", owner[a].n, e.n, a)
					}
					owner[a] = e
				}
			}
			for _, e := range all {
				var err error
				nets[e], err = e.create(options, subnets...)
				e.must(err)
				if got, want := nets[e].pools[0], nets[all[0]].pools[0]; got.prefix != want.prefix || got.gateway != want.gateway {
					t.Errorf("host%d has %v, host0 %v", e.n, got, want)
				}
			}
			for range 3 {
				for _, e := range all {
					start(e)
				}
			}
			complete := func(when string) {
				t.Helper()
				for _, e := range all {
					eventually(t, when, func() string { return e.missing(nets[e], running) })
				}
			}
			complete("all containers are known everywhere")
			before := all[1].kernel.String()
			all[1].restart()
			if after := all[1].kernel.String(); after != before {
				t.Errorf("before the restart of a plugin:\n%s\nafter it:\n%s", before, after)
			}
			start(all[1])
			complete("the container of a restarted plugin is known everywhere")
			for _, e := range all {
				for _, c := range running[e] {
					e.stop(c)
				}
				e.remove(nets[e])
			}
			for _, e := range all {
				eventually(t, "nothing is left", e.left)
			}
		})
	}
}

// life is a network and a container, and what the engine does when a call fails.
func (e *engine) life() error {
	net, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
	if err != nil {
		return err
	}
	c, err := e.run(net)
	if err == nil {
		e.stop(c)
	}
	if e.kernel.at.Load() < 0 {
		e.restart()
	}
	e.remove(net)
	return err
}

// TestFailureAtEveryStep lets each change of the kernel fail in turn, as a fault and as the plugin's death, and each write
// to the cluster. The engine goes its way back; then the same works, and in the end nothing is left.
func TestFailureAtEveryStep(t *testing.T) {
	for how, steps := range map[string]int{"fault": 6, "death": 6, "no quorum": 5} {
		for n := 1; n <= steps; n++ {
			t.Run(fmt.Sprint(how, n), func(t *testing.T) {
				t.Parallel()
				c := &clustertest.Cluster{}
				e := engines(t, c, 1)[0]
				e.family = families[n%len(families)]
				var failed atomic.Bool
				switch how {
				case "fault":
					e.kernel.FailNth(n, errors.New("planned failure"))
				case "death":
					e.kernel.at.Store(int64(n))
				default:
					asked := 0
					c.Fail(func(string, cluster.Txn) error {
						if asked++; asked != n {
							return nil
						}
						failed.Store(true)
						return cluster.ErrNoQuorum
					})
				}
				t.Logf("the engine was told: %v", e.life())
				switch {
				case how == "death":
					failed.Store(e.kernel.at.Load() <= 0)
					e.restart()
				case how == "fault":
					failed.Store(e.kernel.Calls() >= n)
				}
				if !failed.Load() {
					t.Error("nothing has failed")
				}
				eventually(t, "nothing is left", e.left)
				e.must(e.life())
				eventually(t, "nothing is left of a life without faults", e.left)
			})
		}
	}
}
