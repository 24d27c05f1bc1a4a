//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/carricknet/carrick/e2e/forge"
	"github.com/carricknet/carrick/lab"
)

var attacks = []scenario{
	{"FramesOfStrangersArriveNowhere", func(s *scene) { s.arm(); s.framesOfStrangers(false) }},
	{"WhoForgesTheAddressOfANodeIsHeardAndTakesNothing", forgedNode},
	{"ContainersSendNoFramesToNodes", func(s *scene) { s.arm(); s.framesOfContainers(false) }},
	{"NobodyTakesTheAddressOfAnother", theft},
	{"AHostThatWasForgottenIsAStranger", forgottenStranger},
	{"GarbageOnTheControlPortsChangesNothing", garbage},
	{"OverIPv6FramesAreKeptOutToo", framesOverIPv6},
}

// unasked are frames that a container of a network would take from anybody on it.
func unasked(c *container, network string) map[string]*forge.Frame {
	p := c.nets[network]
	last4, last6 := p.v4.As4(), p.v6.As16()
	last4[3], last6[15] = 250, 250 // somebody of the same subnet
	from4, from6 := netip.AddrFrom4(last4), netip.AddrFrom16(last6)
	return map[string]*forge.Frame{
		"datagram":               {Dst: forge.MAC(p.mac), Src: someMAC, From: from4, To: p.v4},
		"datagram in IPv6":       {Dst: forge.MAC(p.mac), Src: someMAC, From: from6, To: p.v6},
		"ARP announcement":       {Src: someMAC, From: from4, Claim: true},
		"neighbour announcement": {Src: someMAC, From: from6, Claim: true},
	}
}

// framesOfStrangers: from somebody who is no node nothing comes in, at any time of a network's life.
func (s *scene) framesOfStrangers(six bool) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	victim, friend := all[0], all[1]
	h := victim.host
	st, by := s.stranger()
	vni := &forge.VXLAN{VNI: s.vni(h, "blue")}
	to := netip.AddrPortFrom(vtep(h, six), vxlanPort)
	var list []forgery
	for what, frame := range unasked(victim, "blue") {
		list = append(list, forgery{name: what, by: by, order: forge.Order{To: to, VXLAN: vni, Frame: frame}})
	}
	frame := unasked(victim, "blue")["datagram"]
	list = append(list,
		forgery{name: "in fragments", by: by, order: forge.Order{To: to, VXLAN: vni, Frame: frame, Fragments: true}},
		forgery{name: "of no network", by: by, harmless: true, order: forge.Order{To: to, VXLAN: &forge.VXLAN{VNI: vni.VNI ^ 1}, Frame: frame}},
		forgery{name: "without the flag", by: by, harmless: true, order: forge.Order{To: to, VXLAN: &forge.VXLAN{VNI: vni.VNI, Flags: 0x40}, Frame: frame}},
		forgery{name: "to another port", by: by, harmless: true, order: forge.Order{To: netip.AddrPortFrom(to.Addr(), vxlanPort+1), VXLAN: vni, Frame: frame}})
	if !six { // the kernel takes VXLAN at every address of the host
		other := s.gatewayBridge(h)
		_, err := st.Run(s.ctx, "ip", "route", "replace", other.String(), "via", h.IPv4)
		s.must(err)
		list = append(list, forgery{name: "to another address", by: by, order: forge.Order{To: netip.AddrPortFrom(other, vxlanPort), VXLAN: vni, Frame: frame}})
	}
	s.kept("blue", victim, friend, []*lab.Host{h}, list)

	s.docker(h, "plugin", "disable", "-f", plugin)
	for i, n := range s.arrived("blue", victim, friend, list) {
		if n != 0 {
			s.Errorf("%s: %d frames arrived while the plugin was disabled", list[i].name, n)
		}
	}
	s.docker(h, "plugin", "enable", plugin)
	s.joined(s.hosts...)
	s.whileItIsMade(st, forge.Order{To: netip.AddrPortFrom(vtep(s.hosts[2], six), vxlanPort), VXLAN: vni, Frame: frame})
}

// forgedNode says what is true of VXLAN: who can send with the address of a node, by the way that leads to it, gets in. But
// nothing is learned from what he sends: what containers send to each other's MACs goes where it went.
func forgedNode(s *scene) {
	s.arm()
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	s.reach(allPairs("blue", all...))
	victim, friend := all[0], all[1]
	_, by := s.stranger()
	o := forge.Order{To: netip.AddrPortFrom(vtep(victim.host, false), vxlanPort), From: vtep(friend.host, false),
		VXLAN: &forge.VXLAN{VNI: s.vni(victim.host, "blue")}}
	var list []forgery
	for what, frame := range unasked(victim, "blue") {
		order := o
		order.Frame = frame
		list = append(list, forgery{name: what, by: by, order: order})
	}
	for i, n := range s.arrived("blue", victim, friend, list) {
		if n == 0 {
			s.Errorf("%s as %s: does not arrive, and the documentation says that it does", list[i].name, o.From)
		}
	}
	probes := s.probe(allPairs("blue", all...))
	for _, c := range all {
		o.Frame = &forge.Frame{Src: forge.MAC(c.nets["blue"].mac), From: list[0].order.Frame.From, To: list[0].order.Frame.To, Text: "mask"}
		o.Count, o.Pause = 200, 5*time.Millisecond
		s.must(by(o))
	}
	s.lossless("while frames with the MACs of all are forged", probes, true)
}

