package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"github.com/carricknet/carrick/overlay"
	"github.com/carricknet/carrick/plugin"
)

// engine plays the Docker engine of one host towards the plugin, over its socket: everything below it is real but the
// kernel and the cluster.
type engine struct {
	*testing.T
	n       int // of the host
	family  int // one of families
	flaw    flaw
	dir     string
	sockets string // where its sockets are; "": dir
	node    member
	kernel  *brittle
	real    machine // instead of kernel, if there is one
	host    *host
	socket  string
	kill    func()
	calls   int // for identifiers

	listening func() // called by start when the socket is there, and before anything else is; nil: not wanted
}

// brittle is a kernel under which the plugin's process is killed at the nth change: that one and all after it fail, and
// so does the disk.
type brittle struct {
	kerneltest.Fake
	at    atomic.Int64 // counted down; 0: never
	crash func()
}

var errKilled = errors.New("killed")

func (b *brittle) Set(ctx context.Context, owner string, want kernel.State) error {
	if b.dies() {
		return errKilled
	}
	return b.Fake.Set(ctx, owner, want)
}

func (b *brittle) Remove(ctx context.Context, owners ...string) error {
	if len(owners) != 0 && b.dies() {
		return errKilled
	}
	return b.Fake.Remove(ctx, owners...)
}

// dies says whether a change is not done any more, since the process is killed at it or was before.
func (b *brittle) dies() bool {
	n := b.at.Load()
	if n > 0 && b.at.Add(-1) == 0 {
		b.at.Store(-1)
		b.crash()
		return true
	}
	return n < 0
}

func (*brittle) InUse() ([]netip.Prefix, error) { return nil, nil }

// watched gives every watcher a channel of its own, as the cluster does; it wakes now and then without a reason.
type watched struct{ *clustertest.Node }

func (watched) Watch() (<-chan struct{}, func()) {
	wake, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}()
	return wake, func() { close(done) }
}

func engines(t *testing.T, c *clustertest.Cluster, count int) []*engine {
	t.Helper()
	var all []*engine
	for n := range count {
		e := &engine{T: t, n: n, family: families[n%len(families)], dir: t.TempDir(), node: watched{c.Node(fmt.Sprint("host", n))}, kernel: &brittle{}}
		e.start()
		all = append(all, e)
	}
	return all
}

// start is a new process of the plugin: the socket is there first, as in serve.
func (e *engine) start() {
	e.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	e.kernel.at.Store(0)
	h := &host{log: log, dir: e.dir, config: Config{Secret: "a cluster there is", Pools: []netip.Prefix{netip.MustParsePrefix("10.192.0.0/10")}}}
	server := plugin.New(plugin.Config{LocalSpace: localSpace, GlobalSpace: globalSpace, RequestReplay: true, RequestMAC: true})
	e.calls++
	e.socket = filepath.Join(cmp.Or(e.sockets, e.dir), fmt.Sprint(e.calls, ".sock"))
	l, err := net.Listen("unix", e.socket)
	e.must(err)
	serving, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- server.Serve(serving, l) }()
	if e.listening != nil {
		e.listening()
	}
	e.must(h.openStores())
	e.kernel.crash = func() { e.must(errors.Join(h.state.Close(), h.leases.Close(), h.raft.Close())) }
	underlay := func() (overlay.Underlay, error) {
		return overlay.Underlay{VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(e.n + 1)}), Link: "eth0", MTU: 1500, Port: 4789}, nil
	}
	var m machine = e.kernel
	if e.real != nil {
		m = e.real
	}
	e.must(h.build(m, underlay, e.node))
	e.must(h.driver.Restore(e.Context()))
	server.Ready(h.backend())
	go func() { ended <- h.run(serving) }()
	e.host = h
	e.kill = func() {
		stop()
		e.must(errors.Join(<-ended, <-ended))
		if e.kernel.at.Load() >= 0 { // else they are closed
			e.kernel.crash()
		}
		h.unwatch()
	}
	e.Cleanup(func() { e.kill(); e.kill = func() {} })
}

