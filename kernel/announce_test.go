package kernel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// What is announced, and when: cases of TestDiff.
var announceTests = []diffTest{
	{name: "a new entry is announced", want: func(s *State) {
		s.Neighs = append(s.Neighs, Neigh{Shared, testBridge, netip.MustParseAddr("fd09::3"), MAC{2, 5: 3}, true})
	}, ops: `
			ip -n shared neigh replace fd09::3 lladdr 02:00:00:00:00:03 dev ckb000000000001 nud permanent
			# announce fd09::3 at 02:00:00:00:00:03 to the ports of ckb000000000001 in namespace shared`},
	{name: "one with another MAC as well", want: func(s *State) { s.Neighs[0].MAC, s.Neighs[0].Announce = MAC{2, 5: 3}, true }, ops: `
			ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:03 dev ckb000000000001 nud permanent
			# announce 10.9.0.2 at 02:00:00:00:00:03 to the ports of ckb000000000001 in namespace shared`},
	{name: "one that is there is not", want: func(s *State) { s.Neighs[0].Announce = true }},
	{name: "nor one that has to be written again", want: func(s *State) { s.Links[0].MAC[5], s.Neighs[0].Announce = 7, true }, ops: `
			ip -n shared link set ckb000000000001 address 02:00:00:00:00:07
			ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev ckb000000000001 nud permanent`},
	{name: "nor one of a bridge that is down", have: func(h *snapshot) { h.Links[0].Up, h.Neighs = false, nil },
		want: func(s *State) { s.Links[0].Up, s.Neighs[0].Announce = false, true }, ops: `
			ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev ckb000000000001 nud permanent`},
	{name: "a new bridge has nobody to tell", have: func(h *snapshot) { h.State = State{} }, want: func(s *State) {
		*s = State{Links: []Link{s.Links[0], s.Links[2]}, Neighs: s.Neighs}
		s.Neighs[0].Announce, s.Links[1].Veth.Announce = true, []netip.Addr{netip.MustParseAddr("10.9.0.9")}
	}, ops: `
			ip -n shared link add ckb000000000001 address 02:00:00:00:00:01 mtu 1450 type bridge mcast_snooping 1
			ip -n shared link add ckh000000000001 mtu 1450 type veth peer name ckc000000000001 address 02:00:00:00:00:09 mtu 1450 netns host
			ip -n shared link set ckb000000000001 up
			ip -n shared link set ckh000000000001 master ckb000000000001
			bridge -n shared link set dev ckh000000000001 isolated on
			ip -n shared link set ckh000000000001 up
			ip -n shared neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev ckb000000000001 nud permanent
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick prerouting-4789-0x7 handle 1
			nft delete rule inet carrick forward-4789 handle 2`},
	{name: "a container that a crash left half made is announced", have: func(h *snapshot) {
		h.Links[2].Veth, h.Links[2].Up = &Veth{Peer: testPeer}, false
	}, want: announced, ops: `
			ip -n shared link set ckh000000000001 up
			# announce 10.9.0.9 at 02:00:00:00:00:09 to the ports of ckb000000000001 in namespace shared
			# announce fd09::9 at 02:00:00:00:00:09 to the ports of ckb000000000001 in namespace shared`},
	{name: "one that is there is not announced", have: func(h *snapshot) { h.Links[2].Veth = &Veth{Peer: testPeer} }, want: announced},
	{name: "nor one that was handed over", have: func(h *snapshot) { h.Links[2].Veth, h.Links[2].Master = &Veth{}, "" }, want: announced, ops: `
			ip -n shared link set ckh000000000001 master ckb000000000001
			bridge -n shared link set dev ckh000000000001 isolated on`},
	{name: "nor one that is down", have: func(h *snapshot) {
		h.Links[2].Veth, h.Links[2].Master, h.Links[2].Up = &Veth{Peer: testPeer}, "", false
	},
		want: func(s *State) { announced(s); s.Links[2].Up = false }, ops: `
			ip -n shared link set ckh000000000001 master ckb000000000001
			bridge -n shared link set dev ckh000000000001 isolated on`},
}

func announced(s *State) {
	s.Links[2].Veth.Announce = []netip.Addr{netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("fd09::9")}
}

// A container on the bridge of another owner is announced when it is made.
func TestStateOfAnAnnouncedContainer(t *testing.T) {
	s := base()
	announced(&s)
	got := State{Links: s.Links[2:]}.String()
	want := `ip -n shared link add ckh000000000001 mtu 1450 type veth peer name ckc000000000001 address 02:00:00:00:00:09 mtu 1450 netns host
ip -n shared link set ckh000000000001 master ckb000000000001
bridge -n shared link set dev ckh000000000001 isolated on
ip -n shared link set ckh000000000001 up
# announce 10.9.0.9 at 02:00:00:00:00:09 to the ports of ckb000000000001 in namespace shared
# announce fd09::9 at 02:00:00:00:00:09 to the ports of ckb000000000001 in namespace shared
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestAnnouncementsAreBounded(t *testing.T) {
	have, want := held(base()), base()
	for i := range maxAnnounced + 100 {
		ip := netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)})
		want.Neighs = append(want.Neighs, Neigh{Shared, testBridge, ip, MAC{2, 1, 4: byte(i >> 8), 5: byte(i)}, true})
	}
	entries, announced := 0, 0
	for _, o := range diff(have, want) {
		switch o := o.(type) {
		case setEntries:
			entries += len(o)
		case announce:
			announced++
		}
	}
	if entries != maxAnnounced+100 || announced != maxAnnounced {
		t.Errorf("%d entries, of which %d are announced; want %d and %d", entries, announced, maxAnnounced+100, maxAnnounced)
	}
}

// The frames, byte by byte as the RFCs draw them; the checksum was worked out by another program.
func TestFramesOfAnnouncements(t *testing.T) {
	mac := MAC{2, 0, 0, 0, 0, 9}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"ARP": {arpAnnouncement(netip.MustParseAddr("10.9.0.9"), mac), `
			ff ff ff ff ff ff  02 00 00 00 00 09  08 06
			00 01  08 00  06  04  00 01
			02 00 00 00 00 09  0a 09 00 09
			00 00 00 00 00 00  0a 09 00 09`},
		"neighbour advertisement": {advertisement(netip.MustParseAddr("fd09::9"), mac), `
			33 33 00 00 00 01  02 00 00 00 00 09  86 dd
			60 00 00 00  00 20  3a  ff
			fd 09 00 00 00 00 00 00 00 00 00 00 00 00 00 09
			ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
			88 00 5a 71  20 00 00 00
			fd 09 00 00 00 00 00 00 00 00 00 00 00 00 00 09
			02 01  02 00 00 00 00 09`},
	} {
		if got, want := hex.EncodeToString(c.got), strings.Join(strings.Fields(c.want), ""); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

// With its own checksum in it the sum over a message is zero, whatever the addresses (RFC 1071 section 1).
func TestChecksumOfAdvertisements(t *testing.T) {
	for i := range 1000 {
		ip := netip.MustParseAddr(fmt.Sprintf("fd09:%x::%x", i*67%0xffff, i*i*31%0xffff))
		frame := advertisement(ip, MAC{2, byte(i), byte(i >> 3), 0xff, byte(i * 7), byte(i * 13)})
		pseudo := append([]byte{0, 0, 0, 32, 0, 0, 0, 58}, frame[14+8:]...) // addresses and message follow one another
		if sum := checksum(pseudo); sum != 0 {
			t.Fatalf("%s: the receiver's sum is %04x", ip, sum)
		}
	}
}
