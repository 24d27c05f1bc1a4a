package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/cluster/clustertest"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// realKernel is that of a host which has just booted.
func realKernel(t *testing.T) (*kernel.Kernel, func(path string) *kerneltest.NetNS) {
	t.Helper()
	ns, dir := kerneltest.NewNetNS(t), filepath.Join(t.TempDir(), "carrick")
	var k *kernel.Kernel
	if err := ns.Do(func() (err error) { k, err = kernel.New(kernel.Config{Dir: dir}); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k, func(path string) *kerneltest.NetNS { return kerneltest.OpenNetNS(t, filepath.Join(dir, path)) }
}

// crowdOf publishes endpoints of a network on a node, each with an address of a block of that node's.
func crowdOf(t *testing.T, n *clustertest.Node, shared string, subnet cluster.Subnet, number, from int) {
	t.Helper()
	have, _ := n.View().Network(shared)
	if _, err := cluster.JoinNetwork(t.Context(), n, have, cluster.Defaults{}); err != nil {
		t.Fatal(err)
	}
	for done := 0; done < number; {
		block, err := cluster.ClaimBlock(t.Context(), n, shared, subnet)
		if err != nil {
			t.Fatal(err)
		}
		for a := block.Prefix.Addr(); block.Prefix.Contains(a) && done < number; a = a.Next() {
			if !subnet.Usable(a) {
				continue
			}
			i := from + done
			// The record between hosts, version 1: MAC, one address with the length of its prefix.
			record := append([]byte{1, 2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i), 1, byte(subnet.Prefix.Bits()), 4}, a.AsSlice()...)
			n.Publish(shared, fmt.Sprintf("%064x", i), record)
			done++
		}
	}
}

// A plugin starts on a host whose network has ten thousand endpoints elsewhere: after a boot all of them are written, after an end of
// the plugin alone they are compared. How long it takes, from the records to the kernel, is printed; all of them are there.
func TestStartWithTenThousandRemoteEndpoints(t *testing.T) {
	const nodes, each = 50, 200
	c := &clustertest.Cluster{}
	e := &engine{T: t, family: families[0], dir: t.TempDir(), node: watched{c.Node("here")}, kernel: &brittle{}}
	e.start()
	net, err := e.create(nil, "10.64.0.0/16")
	e.must(err)
	_, err = e.run(net)
	e.must(err)
	facts := e.host.driver.Networks()[0]
	for i := range nodes {
		n := c.Node(fmt.Sprint("other", i))
		crowdOf(t, n, facts.Shared, cluster.Subnet{Prefix: netip.MustParsePrefix("10.64.0.0/16")}, each, i*each)
	}
	e.kill()
	k, open := realKernel(t)
	e.real = k
	for _, when := range []string{"after a boot", "after an end of the plugin"} {
		start := time.Now()
		e.start()
		took := time.Since(start)
		eventually(t, when, func() string {
			got := strings.Count(open("shared").Run(t, "bridge fdb show"), " self static")
			if got == nodes*each {
				return ""
			}
			return fmt.Sprintf("%d entries, want %d", got, nodes*each)
		})
		t.Logf("%s: ready after %v", when, took.Round(time.Millisecond))
		e.kill()
	}
	e.kill = func() {}
	e.must(k.Remove(t.Context(), "network/"+facts.ID))
}
