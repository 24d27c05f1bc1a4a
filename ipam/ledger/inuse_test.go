package ledger

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func prefixesOf(text string) []netip.Prefix {
	var all []netip.Prefix
	for word := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParsePrefix(word))
	}
	return all
}

func TestWhatIsToldIsWhatIsInTheWay(t *testing.T) {
	ranges := prefixesOf("10.192.0.0/10 fd50::/48 198.51.100.0/24")
	for _, test := range []struct{ what, used, want string }{
		{"nothing", "", ""},
		{"outside", "192.0.2.0/24 10.0.0.0/9 fd51::/64", ""},
		{"default routes", "0.0.0.0/0 ::/0", ""},
		{"all of it", "10.0.0.0/8", "10.192.0.0/10"},
		{"hosts and small routes count as the subnet they spoil", "10.192.17.9/32 10.192.18.0/24 fd50::1:0:0:0:7/128", "10.192.16.0/20 fd50:0:0:1::/64"},
		{"two halves", "10.192.0.0/20 10.192.16.0/20", "10.192.0.0/19"},
		{"four quarters", "10.192.48.0/20 10.192.0.0/20 10.192.32.0/20 10.192.16.0/20", "10.192.0.0/18"},
		{"neighbours that are no halves", "10.192.16.0/20 10.192.32.0/20", "10.192.16.0/20 10.192.32.0/20"},
		{"one inside another", "10.192.0.0/16 10.192.64.0/20", "10.192.0.0/16"},
		{"an entry that is a subnet itself", "198.51.100.64/26", "198.51.100.0/24"},
	} {
		var o occupied
		if got := o.look(time.Unix(0, 0), ranges, prefixesOf(test.used)); !slices.Equal(got, prefixesOf(test.want)) {
			t.Errorf("%s: %s, want %s", test.what, got, test.want)
		}
	}
}

// TestWhatIsToldIsBounded: of what is too much, more is told than is in use, and not less.
func TestWhatIsToldIsBounded(t *testing.T) {
	ranges := prefixesOf("10.192.0.0/10")
	var used []netip.Prefix
	for n := range 400 {
		used = append(used, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", 192+n/8%64, n%8*32)))
	}
	var o occupied
	got := o.look(time.Unix(0, 0), ranges, used)
	if len(got) > maxInUse || len(got) == 0 {
		t.Errorf("%d prefixes, want 1 to %d", len(got), maxInUse)
	}
	for _, u := range used {
		if !slices.ContainsFunc(got, func(p netip.Prefix) bool { return p.Bits() <= u.Bits() && p.Overlaps(u) }) {
			t.Errorf("%s is not told", u)
		}
	}
}

func TestRoutesThatFlapAreNoNews(t *testing.T) {
	ranges := prefixesOf("10.192.0.0/10")
	var o occupied
	now := time.Unix(0, 0)
	for range 50 {
		if got := o.look(now, ranges, prefixesOf("10.192.0.0/20")); len(got) != 1 {
			t.Fatalf("%s: %v while it is there", now, got)
		}
		now = now.Add(inUseKept / 2)
		if got := o.look(now, ranges, nil); len(got) != 1 {
			t.Fatalf("%s: %v a moment after it was there", now, got)
		}
		now = now.Add(time.Minute)
	}
	if got := o.look(now.Add(inUseKept), ranges, nil); len(got) != 0 {
		t.Errorf("%v long after it was there", got)
	}
}
