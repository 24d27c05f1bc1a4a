package kernel_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"golang.org/x/sys/unix"
)

// endpoint is the state of a container on network(t): a pair whose container end waits in the host's namespace.
func endpoint(t *testing.T) kernel.State {
	t.Helper()
	return kernel.State{Links: []kernel.Link{{Name: vh, NS: kernel.Shared, MTU: 1450, Master: br, Up: true, NeighSuppress: true,
		Veth: &kernel.Veth{Peer: vc, PeerMAC: mac(t, "02:00:00:00:02:01"), PeerMTU: 1400}}}}
}

func TestSetMakesAndRemovesEverything(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	h.set(t, "network a", network(t))
	h.set(t, "endpoint b", endpoint(t))
	shared := h.shared(t)
	wantLines(t, shared.Run(t, "ip -d link show"),
		br+":", "mtu 1450", "link/ether 02:00:00:00:00:01", "mcast_snooping 0", "alias carrick network a", "addrgenmode none",
		"vxlan id 1048576 local 198.51.100.1", "dstport 4789 nolearning", "udpcsum noudp6zerocsumtx noudp6zerocsumrx",
		"learning off", "neigh_suppress on", "isolated on", "alias carrick endpoint b")
	wantLines(t, shared.Run(t, "bridge fdb show dev %s", vx),
		"02:00:00:00:01:01 dst 198.51.100.2", "02:00:00:00:01:02 dst 198.51.100.3", "00:00:00:00:00:00 dst 198.51.100.2",
		"00:00:00:00:00:00 dst 198.51.100.3", "02:00:00:00:01:01 master "+br+" static")
	wantLines(t, shared.Run(t, "ip neigh show dev %s nud permanent", br), "10.9.0.2 lladdr 02:00:00:00:01:01",
		"fd09::2 lladdr 02:00:00:00:01:01")
	wantLines(t, shared.Run(t, "ip -o addr show scope link"), "") // no link-local address anywhere
	wantLines(t, h.Run(t, "ip link show %s", vc), "mtu 1400", "link/ether 02:00:00:00:02:01", "state DOWN")
	wantLines(t, h.Run(t, "nft list ruleset"), "udp dport 4789 jump prerouting-4789 ",
		"vmap { 268435456 : jump prerouting-4789-0x100000 }", "ip saddr != { 198.51.100.2, 198.51.100.3 } drop", "meta nfproto ipv6 drop")
	h.set(t, "endpoint b", kernel.State{})
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func wantLines(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) || part == "" && got != "" {
			t.Errorf("%q is not in:\n%s", part, got)
		}
	}
}

