package kernel

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckRefuses(t *testing.T) {
	if err := base().Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		do  func(*State)
		err string
	}{
		{func(s *State) { s.Links[0].Name = "br0" }, "link br0: must be named by Name"},
		{func(s *State) { s.Links[0].Name = "../../etc/passwd" }, "must be named by Name"},
		{func(s *State) { s.Links[0].NS = "other" }, `link ckb000000000001: namespace "other": only "" and "shared" are known`},
		{func(s *State) { s.Links[0].Bridge = nil }, "must be exactly one of bridge, veth and vxlan"},
		{func(s *State) { s.Links[0].Veth = &Veth{} }, "must be exactly one of bridge, veth and vxlan"},
		{func(s *State) { s.Links = append(s.Links, s.Links[0]) }, "link ckb000000000001 in namespace shared: wanted twice"},
		{func(s *State) { s.Links[0].MTU = -1 }, "mtu -1: must be 0 (the kernel's choice) to 65535 bytes"},
		{func(s *State) { s.Links[2].Veth.PeerMTU = 70000 }, "peer ckc000000000001: mtu 70000: must be 0"},
		{func(s *State) { s.Links[2].Veth.Peer = "eth0" }, "peer eth0: must be named by Name"},
		{func(s *State) { s.Links[1].VXLAN.VNI = 1 << 24 }, "vni 16777216: must be less than 16777216"},
		{func(s *State) { s.Links[1].VXLAN.Local = netip.Addr{} }, "local address invalid IP and UDP port 4789 must be given"},
		{func(s *State) { s.Links[1].VXLAN.Port = 0 }, "local address 198.51.100.1 and UDP port 0 must be given"},
		{func(s *State) { s.Addrs[0].Dev = "eth0" }, "address 10.9.0.1/24: eth0 in namespace shared is not a link of the same state"},
		{func(s *State) { s.Addrs[0].Prefix = netip.Prefix{} }, "address invalid Prefix: is none"},
		{func(s *State) { s.Routes[0].NS = Host }, "route to 10.8.0.0/24: ckb000000000001 is not a link of the same state"},
		{func(s *State) { s.Neighs[0].IP = netip.Addr{} }, "neighbour invalid IP: is none"},
		{func(s *State) { s.Neighs[0].Dev, s.Neighs[0].Announce = testVXLAN, true },
			"neighbour 10.9.0.2: only those of a bridge are announced, and ckx000000000001 in namespace shared is none"},
		{func(s *State) { s.Links[2].Veth.Announce = []netip.Addr{{}} }, "peer ckc000000000001: address invalid IP cannot be announced"},
		{func(s *State) {
			s.Links[2].Veth.Announce, s.Links[2].Veth.PeerMAC = []netip.Addr{s.Neighs[0].IP}, MAC{}
		}, "peer ckc000000000001: address 10.9.0.2 cannot be announced: it takes a valid one, a MAC address and a master"},
		{func(s *State) { s.Links[2].Veth.Announce, s.Links[2].Master = []netip.Addr{s.Neighs[0].IP}, "" }, "cannot be announced"},
		{func(s *State) { s.FDB[0].Dst, s.FDB[0].Bridge = netip.Addr{}, false }, "fdb entry towards invalid IP: is none"},
		{func(s *State) { s.FDB[1].Dst, s.FDB[1].Bridge = netip.Addr{}, true }, "fdb entry towards invalid IP: is none"},
		{func(s *State) { s.Rules = []Rule{{Chain: Forward, Astray: true, Verdict: Drop}} }, "only allowed in chain prerouting"},
		{func(s *State) { s.Rules = []Rule{{Chain: Forward, VNIFrom: 1 << 24, Verdict: Drop}} }, "vni 16777216"},
		{func(s *State) { s.Rules = []Rule{{Chain: Forward, VNI: 7, Verdict: Drop}} }, "vni 7: only allowed with the UDP port"},
		{func(s *State) { s.FDB[1].Bridge = true }, "the bridge has no such entry"},
		{func(s *State) { s.Sysctls[0].NS = Host }, "not of one of our devices, nor of our namespace"},
		{func(s *State) { s.Sysctls[0].Key = "kernel/core_pattern" }, "not of one of our devices, nor of our namespace"},
		{func(s *State) { s.Sysctls[0].Key = "net/../kernel/core_pattern" }, "not a path below /proc/sys"},
		{func(s *State) { s.Rules[0].Chain = "input" }, `rule: chain "input": only prerouting, forward and output are known`},
		{func(s *State) { s.Rules[0].Verdict = "" }, `rule: verdict "": only accept, drop and notrack are known`},
		{func(s *State) { s.Rules[0].Chain, s.Rules[0].Verdict = Forward, NoTrack }, "rule: notrack comes too late in forward"},
		{func(s *State) { s.Rules[0].VNI = 1 << 24 }, "rule: vni 16777216: must be less than 16777216"},
		{func(s *State) { s.Rules[0].NS = "x" }, `rule: namespace "x": only "" and "shared" are known`},
	} {
		s := base()
		c.do(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("got %v\nwant %s", err, c.err)
		}
	}
}

// A comment that is not as we write it belongs to nobody, whatever bytes it has.
func FuzzParseComment(f *testing.F) {
	f.Add(comment("network a", "0011223344556677"))
	f.Add([]byte{0, 200, 'c'})
	f.Add([]byte{1, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		owner, sum := parseComment(data)
		if checkOwner(owner) != nil || strings.ContainsAny(sum, " \x00") {
			return
		}
		if again, sum2 := parseComment(comment(owner, sum)); again != owner || sum2 != sum {
			t.Errorf("%q %q became %q %q", owner, sum, again, sum2)
		}
	})
}

func FuzzParseNeighbour(f *testing.F) {
	f.Add([]byte{7, 0, 0, 0, 1, 0, 0, 0, 128, 0, 2, 0, 10, 0, 2, 0, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0, 1, 0, 192, 0, 2, 1})
	f.Add([]byte{7, 0, 0, 0, 1, 0, 0, 0, 128, 0, 2, 0, 3, 0, 2, 0})
	f.Fuzz(func(t *testing.T, m []byte) {
		if n, ok := parseNeighbour(m); ok && len(m) < 12 {
			t.Errorf("%d bytes gave %+v", len(m), n)
		}
	})
}
