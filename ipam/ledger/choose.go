package ledger

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/carricknet/carrick/cluster"
)

const (
	// chosen4 is the length of an IPv4 subnet that we choose, unless its entry of POOLS is longer: 64 blocks of 64
	// addresses, and 1,024 networks in the default pool.
	chosen4 = 20
	// chosen6 is that of an IPv6 subnet (RFC 4291 section 2.5.1).
	chosen6 = 64
)

// reserved are ranges whose addresses are nobody's to give, and what they are for.
var reserved = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network, RFC 1122"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 written as IPv6"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// parseSubnet parses what the user gave as --subnet or --ip-range.
func parseSubnet(flag, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s %q is not a subnet, as in 10.1.0.0/24 or fd00:1::/64", flag, s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s %s is IPv4 written as IPv6: write it as IPv4", flag, p)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s %s has host bits set: %s is meant", flag, p, p.Masked())
	}
	for _, r := range reserved {
		if p.Overlaps(r.prefix) {
			return netip.Prefix{}, fmt.Errorf("%s %s overlaps %s (%s), which cannot be given to containers", flag, p, r.prefix, r.what)
		}
	}
	return p, nil
}

// choose finds a subnet of a family that overlaps nothing in used, nor what other hosts use. With seed "" it is the first, else the search begins at
// a place that the seed decides.
func choose(pools []netip.Prefix, v6 bool, seed string, used []netip.Prefix, hosts []cluster.InUse) (netip.Prefix, error) {
	var said []string
	used = slices.Clone(used)
	for _, h := range hosts {
		used = append(used, h.Prefixes...)
	}
	for _, entry := range pools {
		if entry.Addr().Is6() != v6 {
			continue
		}
		said = append(said, entry.String())
		bits := chosenBits(entry)
		count := uint64(1) << min(bits-entry.Bits(), 62)
		start := uint64(0)
		if seed != "" {
			h := fnv.New64a()
			h.Write([]byte(seed)) // never fails
			start = h.Sum64() % count
		}
		if p, ok := firstFree(entry, bits, start, count, used); ok {
			return p, nil
		}
		if p, ok := firstFree(entry, bits, 0, start, used); ok {
			return p, nil
		}
	}
	if len(said) == 0 {
		return netip.Prefix{}, fmt.Errorf("no subnet to choose from: POOLS has none of %s; name one with --subnet", family(v6))
	}
	return netip.Prefix{}, fmt.Errorf("no subnet is free in %s (POOLS): each overlaps a network, a route or a name server of "+
		"this host, or a network of the cluster%s; name one with --subnet", strings.Join(said, ", "), blame(pools, v6, hosts))
}

// chosenBits is the length of a subnet that is chosen from an entry of POOLS.
func chosenBits(entry netip.Prefix) int {
	if entry.Addr().Is6() {
		return max(entry.Bits(), chosen6)
	}
	return max(entry.Bits(), chosen4)
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// firstFree looks at the subnets from number k up to but not including end. What is in the way is stepped over as a whole,
// so a large pool takes no longer than there are things in the way.
func firstFree(entry netip.Prefix, bits int, k, end uint64, used []netip.Prefix) (netip.Prefix, bool) {
	for k < end {
		p := nth(entry, bits, k)
		next := k
		for _, u := range used {
			if u.Bits() > 0 && p.Overlaps(u) { // a default route is in nobody's way
				over := uint64(1)
				if u.Bits() < bits {
					over = 1 << min(bits-u.Bits(), 62)
				}
				next = max(next, k/over*over+over)
			}
		}
		if next == k {
			return p, true
		}
		k = next
	}
	return netip.Prefix{}, false
}

// nth is the k-th subnet of that length in entry.
func nth(entry netip.Prefix, bits int, k uint64) netip.Prefix {
	if entry.Addr().Is4() {
		b := entry.Masked().Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(k<<(32-bits)))
		return netip.PrefixFrom(netip.AddrFrom4(b), bits)
	}
	b := entry.Masked().Addr().As16()
	shift := 128 - bits
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if shift >= 64 {
		hi |= k << (shift - 64)
	} else {
		lo |= k << shift
		hi |= k >> (64 - shift)
	}
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), bits)
}