func (e *engine) restart() {
	e.kill()
	e.start()
}

func (e *engine) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("host%d: %v", e.n, err)
	}
}

type object map[string]any

// call is one call as engines send it: with nothing in it, if there is no body.
func (e *engine) call(method string, body object) (object, error) {
	e.Helper()
	var raw []byte
	var err error
	if body != nil {
		raw, err = json.Marshal(body)
	}
	e.must(err)
	conn, err := net.Dial("unix", e.socket)
	e.must(err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", method, len(raw), raw)
	e.must(err)
	all, err := io.ReadAll(conn)
	e.must(err)
	head, text, _ := strings.Cut(string(all), "\r\n\r\n")
	var answer object
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		e.Fatalf("host%d: %s: %s", e.n, method, all)
	}
	if !strings.HasPrefix(head, "HTTP/1.1 200 ") {
		return nil, fmt.Errorf("%s: %v", method, answer["Err"])
	}
	return answer, nil
}

// teardown is a call whose failure the engine only logs.
func (e *engine) teardown(method string, body object) {
	_, _ = e.call(method, body)
}

func (e *engine) id() string {
	e.calls++
	return fmt.Sprintf("%06x%058x", e.n<<16|e.calls, 0)
}

// pool is one subnet of a network as the engine has it.
type pool struct{ id, prefix, gateway string }

type dockerNet struct {
	id          string
	ipamOptions object
	pools       []pool
}

// create is `docker network create`, with what the engine takes back when a call fails.
func (e *engine) create(ipamOptions object, subnets ...string) (*dockerNet, error) {
	n := &dockerNet{id: e.id(), ipamOptions: ipamOptions}
	data := map[bool][]object{}
	options := object{
		"com.docker.network.enable_ipv6": strings.Contains(strings.Join(subnets, " "), ":"), "com.docker.network.generic": object{},
	}
	if e.family >= 28 {
		if skip, err := e.call("NetworkDriver.GwAllocCheck", object{"Options": options}); err != nil || skip["SkipIPv4"] == true {
			return nil, fmt.Errorf("an overlay network wants a gateway's address: %v, %w", skip, err)
		}
	}
	for _, s := range subnets {
		v6 := strings.Contains(s, ":")
		got, err := e.call("IpamDriver.RequestPool", object{"AddressSpace": localSpace, "Pool": s, "SubPool": "", "Options": ipamOptions, "V6": v6})
		if err != nil {
			e.release(n)
			return nil, err
		}
		p := pool{id: got["PoolID"].(string), prefix: got["Pool"].(string)}
		n.pools = append(n.pools, p)
		got, err = e.call("IpamDriver.RequestAddress", object{"PoolID": p.id, "Address": "", "Options": object{"RequestAddressType": "com.docker.network.gateway"}})
		if err != nil {
			e.release(n)
			return nil, err
		}
		n.pools[len(n.pools)-1].gateway = got["Address"].(string)
		data[v6] = append(data[v6], object{"AddressSpace": localSpace, "Pool": p.prefix, "Gateway": got["Address"]})
	}
	_, err := e.call("NetworkDriver.CreateNetwork", object{
		"NetworkID": n.id, "IPv4Data": data[false], "IPv6Data": data[true], "Options": options,
	})
	if err != nil {
		e.release(n)
		return nil, err
	}
	return n, nil
}

// release is the engine's way back, and the first half of `docker network rm`.
func (e *engine) release(n *dockerNet) {
	for _, p := range n.pools {
		if p.gateway != "" {
			e.teardown("IpamDriver.ReleaseAddress", object{"PoolID": p.id, "Address": bareAddress(p.gateway)})
		}
		e.teardown("IpamDriver.ReleasePool", object{"PoolID": p.id})
	}
}

func (e *engine) remove(n *dockerNet) {
	e.release(n)
	e.teardown("NetworkDriver.DeleteNetwork", object{"NetworkID": n.id})
}

func bareAddress(s string) string { return netip.MustParsePrefix(s).Addr().String() }
