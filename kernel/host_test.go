package kernel_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// A host is a namespace with a Kernel in it.
type host struct {
	*kernel.Kernel
	*kerneltest.NetNS
	dir string
}

// Run is a command in the host's namespace, not what keeps a Kernel's state.
func (h *host) Run(t testing.TB, format string, args ...any) string {
	t.Helper()
	return h.NetNS.Run(t, format, args...)
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{NetNS: kerneltest.NewNetNS(t), dir: filepath.Join(t.TempDir(), "carrick")}
	h.start(t)
	t.Cleanup(func() {
		owners, err := h.Owners(t.Context())
		if err == nil { // a test that closed its Kernel has cleared up
			t.Errorf("owners with a context that has ended: %v", owners)
		}
		again := h.newKernel(t)
		defer again.Close()
		owners, err = again.Owners(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, o := range owners {
			if err := again.Set(context.Background(), o.Owner, kernel.State{}); err != nil {
				t.Errorf("clearing up %s: %v", o.Owner, err)
			}
		}
		if _, err := os.Stat(h.dir); err == nil {
			t.Errorf("%s: is still there when nobody owns anything", h.dir)
		}
		h.Close()
	})
	return h
}

// start makes a Kernel in the host's namespace, as a process that is started again does.
func (h *host) start(t testing.TB) {
	t.Helper()
	if h.Kernel != nil {
		h.Close()
	}
	h.Kernel = h.newKernel(t)
}

func (h *host) newKernel(t testing.TB) *kernel.Kernel {
	t.Helper()
	var k *kernel.Kernel
	err := h.Do(func() (err error) {
		k, err = kernel.New(kernel.Config{Dir: h.dir})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *host) pin() string { return filepath.Join(h.dir, "shared") }

// shared opens our namespace on the host.
func (h *host) shared(t testing.TB) *kerneltest.NetNS {
	t.Helper()
	return kerneltest.OpenNetNS(t, h.pin())
}

// set sets and then asks again: there must be nothing left to do.
func (h *host) set(t *testing.T, owner string, want kernel.State) {
	t.Helper()
	if err := h.Set(t.Context(), owner, want); err != nil {
		t.Fatal(err)
	}
	again, err := h.Plan(owner, want)
	if err != nil {
		t.Fatal(err)
	}
	if len(again) != 0 {
		t.Fatalf("setting the same again would do:\n%s", strings.Join(again, "\n"))
	}
}

func mac(_ testing.TB, s string) kernel.MAC {
	var m kernel.MAC
	hex := strings.Split(s, ":")
	for i := range m {
		for _, c := range hex[i] {
			m[i] = m[i]<<4 | byte(strings.IndexRune("0123456789abcdef", c))
		}
	}
	return m
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	id1 = "0123456789ab"
	id2 = "ba9876543210"
)

var (
	br  = kernel.Name(kernel.KindBridge, id1)
	vx  = kernel.Name(kernel.KindVXLAN, id1)
	vh  = kernel.Name(kernel.KindHostEnd, id1)
	vc  = kernel.Name(kernel.KindContainerEnd, id1)
	br2 = kernel.Name(kernel.KindBridge, id2)
)

// network is the state of an overlay network that uses everything a State has.
func network(t testing.TB) kernel.State {
	return kernel.State{
		Links: []kernel.Link{
			{Name: br, NS: kernel.Shared, MTU: 1450, MAC: mac(t, "02:00:00:00:00:01"), Up: true, Bridge: &kernel.Bridge{}},
			{Name: vx, NS: kernel.Shared, MTU: 1450, MAC: mac(t, "02:00:00:00:00:02"), Master: br, Up: true,
				NoLearning: true, NeighSuppress: true, Isolated: true,
				VXLAN: &kernel.VXLAN{VNI: 1 << 20, Local: addr("198.51.100.1"), Port: 4789}},
		},
		FDB: []kernel.FDB{
			{NS: kernel.Shared, Dev: vx, MAC: mac(t, "02:00:00:00:01:01"), Dst: addr("198.51.100.2"), Bridge: true},
			{NS: kernel.Shared, Dev: vx, MAC: mac(t, "02:00:00:00:01:02"), Dst: addr("198.51.100.3"), Bridge: true},
			{NS: kernel.Shared, Dev: vx, Dst: addr("198.51.100.2")},
			{NS: kernel.Shared, Dev: vx, Dst: addr("198.51.100.3")},
		},
		Neighs: []kernel.Neigh{
			{NS: kernel.Shared, Dev: br, IP: addr("10.9.0.2"), MAC: mac(t, "02:00:00:00:01:01")},
			{NS: kernel.Shared, Dev: br, IP: addr("fd09::2"), MAC: mac(t, "02:00:00:00:01:01")},
		},
		Sysctls: []kernel.Sysctl{{NS: kernel.Shared, Key: "net/ipv6/conf/" + br + "/accept_ra", Value: "0"}},
		Rules: []kernel.Rule{{Chain: kernel.Prerouting, UDPPort: 4789, VNI: 1 << 20, Verdict: kernel.Drop,
			NotFrom: []netip.Addr{addr("198.51.100.2"), addr("198.51.100.3")}}},
	}
}

// path is where commands find the host's namespace.
func (h *host) path(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.FD())
}

// A sandbox is a namespace that can be ended before the test is.
type sandbox struct {
	*kerneltest.NetNS
	path string
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	ns := kerneltest.NewNetNS(t)
	return &sandbox{NetNS: ns, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD())}
}
