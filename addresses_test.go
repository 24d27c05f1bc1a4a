package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carricknet/carrick/cli"
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

// TestTheCommandLineShowsAddresses as the plugin tells of them, over its socket.
func TestTheCommandLineShowsAddresses(t *testing.T) {
	all := engines(t, &clustertest.Cluster{}, 2)
	var made []*container
	for _, e := range all {
		n, err := e.create(nil, "10.1.0.0/24", "fd01::/64")
		e.must(err)
		c, err := e.run(n)
		e.must(err)
		made = append(made, c)
	}
	dir := filepath.Join(all[0].dir, "s")
	all[0].must(os.Mkdir(dir, 0o700))
	all[0].must(os.Link(all[0].socket, filepath.Join(dir, "carrick.sock")))
	here, there := bareAddress(made[0].addresses[0]), bareAddress(made[1].addresses[1])
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"pools", 0, []string{"10.1.0.0/24", "fd01::/64", "overlay", "~2^62", "~2^48"}},
		{"pools --json 10.1.0.0/24", 0, []string{`"usable": 253`, `"used": 1`, `"told": 1`}},
		{"blocks fd01::/64", 0, []string{"host0", "this node", "host1", "alive"}},
		{"leases", 0, []string{here + " ", "in use", "10.1.0.1 ", "gateway", made[0].id[:12]}},
		{"who " + here, 0, []string{"holder   endpoint " + made[0].id[:12] + " on this host, MAC 02:42:"}},
		{"who " + there, 0, []string{"of host1, alive", "holder   endpoint " + made[1].id[:12] + " on host1, MAC 02:42:"}},
		{"who 192.0.2.7", 1, []string{"address 192.0.2.7 is outside every pool; there are 10.1.0.0/24 ("}},
		{"who host1", 1, []string{`"host1" is not an IPv4 or IPv6 address`}},
		{"blocks green", 1, []string{`no pool has the subnet "green"`}},
	} {
		var out bytes.Buffer
		code := cli.Run(t.Context(), strings.Fields("ipam "+tt.args), cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, SocketDir: dir})
		for _, want := range tt.want {
			if code != tt.code || !strings.Contains(out.String(), want) {
				t.Errorf("ipam %s: exit code %d, want %d and %q in\n%s", tt.args, code, tt.code, want, out.String())
			}
		}
		t.Logf("ipam %s:\n%s", tt.args, out.String())
	}
}
