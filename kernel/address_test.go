package kernel_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

func TestAddressesOfTheHost(t *testing.T) {
	h := newHost(t)
	other := kerneltest.NewNetNS(t)
	expect := func(spec, want string) {
		t.Helper()
		got, err := h.Address(spec)
		if text := fmt.Sprint(got, err); !strings.HasPrefix(text, want) {
			t.Errorf("Address(%q): %s, want %s", spec, text, want)
		}
	}
	expect("", "invalid IP no default route tells which address to use: name one of no address that others can reach")
	kerneltest.Join(t, h.NetNS, other, "u0", []string{"2001:db8::1/64"}, []string{"2001:db8::2/64"})
	kerneltest.Join(t, h.NetNS, other, "u1", []string{"198.51.100.1/24", "198.51.100.5/32", "2001:db8:1::1/64"}, nil)
	kerneltest.Join(t, h.NetNS, other, "u2", nil, nil)
	expect("", "invalid IP no default route tells which address to use: name one of 198.51.100.1, 198.51.100.5, 2001:db8")
	h.Run(t, "ip -6 route add default via 2001:db8::2 dev u0")
	expect("", "2001:db8::1 <nil>")
	h.Run(t, "ip route add default via 198.51.100.2 dev u1 metric 10")
	expect("", "198.51.100.1 <nil>")
	h.Run(t, "ip route add default via 198.51.100.2 dev u1 src 198.51.100.5 metric 5")
	expect("", "198.51.100.5 <nil>")
	expect("u0", "2001:db8::1 <nil>")
	expect("u1", "198.51.100.1 <nil>")
	expect("2001:db8:1::1", "2001:db8:1::1 <nil>")
	expect("198.51.100.9", "invalid IP address 198.51.100.9: is not of this host, which has 198.51.100.1, ")
	expect("127.0.0.1", "invalid IP address 127.0.0.1: is not of this host, which has 198.51.100.1, ")
	expect("u2", "invalid IP interface u2: has no global address; this host has 198.51.100.1, ")
	expect("u9", "invalid IP \"u9\": is neither an address of this host (198.51.100.1, ")
	_, err := h.Address("u9")
	wantLines(t, err.Error(), "nor an interface (", "u0", "u1", "u2")

	h.Run(t, "ip link set u1 mtu 1400")
	link, mtu, err := h.Underlay(addr("198.51.100.1"))
	if link != "u1" || mtu != 1400 || err != nil {
		t.Errorf("Underlay: %s, %d, %v", link, mtu, err)
	}
	if _, _, err = h.Underlay(addr("198.51.100.2")); err == nil || !strings.HasPrefix(err.Error(), "address 198.51.100.2: is not of this host, which has 198.51.100.1") {
		t.Errorf("Underlay: %v", err)
	}

	h.Run(t, "ip route add 10.1.0.0/16 via 198.51.100.2")
	h.Run(t, "ip route add 10.2.0.0/16 via 198.51.100.2 table 52")
	h.Run(t, "ip route add 0.0.0.0/1 via 198.51.100.2")
	h.Run(t, "ip route add blackhole 10.3.0.0/16")
	used, err := h.InUse()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, p := range used {
		if p.Addr().Is4() && !p.Addr().IsLoopback() && !strings.HasSuffix(p.String(), "/32") {
			text = append(text, p.String())
		}
	}
	if got := strings.Join(text, " "); got != "10.1.0.0/16 10.2.0.0/16 10.3.0.0/16 198.51.100.0/24" {
		t.Errorf("in use: %s", got)
	}
	wantLines(t, fmt.Sprint(used), "2001:db8::/64", "2001:db8:1::/64", "127.0.0.0/8", "198.51.100.5/32")
	h.set(t, "a", kernel.State{})
}