// changes are made to network(t), one at a time. The commands are those that the change needs and no more.
var changes = []struct {
	name string
	do   func(*kernel.State)
	want string // what the commands begin with
}{
	{"bridge mtu", func(s *kernel.State) { s.Links[0].MTU = 1400 }, "ip -n shared link set BR mtu 1400"},
	{"bridge mac", func(s *kernel.State) { s.Links[0].MAC[5] = 9 },
		"ip -n shared link set BR address 02:00:00:00:00:09\n" +
			"ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:01:01 dev BR nud permanent\n" +
			"ip -n shared neigh replace fd09::2 lladdr 02:00:00:00:01:01 dev BR nud permanent"},
	{"snooping", func(s *kernel.State) { s.Links[0].Bridge.MulticastSnooping = true }, "ip -n shared link set BR type bridge mcast_snooping 1"},
	{"port flags", func(s *kernel.State) {
		s.Links[1].NoLearning, s.Links[1].NeighSuppress, s.Links[1].Isolated = false, false, false
	}, "bridge -n shared link set dev VX learning on neigh_suppress off isolated off"},
	{"vxlan mac", func(s *kernel.State) { s.Links[1].MAC[5] = 9 }, "ip -n shared link set VX address 02:00:00:00:00:09"},
	{"bridge down", func(s *kernel.State) { s.Links[0].Up, s.Neighs = false, nil }, "ip -n shared link set BR down"},
	{"vxlan down", func(s *kernel.State) { s.Links[1].Up = false }, "ip -n shared link set VX down"},
	{"no ipv6 by mtu", func(s *kernel.State) {
		s.Links[0].MTU, s.Neighs, s.Sysctls = 1200, s.Neighs[:1], nil
	}, "ip -n shared link set BR mtu 1200"},
	{"no master", func(s *kernel.State) {
		s.Links[1].Master, s.FDB[0].Bridge, s.FDB[1].Bridge = "", false, false
	}, "ip -n shared link set VX nomaster"},
	{"moved container", func(s *kernel.State) { s.FDB[0].Dst = addr("198.51.100.3") },
		"bridge -n shared fdb replace 02:00:00:00:01:01 dev VX dst 198.51.100.3 self static"},
	{"host gone", func(s *kernel.State) { s.FDB = append(s.FDB[:1:1], s.FDB[2]) },
		"bridge -n shared fdb del 00:00:00:00:00:00 dev VX dst 198.51.100.3 self\n" +
			"bridge -n shared fdb del 02:00:00:00:01:02 dev VX dst 198.51.100.3 self\n" +
			"bridge -n shared fdb del 02:00:00:00:01:02 dev VX master"},
	{"new mac of an address", func(s *kernel.State) { s.Neighs[1].MAC[5] = 7 },
		"ip -n shared neigh replace fd09::2 lladdr 02:00:00:00:01:07 dev BR nud permanent"},
	{"neighbour gone", func(s *kernel.State) { s.Neighs = s.Neighs[:1] }, "ip -n shared neigh del fd09::2 dev BR"},
	{"vni", func(s *kernel.State) { s.Links[1].VXLAN.VNI++ }, "ip -n shared link del VX\nip link add VX netns shared"},
	{"local", func(s *kernel.State) { s.Links[1].VXLAN.Local = addr("198.51.100.9") }, "ip -n shared link del VX\nip link add VX"},
	{"port", func(s *kernel.State) { s.Links[1].VXLAN.Port = 4790 }, "ip -n shared link del VX\nip link add VX netns shared"},
	{"underlay", func(s *kernel.State) {
		s.Links[1].VXLAN.Local = addr("2001:db8::1")
		for i := range s.FDB {
			s.FDB[i].Dst = addr("2001:db8::2")
		}
		s.FDB = s.FDB[:3]
	}, "ip -n shared link del VX\nip link add VX netns shared"},
	{"rules", func(s *kernel.State) { s.Rules[0].NotFrom = s.Rules[0].NotFrom[:1] }, "nft delete rule inet carrick prerouting-4789-0x100000 handle"},
	{"no rules", func(s *kernel.State) { s.Rules = nil }, "nft delete rule inet carrick prerouting-4789-0x100000 handle"},
	{"sysctl", func(s *kernel.State) { s.Sysctls[0].Value = "2" },
		"ip netns exec shared sysctl -w net/ipv6/conf/BR/accept_ra=2"},
	{"no vxlan", func(s *kernel.State) { s.Links, s.FDB = s.Links[:1], nil }, "ip -n shared link del VX"},
	{"host's bridge", func(s *kernel.State) {
		s.Links = append(s.Links, kernel.Link{Name: br2, MTU: 1500, Up: true, Bridge: &kernel.Bridge{MulticastSnooping: true}})
		s.Addrs = []kernel.Addr{{Dev: br2, Prefix: netip.MustParsePrefix("10.1.0.1/24")},
			{Dev: br2, Prefix: netip.MustParsePrefix("fd01::1/64")}}
		s.Routes = []kernel.Route{{Dev: br2, Dst: netip.MustParsePrefix("10.2.0.0/24"), Via: addr("10.1.0.2")},
			{Dev: br2, Dst: netip.MustParsePrefix("10.3.0.0/24")},
			{Dev: br2, Dst: netip.MustParsePrefix("fd02::/64"), Via: addr("fd01::2")}}
	}, "ip link add BR2 mtu 1500 type bridge mcast_snooping 1"},
}

// Each change is made, is stable, and can be taken back.
func TestSetChangesInPlace(t *testing.T) {
	h := newHost(t)
	h.set(t, "network a", network(t))
	names := strings.NewReplacer(br2, "BR2", br, "BR", vx, "VX")
	for _, c := range changes {
		want := network(t)
		c.do(&want)
		lines, err := h.Plan("network a", want)
		if got := names.Replace(strings.Join(lines, "\n")); err != nil || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %v, got:\n%s\nwant:\n%s", c.name, err, got, c.want)
		}
		t.Run(c.name, func(t *testing.T) { h.set(t, "network a", want) })
		t.Run(c.name+" and back", func(t *testing.T) { h.set(t, "network a", network(t)) })
	}
}