// whileItIsMade: a network that a host has without a container, and one that is being made, take nothing in either.
func (s *scene) whileItIsMade(st *lab.Stranger, o forge.Order) {
	s.Helper()
	h := s.hosts[2]
	s.docker(h, "rm", "-f", "c3")
	subnets := s.docker(h, "network", "inspect", "-f", "{{range .IPAM.Config}}--subnet {{.Subnet}} {{end}}", "blue")
	s.docker(h, "network", "rm", "blue")
	o.Frame.Text, o.Count, o.Pause = "flood", 100_000, 100*time.Microsecond
	order, err := json.Marshal(o)
	s.must(err)
	ctx, stop := context.WithCancel(s.ctx)
	flood := make(chan error, 1)
	go func() {
		_, err := st.Run(ctx, forgeBuilt, "send", string(order))
		flood <- err
	}()
	s.must(s.create(h, "blue", append([]string{"--ipv6"}, strings.Fields(subnets)...)...))
	s.pass(time.Second) // frames go on coming
	if n := s.entered(h, "blue"); n != 0 {
		s.Errorf("%d frames came in to a network that was being made", n)
	}
	s.open([]*lab.Host{h}, func() {
		s.until("without the defence the same frames come in to a network without containers", func() error {
			if n := s.entered(h, "blue"); n < burst {
				return fmt.Errorf("%d came in", n)
			}
			return nil
		})
	})
	stop()
	if <-flood == nil {
		s.Error("the flood ended by itself, and may have ended before the network was made")
	}
}

// gatewayBridge is the host's own address on docker_gwbridge.
func (s *scene) gatewayBridge(h *lab.Host) netip.Addr {
	s.Helper()
	text := s.docker(h, "network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", "docker_gwbridge")
	a, err := netip.ParseAddr(text)
	s.must(err)
	return a
}

// framesOfContainers: what containers forge reaches no network of ours, on no host: whatever network they are on, and under
// whatever address.
func (s *scene) framesOfContainers(six bool) {
	v4, v6 := s.nextSubnets()
	flags := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	evil := s.hosts[2]
	s.on(s.hosts[:2], func(h *lab.Host) error { return s.create(h, "blue", flags...) })
	victim, friend := s.run(s.hosts[0], "victim", "--network", "blue"), s.run(s.hosts[1], "friend", "--network", "blue")
	s.reach(allPairs("blue", victim, friend))
	vni := &forge.VXLAN{VNI: s.vni(victim.host, "blue")}

	// A network of the engine's own, with both families.
	s.docker(evil, "network", "create", "--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd00:66::/64", "theirs")
	on := func(name, network string, more ...string) *container {
		return s.run(evil, name, append(append([]string{"--network", network}, armed...), more...)...)
	}
	attackers := []*container{on("theirs", "theirs")}
	if !six {
		attackers = append(attackers, on("default", "bridge"), on("admin", "bridge", "--cap-add", "NET_ADMIN"))
	}
	// list is every attacker under its own address, and under that of a node, at every one of these addresses.
	list := func(c *container, addrs ...netip.Addr) (all []forgery) {
		frame := unasked(c, "blue")["datagram"]
		for _, a := range attackers {
			for _, to := range addrs {
				o := forge.Order{To: netip.AddrPortFrom(to, vxlanPort), VXLAN: vni, Frame: frame}
				all = append(all, forgery{name: fmt.Sprintf("%s to %s", a, to), by: s.by(a), order: o})
				o.From = vtep(friend.host, six)
				all = append(all, forgery{name: fmt.Sprintf("%s to %s as %s", a, to, o.From), by: s.by(a), order: o})
			}
		}
		return all
	}
	open := []*lab.Host{evil}
	if six { // engine 20.10 does not masquerade IPv6: then the victim's host has to take it as well
		open = s.hosts
	}
	s.kept("blue", victim, friend, open, list(victim, vtep(victim.host, six)))

	// The same to their own host, which now has the network too.
	s.must(s.create(evil, "blue", flags...))
	near := s.run(evil, "near", "--network", "blue")
	attackers = append(attackers, on("ours", "blue"))
	s.reach(allPairs("blue", victim, friend, near))
	addrs := []netip.Addr{vtep(evil, six)}
	if six {
		attackers = attackers[:1] // of the others none has a way out over IPv6
	} else {
		addrs = append(addrs, s.gatewayBridge(evil)) // the kernel takes VXLAN at every address of the host
	}
	s.kept("blue", near, friend, open, list(near, addrs...))
	s.kept("blue", victim, friend, open, list(victim, vtep(victim.host, six)))
	s.all(s.sweep)
	s.docker(evil, "network", "rm", "theirs")
	s.fresh(evil) // the engine leaves IPv6 forwarding switched on
}

// framesOverIPv6: a cluster whose nodes know each other by IPv6.
func framesOverIPv6(s *scene) {
	s.arm()
	s.uninstall(s.hosts...)
	settings := s.venue.settings()
	var addrs []string
	for _, h := range s.hosts {
		addrs = append(addrs, h.IPv6)
	}
	settings["JOIN"] = strings.Join(addrs, ",")
	s.all(func(h *lab.Host) error {
		own := map[string]string{"ADVERTISE": h.IPv6, "SECRET": settings["SECRET"], "JOIN": settings["JOIN"]}
		if err := h.Copy(s.ctx, pluginDir+"/rootfs/carrick", binary); err != nil {
			return err
		}
		return h.InstallPlugin(s.ctx, plugin, pluginDir, own)
	})
	s.joined(s.hosts...)
	s.framesOfStrangers(true)
	s.all(s.sweep)
	s.framesOfContainers(true)
	s.all(s.sweep)
	s.uninstall(s.hosts...)
	s.install(s.venue.settings(), s.hosts...)
	s.joined(s.hosts...)
	s.fresh(s.hosts...)
}
