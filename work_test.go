package main

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestOnePluginOnAHost(t *testing.T) {
	dir := t.TempDir()
	first, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil {
		t.Error("a second plugin would take the first one's networks away")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(dir)
	if err != nil {
		t.Fatal("after the end of the first: ", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestAddressThatIsGoneIsFollowed(t *testing.T) {
	was, vpn, next := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.8.0.2"), netip.MustParseAddr("192.0.2.9")
	none := errors.New("none")
	type look struct {
		still bool       // the host has its address
		best  netip.Addr // zero: none
	}
	looks := []look{
		{true, was}, {true, vpn}, {true, vpn}, // would be chosen now, but ours is there
		{false, netip.Addr{}}, {false, next}, {true, was}, // a lease that is renewed
		{false, next}, {false, next},
	}
	n := 0
	find := func(spec string) (netip.Addr, error) {
		now := looks[n]
		if spec == was.String() {
			if now.still {
				return was, nil
			}
			return netip.Addr{}, none
		}
		n++
		if !now.best.IsValid() {
			return netip.Addr{}, none
		}
		return now.best, nil
	}
	err := followAddress(t.Context(), time.Millisecond, was, "", find)
	if want := "the address of this host has changed: it was 192.0.2.1 and is 192.0.2.9"; !errors.Is(err, errMoved) || err.Error() != want || n != len(looks) {
		t.Errorf("after %d looks of %d: %v, want %q", n, len(looks), err, want)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := followAddress(ended, time.Hour, was, "", find); err != nil {
		t.Errorf("at the end: %v", err)
	}
}
