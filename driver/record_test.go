package driver

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/carricknet/carrick/kernel"
)

func TestRecordKeepsMACAndAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Endpoint{Version: recordVersion, MAC: kernel.MAC{2, rapid.Byte().Draw(t, "mac"), 3, 4, 5, 6}}
		for range rapid.IntRange(0, maxAddrs).Draw(t, "addrs") {
			if rapid.Bool().Draw(t, "v6") {
				a := [16]byte{0xfd, 15: rapid.Byte().Draw(t, "low")}
				want.Addrs = append(want.Addrs, netip.PrefixFrom(netip.AddrFrom16(a), rapid.IntRange(1, 128).Draw(t, "bits")))
				continue
			}
			a := [4]byte{10, rapid.Byte().Draw(t, "b"), 0, 1}
			want.Addrs = append(want.Addrs, netip.PrefixFrom(netip.AddrFrom4(a), rapid.IntRange(1, 32).Draw(t, "bits")))
		}
		got, err := decodeRecord(encodeRecord(want))
		if err != nil || got.MAC != want.MAC || !slices.Equal(got.Addrs, want.Addrs) {
			t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
		}
	})
}

func TestRecordOnTheWireStaysAsItIs(t *testing.T) {
	e := Endpoint{MAC: kernel.MAC{2, 0x42, 10, 1, 0, 3}, Addrs: []netip.Prefix{netip.MustParsePrefix("10.1.0.3/24")}}
	want := []byte{1, 2, 0x42, 10, 1, 0, 3, 1, 24, 4, 10, 1, 0, 3}
	if got := encodeRecord(e); !slices.Equal(got, want) {
		t.Errorf("encoded %x, hosts of other versions expect %x", got, want)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(encodeRecord(Endpoint{MAC: kernel.MAC{2}, Addrs: []netip.Prefix{netip.MustParsePrefix("fd00::3/64")}}))
	f.Add([]byte{1, 2, 0, 0, 0, 0, 0, 1, 24})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := decodeRecord(encodeRecord(e))
		if err != nil || again.MAC != e.MAC || !slices.Equal(again.Addrs, e.Addrs) {
			t.Errorf("%x: %+v became %+v, %v", b, e, again, err)
		}
	})
}
