package ledger

import (
	"net/netip"
	"strings"
	"testing"
)

// contains fails a test whose error does not say that.
func contains(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestChooseEndsInASentence(t *testing.T) {
	pools := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/19"), netip.MustParsePrefix("198.51.100.0/24")}
	var used []netip.Prefix
	for _, want := range []string{"10.0.0.0/20", "10.0.16.0/20", "198.51.100.0/24"} {
		p, err := choose(pools, false, "", used, nil)
		if err != nil || p.String() != want {
			t.Fatalf("%s %v, want %s", p, err, want)
		}
		used = append(used, p)
	}
	_, err := choose(pools, false, "", used, nil)
	contains(t, err, "no subnet is free in 10.0.0.0/19, 198.51.100.0/24 (POOLS)", "--subnet")
	_, err = choose(pools, true, "", nil, nil)
	contains(t, err, "POOLS has none of IPv6")
	vast := []netip.Prefix{netip.MustParsePrefix("fd00::/8")}
	p, err := choose(vast, true, "seed", []netip.Prefix{netip.MustParsePrefix("fd00::/9"), netip.MustParsePrefix("fd80::/10"), netip.MustParsePrefix("fdc0::/64")}, nil)
	if err != nil || p.Bits() != 64 || p.Overlaps(netip.MustParsePrefix("fd00::/9")) || p.Overlaps(netip.MustParsePrefix("fd80::/10")) {
		t.Errorf("%s %v", p, err)
	}
	if _, err := choose(vast, true, "seed", vast, nil); err == nil {
		t.Error("a pool that is taken as a whole has room")
	}
}
