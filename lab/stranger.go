package lab

import (
	"context"
	"fmt"
)

// A Stranger is a machine on the switch that is none of the hosts: a network namespace with addresses of the underlay, and
// no more. Commands in it are those of this machine.
type Stranger struct {
	IPv4, IPv6 string

	lab *Lab
}

// stranger is its name, and that of its port on the switch.
const stranger = "stranger"

// Stranger returns the lab's stranger, who is plugged in when he is first asked for, and leaves with the lab.
func (l *Lab) Stranger(ctx context.Context) (*Stranger, error) {
	// Behind the last of the hosts.
	s := &Stranger{IPv4: fmt.Sprintf("198.51.100.%d", 11+maxHosts), IPv6: fmt.Sprintf("2001:db8::%d", 11+maxHosts), lab: l}
	p, err := readProcess(l.layout.initPID(stranger))
	if err != nil || p.pid != 0 {
		return s, err
	}
	if p, err = l.startNamespace(ctx, stranger); err != nil {
		return nil, fmt.Errorf("%s: %w", stranger, err)
	}
	links := fmt.Sprintf("link add %[1]s type veth peer name eth0 netns %[2]d\nlink set %[1]s master br0 up\n", stranger, p.pid)
	if _, err := l.inSwitch(ctx, links, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	addresses := fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad\nlink set eth0 up\n", s.IPv4, s.IPv6)
	_, err = l.inNamespace(ctx, stranger, addresses, "ip", "-batch", "-")
	return s, err
}

// Run runs a command of this machine in the stranger's network namespace, and returns what it printed.
func (s *Stranger) Run(ctx context.Context, args ...string) (string, error) {
	return s.lab.inNamespace(ctx, stranger, "", args...)
}
