package bridge_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/bridge"
	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
	"github.com/carricknet/carrick/store"
)

// foreign is the address management of another driver.
type foreign struct{}

func (foreign) Describe(string, []netip.Prefix) (string, []cluster.Subnet, bool) {
	return "", nil, false
}
func (foreign) Bind(context.Context, string, string, []cluster.Subnet) error { return nil }
func (foreign) Unbind(context.Context, string) error                         { return nil }
func (foreign) Use(context.Context, string, string, []netip.Addr) error      { return nil }
func (foreign) Unuse(context.Context, string) error                          { return nil }
func (foreign) Reown(context.Context, string) error                          { return nil }

// Thirty containers that end at once do not wait for one another, and each answer means that the endpoint is gone. What it takes
// is printed.
func TestEndpointsDeletedAtOnce(t *testing.T) {
	ns, dir := kerneltest.NewNetNS(t), t.TempDir()
	var k *kernel.Kernel
	if err := ns.Do(func() (err error) { k, err = kernel.New(kernel.Config{Dir: filepath.Join(dir, "pin")}); return err }); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	records, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	d := driver.New(driver.Config{Modes: map[string]driver.Mode{"bridge": {Open: bridge.Open}}, Default: "bridge",
		Kernel: k, Pools: foreign{}, Leases: foreign{}, Store: records})
	ctx, network := t.Context(), "0123456789abcdef"
	pools := []driver.PoolData{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}
	if err := d.CreateNetwork(ctx, driver.NetworkRequest{ID: network, IPv4: true, Pools: pools}); err != nil {
		t.Fatal(err)
	}
	const n = 30
	endpoint := func(i int) string { return fmt.Sprintf("%012x", i+1) }
	for i := range n {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + i)}), 24)
		if _, err := d.CreateEndpoint(ctx, driver.EndpointRequest{Network: network, ID: endpoint(i), Addrs: []netip.Prefix{addr}}); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := d.DeleteEndpoint(ctx, network, endpoint(i)); err != nil {
				t.Error(err)
			}
			name := kernel.Name(kernel.KindContainerEnd, endpoint(i))
			if out, err := ns.Try("ip link show %s", name); err == nil {
				t.Errorf("answered, and not gone: %s", out)
			}
		})
	}
	wg.Wait()
	t.Logf("%d endpoints at once: %v", n, time.Since(start).Round(time.Millisecond))
	if err := d.DeleteNetwork(ctx, network); err != nil {
		t.Fatal(err)
	}
	if owners, err := k.Owners(ctx); err != nil || len(owners) != 0 {
		t.Errorf("left: %v, %v", owners, err)
	}
}
