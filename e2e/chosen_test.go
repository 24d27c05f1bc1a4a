//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"

	"github.com/carricknet/carrick/lab"
)

var choosing = []scenario{
	{"AChosenSubnetIsInNoHostsWay", inNoHostsWay},
}

// inNoHostsWay: routes of one host leave a single subnet of POOLS, and another host chooses that one. The next network is refused,
// and told whose routes they are. A second plugin there has never seen them.
func inNoHostsWay(s *scene) {
	pool, left := netip.MustParsePrefix("10.192.0.0/10"), netip.MustParsePrefix("10.213.64.0/20")
	chooses, routes := s.hosts[0], s.hosts[1]
	add, del := "", ""
	for p := left; p.Bits() > pool.Bits(); p = netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked() {
		b := p.Addr().As4()
		b[(p.Bits()-1)/8] ^= 0x80 >> ((p.Bits() - 1) % 8)
		other := netip.PrefixFrom(netip.AddrFrom4(b), p.Bits())
		add += fmt.Sprintf("ip route add %s via %s\n", other, s.hosts[2].IPv4)
		del += fmt.Sprintf("ip route del %s\n", other)
	}
	_, err := routes.Run(s.ctx, "sh", "-euc", add)
	s.must(err)
	s.until("the subnet that is chosen is the one that is left", func() error {
		if err := s.create(chooses, "chosen"); err != nil {
			return err
		}
		subnet, err := s.subnet(chooses, "chosen")
		if err == nil && subnet != left.String() {
			err = fmt.Errorf("%s was chosen, want %s", subnet, left)
			if _, rmErr := chooses.Docker(s.ctx, "network", "rm", "chosen"); rmErr != nil {
				return rmErr
			}
		}
		return err
	})
	s.refused(chooses, words("no subnet is free in "+pool.String(), "of other hosts", "on "+routes.Name, "--subnet"), createArgs("another")...)
	_, err = routes.Run(s.ctx, "sh", "-euc", del)
	s.must(err)
	s.must(s.killPlugin(routes))
	s.until("another is chosen when the routes are gone", func() error { return s.create(chooses, "another") })
	subnet, err := s.subnet(chooses, "another")
	s.must(err)
	if p, err := netip.ParsePrefix(subnet); err != nil || !pool.Overlaps(p) || p.Overlaps(left) {
		s.Errorf("%s was chosen, %v: want another one of %s than %s", subnet, err, pool, left)
	}
	s.joined(s.hosts...)
}

// subnet is what a network has as its first.
func (s *scene) subnet(h *lab.Host, network string) (string, error) {
	return h.Docker(s.ctx, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", network)
}
