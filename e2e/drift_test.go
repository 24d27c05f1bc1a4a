//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/carricknet/carrick/lab"
)

var drift = []scenario{
	{"WhatOthersChangeIsRepaired", repaired},
}

// meddling is what somebody may do on a host, a command of the shell each: $br, $vx and $vh are our devices, and ours enters their
// namespace.
var meddling = []struct{ name, script string }{
	{"bridge down", `ours ip link set $br down`},
	{"bridge deleted", `ours ip link del $br`},
	{"bridge renamed", `ours ip link set $br name other`},
	{"tunnel deleted", `ours ip link del $vx`},
	{"tunnel down and smaller", `ours ip link set $vx down mtu 1300`},
	{"tunnel released", `ours ip link set $vx nomaster`},
	{"port released and down", `ours ip link set $vh nomaster down`},
	{"forwarding entries flushed", `ours bridge fdb flush dev $vx`},
	{"neighbours flushed", `ours ip neigh flush dev $br nud permanent`},
	{"rules deleted", `nft delete table inet carrick`},
}

// untold is what the kernel tells nobody of: the next audit finds it.
const untold = `ours sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1; umount ` + shared

const meddlingScript = `set -e
ours() { nsenter --net=` + shared + ` "$@"; }
br=ckb$0 vx=ckx$0 vh=$(ours ip -o link show master ckb$0 | grep -o 'ckh[0-9a-f]*' | head -n 1)
`

// repaired lets each host have another mishap, in rounds, until each was on each host: all containers reach each other again,
// and the hosts' counters say that somebody has done something.
func repaired(s *scene) {
	s.network("blue")
	all := s.runOnAll("c", "--network", "blue")
	hops := allPairs("blue", all...)
	s.reach(hops)
	before := make([]float64, len(s.hosts))
	for i, h := range s.hosts {
		before[i] = s.repairs(h)
	}
	order := s.rand.Perm(len(meddling))
	for round := range meddling {
		s.all(func(h *lab.Host) error {
			m := meddling[order[(round+s.index(h))%len(meddling)]]
			if err := s.meddle(h, m.script); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			return nil
		})
		s.until(fmt.Sprintf("round %d: everything is there", round), func() error { return onAll(s.hosts, s.whole) })
		s.reach(hops)
	}
	s.all(func(h *lab.Host) error { return s.meddle(h, untold) })
	s.until("an audit has found the rest", func() error { return onAll(s.hosts, s.whole) })
	s.reach(hops)
	for i, h := range s.hosts {
		if did := s.repairs(h) - before[i]; did < float64(len(meddling)) {
			s.Errorf("%s: %v repairs are counted of %d mishaps", h.Name, did, len(meddling))
		}
	}
	s.joined(s.hosts...)
	s.reach(allPairs("blue", append(all, s.runOnAll("more", "--network", "blue")...)...))
}

func (s *scene) meddle(h *lab.Host, script string) error {
	id, err := h.Docker(s.ctx, "network", "inspect", "-f", "{{.Id}}", "blue")
	if err == nil {
		_, err = h.Run(s.ctx, "sh", "-c", meddlingScript+script, id[:12])
	}
	return err
}

// whole is an error while something of a host is not there that no traffic tells of.
func (s *scene) whole(h *lab.Host) error {
	out, err := h.Run(s.ctx, "sh", "-c", `nft list table inet carrick >/dev/null &&
		nsenter --net=`+shared+` sysctl -n net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables`)
	if err == nil && strings.Contains(out, "1") {
		err = fmt.Errorf("%s: sysctls are %q", h.Name, out)
	}
	return err
}

// repairs is how many things of a host were changed back.
func (s *scene) repairs(h *lab.Host) (sum float64) {
	s.Helper()
	out, err := h.Run(s.ctx, binary, "metrics", "--json")
	s.must(err)
	var metrics []struct {
		Name    string
		Samples []struct{ Value float64 }
	}
	s.must(json.Unmarshal([]byte(out), &metrics))
	for _, m := range metrics {
		if m.Name != "carrick_kernel_repairs_total" {
			continue
		}
		for _, v := range m.Samples {
			sum += v.Value
		}
	}
	return sum
}
