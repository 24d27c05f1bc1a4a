//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

var ipam = []scenario{
	{"EveryHostTellsWhoHasAnAddress", whoHasIt},
}

// A poolStatus is what `carrick ipam pools --json` says of one subnet.
type poolStatus struct {
	ID        string       `json:"id"` // "": a network of other hosts
	Subnet    netip.Prefix `json:"subnet"`
	Network   string       `json:"network"`
	Usable    uint64       `json:"usable"`
	Used      int          `json:"used"`
	Free      uint64       `json:"free"`
	Others    uint64       `json:"others"`
	Told      *int         `json:"told"`
	Stranded  uint64       `json:"stranded"`
	Unclaimed uint64       `json:"unclaimed"`
}

// pools are those that a host has itself.
func (s *scene) pools(h *lab.Host) ([]poolStatus, error) {
	var all []poolStatus
	err := s.carrick(h, &all, "ipam", "pools")
	return slices.DeleteFunc(all, func(p poolStatus) bool { return p.ID == "" }), err
}

// An addressStatus is what `carrick ipam who --json` says of an address in one subnet.
type addressStatus struct {
	State    string    `json:"state"`
	Host     string    `json:"host"` // that gives the address
	Here     bool      `json:"here"`
	Endpoint string    `json:"endpoint"`
	MAC      string    `json:"mac"`
	Until    time.Time `json:"until"`
}

// who is what a host says of an address that lies in one pool.
func (s *scene) who(h *lab.Host, addr netip.Addr) (addressStatus, error) {
	var all []addressStatus
	if err := s.carrick(h, &all, "ipam", "who", addr.String()); err != nil {
		return addressStatus{}, err
	}
	if len(all) != 1 {
		return addressStatus{}, fmt.Errorf("%s: %s: %+v, want one answer", h.Name, addr, all)
	}
	return all[0], nil
}

// tells waits until a host says of an address what it should.
func (s *scene) tells(h *lab.Host, addr netip.Addr, what string, right func(addressStatus) bool) {
	s.Helper()
	s.until(fmt.Sprintf("%s says of %s: %s", h.Name, addr, what), func() error {
		a, err := s.who(h, addr)
		if err == nil && !right(a) {
			err = fmt.Errorf("%s: %s: %+v", h.Name, addr, a)
		}
		return err
	})
}

// whoHasIt: a container on the first host. The second has another one in the network and hears of the first's, the third only
// knows whose block it is, before it has the network and after.
func whoHasIt(s *scene) {
	v4, v6 := s.nextSubnets()
	flags := []string{"--ipv6", "--subnet", v4.String(), "--subnet", v6.String()}
	has, hears, deaf := s.hosts[0], s.hosts[1], s.hosts[2]
	s.on(s.hosts[:2], func(h *lab.Host) error { return s.create(h, "blue", flags...) })
	c := s.run(has, "held", "--network", "blue")
	other := s.run(hears, "other", "--network", "blue")
	s.reach(allPairs("blue", c, other))
	here, err := s.local(has)
	s.must(err)
	if len(here) != 1 {
		s.Fatalf("%s: endpoints %+v, want one", has.Name, here)
	}
	held := func(a addressStatus) bool {
		return a.State == "in use" && a.Host == has.Name && a.Endpoint == here[0].ID && a.MAC == c.nets["blue"].mac
	}
	whose := func(a addressStatus) bool { return a.State == "unknown" && a.Host == has.Name && !a.Here }
	for _, addr := range c.addrs("blue") {
		s.tells(has, addr, "it is in use here", func(a addressStatus) bool { return held(a) && a.Here })
		s.tells(hears, addr, "it is in use there", func(a addressStatus) bool { return held(a) && !a.Here })
		s.tells(deaf, addr, "which host has the block of a network that is not here", whose)
	}
	s.must(s.create(deaf, "blue", flags...))
	for _, addr := range c.addrs("blue") {
		s.tells(deaf, addr, "which host has the block", whose)
	}
	for _, h := range s.hosts {
		for _, subnet := range []netip.Prefix{v4, v6} {
			s.tells(h, at(subnet, 1), "it is the gateway", func(a addressStatus) bool { return a.State == "gateway" })
		}
		s.tells(h, at(v4, 255), "it is nobody's to have", func(a addressStatus) bool { return a.State == "unusable" })
		for _, foreign := range []string{"192.0.2.77", "2001:db8:77::1"} {
			s.saysNo(h, words("address "+foreign+" is outside every pool", v4.String(), v6.String()), "who", foreign)
		}
		s.saysNo(h, words(`"nonsense" is not an IPv4 or IPv6 address`), "who", "nonsense")
		s.saysNo(h, words(`no pool has the subnet "nonsense"`, v4.String(), v6.String()), "pools", "nonsense")
		s.must(s.addsUp(h, v4))
	}
	s.docker(has, "rm", "-f", c.name)
	was := c.nets["blue"]
	s.tells(has, was.v4, "it rests", func(a addressStatus) bool { return a.State == "resting" && a.Until.After(time.Now()) })
	s.tells(has, was.v6, "it is free: it will hardly be drawn again", func(a addressStatus) bool { return a.State == "free" })
	for _, addr := range c.addrs("blue") {
		s.tells(hears, addr, "it is not used", func(a addressStatus) bool { return a.State == "not used" && a.Host == has.Name })
		s.tells(deaf, addr, "which host has the block", whose)
	}
}

// saysNo demands that a verb of `carrick ipam` fails with a message that holds all these words.
func (s *scene) saysNo(h *lab.Host, words []string, args ...string) {
	s.Helper()
	out, err := h.Run(s.ctx, append([]string{binary, "ipam"}, args...)...)
	if err == nil {
		s.Fatalf("%s: carrick ipam %s: succeeded, want an error with %q: %s", h.Name, strings.Join(args, " "), words, out)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			s.Errorf("%s: carrick ipam %s:\n\tgot  %v\n\twant %q in it", h.Name, strings.Join(args, " "), err, word)
		}
	}
}

// addsUp is an error unless what a host says of a subnet's addresses is all of them, and nothing is stranded.
func (s *scene) addsUp(h *lab.Host, subnet netip.Prefix) error {
	pools, err := s.pools(h)
	for _, p := range pools {
		if p.Subnet != subnet {
			continue
		}
		if sum := uint64(p.Used) + p.Free + p.Others + p.Unclaimed; sum != p.Usable || p.Stranded != 0 {
			err = errors.Join(err, fmt.Errorf("%s: the parts are %d, all are %d: %+v", h.Name, sum, p.Usable, p))
		}
		return err
	}
	return errors.Join(err, fmt.Errorf("%s: no pool %s: %+v", h.Name, subnet, pools))
}