func TestSetChangesAddressesAndRoutes(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	base := func(addrs []string, routes ...kernel.Route) kernel.State {
		s := kernel.State{Links: []kernel.Link{{Name: br, Up: true, Bridge: &kernel.Bridge{}}}, Routes: routes}
		for _, a := range addrs {
			s.Addrs = append(s.Addrs, kernel.Addr{Dev: br, Prefix: netip.MustParsePrefix(a)})
		}
		return s
	}
	via := kernel.Route{Dev: br, Dst: netip.MustParsePrefix("10.2.0.0/24"), Via: addr("10.1.0.254")}
	via6 := kernel.Route{Dev: br, Dst: netip.MustParsePrefix("fd02::/64"), Via: addr("fd01::254")}
	all := kernel.Route{Dev: br, Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: addr("10.1.0.254")}
	all6 := kernel.Route{Dev: br, Dst: netip.MustParsePrefix("::/0"), Via: addr("fd01::254")}
	for i, s := range []kernel.State{
		base([]string{"10.1.0.1/24", "fd01::1/64"}, via, via6),
		base([]string{"10.1.0.2/24", "fd01::2/64"}, via, via6), // the subnet stays, its first address goes
		base([]string{"10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24", "fd01::1/64"}, all, all6),
		base([]string{"10.1.0.3/24", "fd01::3/64", "fd01::4/64"}, via, via6, all, all6),
		base([]string{"10.1.0.3/25", "fd01::3/64"}, kernel.Route{Dev: br, Dst: via.Dst, Via: addr("10.1.0.1")}),
		base([]string{"fd01::3/64"}, kernel.Route{Dev: br, Dst: via.Dst}),
		base(nil),
	} {
		h.set(t, "gateway", s)
		out := h.Run(t, "ip -br addr show dev %s", br)
		for _, a := range s.Addrs {
			if !strings.Contains(out, a.Prefix.String()) {
				t.Errorf("step %d: %s is not in %s", i, a.Prefix, out)
			}
		}
		down := s // routes and the addresses of IPv6 go with the link, and come again
		down.Links = []kernel.Link{{Name: br, Bridge: &kernel.Bridge{}}}
		down.Addrs, down.Routes = nil, nil
		h.set(t, "gateway", down)
		h.set(t, "gateway", s)
	}
	h.set(t, "gateway", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestSetKeepsAwayFromForeignDevices(t *testing.T) {
	h := newHost(t)
	h.Run(t, "ip link add %s type bridge", br2)
	h.Run(t, "ip link set %s alias mine", br2)
	h.Run(t, "ip link add eth7 type bridge")
	h.Run(t, "ip link add ckblue type bridge")
	h.set(t, "network a", network(t))
	before := h.Dump(t)
	own := kernel.State{Links: []kernel.Link{{Name: br2, Bridge: &kernel.Bridge{}}}}
	for _, c := range []struct {
		owner string
		want  kernel.State
		err   string
	}{
		{"b", own, "link " + br2 + ": exists and is not ours"},
		{"b", kernel.State{Links: network(t).Links[:1]}, "link " + br + " in namespace shared: belongs to network a already"},
		{"b", kernel.State{Links: []kernel.Link{{Name: "eth7", Bridge: &kernel.Bridge{}}}}, "link eth7: must be named by Name"},
		{"b", kernel.State{Sysctls: []kernel.Sysctl{{Key: "net/ipv4/ip_forward", Value: "1"}}}, "not of one of our devices"},
		{"b", kernel.State{Addrs: []kernel.Addr{{Dev: "eth7", Prefix: netip.MustParsePrefix("10.0.0.1/8")}}}, "eth7 is not a link"},
		{"", own, "must have 1 to 200 bytes"},
		{"b\n", own, "only printable ASCII"},
		{kernel.Unclaimed, own, "can only be cleared"},
	} {
		if err := h.Set(t.Context(), c.owner, c.want); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("got %v, want: %s", err, c.err)
		}
	}
	for _, owner := range []string{"b", kernel.Unclaimed} {
		h.set(t, owner, kernel.State{})
	}
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A failure in the middle names the command and the reason, and what was made until then goes with the zero State.
func TestSetFailsInTheMiddle(t *testing.T) {
	h := newHost(t)
	h.Run(t, "ip link add vxlan7 type vxlan id 1048576 local 198.51.100.1 dstport 4789")
	before := h.Dump(t)
	err := h.Set(t.Context(), "network a", network(t))
	want := "ip link add " + vx + " netns shared address 02:00:00:00:00:02 mtu 1450 type vxlan id 1048576 local 198.51.100.1 dstport 4789 nolearning: file exists"
	if !errors.Is(err, unix.EEXIST) || !strings.HasPrefix(err.Error(), want) {
		t.Fatalf("got %v\nwant %s", err, want)
	}
	t.Log(err)
	if out := h.shared(t).Run(t, "ip -br link"); !strings.Contains(out, br) {
		t.Fatalf("nothing was made before the failure: %s", out)
	}
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	h.Run(t, "ip link del vxlan7")
	h.set(t, "network a", network(t))
	h.set(t, "network a", kernel.State{})
}

// Who waits for his turn can give up, and what he wanted is not done.
func TestSetWaitsItsTurn(t *testing.T) {
	h := newHost(t)
	release := h.Busy()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- h.Set(ctx, "network a", network(t)) }()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- h.Set(t.Context(), "network b", network(t)) }()
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := owned(t, h); len(got) != 1 || got[0].Owner != "network b" {
		t.Errorf("owners: %v", got)
	}
	h.set(t, "network b", kernel.State{})
}

// After Close nobody waits, whatever his context: neither who was waiting before nor who comes later.
func TestNobodyWaitsAfterClose(t *testing.T) {
	h := newHost(t)
	release := h.Busy()
	waiting, closed := make(chan error), make(chan struct{})
	go func() { waiting <- h.Set(context.Background(), "network a", network(t)) }()
	go func() { h.Close(); close(closed) }()
	release()
	<-closed
	if err := <-waiting; err != nil && !errors.Is(err, kernel.ErrClosed) { // it may have had its turn before
		t.Errorf("who waited: %v", err)
	}
	if err := h.Set(context.Background(), "network a", network(t)); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("who came later: %v", err)
	}
	if _, err := h.Owners(context.Background()); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("who asked: %v", err)
	}
	if err := h.Kernel.Run(context.Background()); !errors.Is(err, kernel.ErrClosed) {
		t.Errorf("who would keep: %v", err)
	}
}
