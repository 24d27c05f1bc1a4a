//go:build crash

package crash

// sequence is what an engine and its users do. Each ends without networks.
type sequence struct {
	name    string
	family  int
	cluster bool
	play    func(e *engine)
}

// dual is a network with both families.
var dual = dockerNet{subnets: []subnet{{prefix: "10.1.0.0/24"}, {prefix: "fd01::/64"}}}

var sequences = []sequence{
	{name: "first start", family: 28, play: func(e *engine) {
		e.unit("first start", e.boot)
		e.unit("create", func() error { return e.create("one", dual) })
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "container", family: 28, play: func(e *engine) {
		e.unit("create", func() error { return e.create("one", dual) })
		e.unit("run", func() error { return e.run("a", "one") })
		e.unit("stop", func() error { return e.stop("a") })
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "chosen by the user", family: 29, play: func(e *engine) {
		e.unit("create", func() error {
			return e.create("one", dockerNet{internal: true, subnets: []subnet{
				{prefix: "10.2.0.0/16", within: "10.2.9.0/24", gateway: "10.2.0.77", aux: []string{"10.2.0.5", "10.2.9.5"}},
				{prefix: "fd02::/64", gateway: "fd02::77", aux: []string{"fd02::5"}},
			}})
		})
		e.unit("run b", func() error { return e.run("b", "one") })
		e.unit("run a", func() error { return e.run("a", "one", "10.2.9.9", "fd02::9") })
		e.unit("stop a", func() error { return e.stop("a") })
		e.unit("start a", func() error { return e.run("a", "one", "10.2.9.9", "fd02::9") })
		e.unit("stop both", func() error { _ = e.stop("b"); return e.stop("a") })
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "chosen by the plugin", family: 20, play: func(e *engine) {
		e.unit("create", func() error {
			return e.create("one", dockerNet{subnets: []subnet{{prefix: anySubnet4}, {prefix: anySubnet6}}})
		})
		e.unit("run", func() error { return e.run("a", "one") })
		e.unit("rm", func() error { _ = e.stop("a"); return e.remove("one") })
	}},
	{name: "mode none", family: 28, play: func(e *engine) {
		e.unit("create", func() error {
			return e.create("one", dockerNet{options: object{"mode": "none"}, subnets: []subnet{{prefix: "10.3.0.0/24"}, {prefix: "fd03::/64"}}})
		})
		e.unit("run", func() error { return e.run("a", "one") })
		e.unit("stop", func() error { return e.stop("a") })
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "starts", family: 28, play: func(e *engine) {
		e.unit("create", func() error { return e.create("one", dual) })
		e.unit("create another", func() error {
			return e.create("two", dockerNet{subnets: []subnet{{prefix: "10.2.0.0/24", aux: []string{"10.2.0.5"}}}})
		})
		e.unit("run b", func() error { return e.run("b", "two") })
		e.unit("run a", func() error { return e.run("a", "one") })
		e.unit("start of the plugin", e.restart)
		e.unit("live restore", func() error { return e.replay(true) })
		e.unit("engine killed", func() error { return e.replay(false) })
		e.unit("run again", func() error { return e.run("a", "one") })
		e.unit("stop", func() error { return e.stop("a") })
		e.unit("rm", func() error { _ = e.remove("two"); return e.remove("one") })
	}},
	{name: "overlay", family: 28, cluster: true, play: func(e *engine) {
		e.unit("create", func() error { return e.create("one", dual) })
		e.unit("run", func() error { return e.run("a", "one") })
		e.unit("run another", func() error { return e.run("b", "one", "10.1.0.99") })
		e.unit("start of the plugin", e.restart)
		e.unit("engine killed", func() error { return e.replay(false) })
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "named overlay", family: 20, cluster: true, play: func(e *engine) {
		e.unit("create", func() error {
			return e.create("one", dockerNet{ipam: object{"network": "blue"}, subnets: []subnet{{prefix: anySubnet4}}})
		})
		e.unit("rm", func() error { return e.remove("one") })
	}},
	{name: "bridge in a cluster", family: 29, cluster: true, play: func(e *engine) {
		e.unit("create", func() error {
			return e.create("one", dockerNet{internal: true, options: object{"mode": "bridge"}, subnets: []subnet{{prefix: anySubnet4}}})
		})
		e.unit("run", func() error { return e.run("a", "one") })
		e.unit("rm", func() error { _ = e.stop("a"); return e.remove("one") })
	}},
}
