package cluster

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var goldenHints = []hint{
	{rowKey{"0123456789ab", "00112233445566778899aabbccddeeff"}, version{1<<24 | 7, 300}},
	{rowKey{"blue", "ABCDEF"}, version{1, 2}},
}

// The formats are frozen: nodes of different versions talk to each other. A test that fails here wants a new format
// version, not a new golden.
func TestWireGolden(t *testing.T) {
	m := meta{cluster: "c1", name: "alpha", port: 7947, epoch: 1<<24 | 7, life: 300}
	var hints, wants, digests, changes encoder
	hints = append(hints, hintsVersion)
	for _, h := range goldenHints {
		hints.hint(h)
	}
	wants.want(want{"0123456789ab", version{5, 6}})
	digests.digest(digest{"0123456789ab", 0x1122334455667788})
	changes.change(change{"aabb", []byte("v")})
	changes.change(change{"k", []byte{}})
	changes.change(change{"gone", nil})
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"hints":   {hints, "01" + "0d0123456789ab" + "21" + "00112233445566778899aabbccddeeff" + "87808008" + "ac02" + "08626c7565" + "0c414243444546" + "01" + "02"},
		"meta":    {m.encode(), "01" + "026331" + "05616c706861" + "8b3e" + "87808008" + "ac02"},
		"hello":   {hello{m, netip.MustParseAddrPort("192.0.2.1:7946"), 9, nil, nil}.encode(), "12" + "01" + "026331" + "05616c706861" + "8b3e" + "87808008" + "ac02" + "04c0000201" + "8a3e" + "09" + "00" + "00"},
		"wants":   {wants, "0d0123456789ab" + "05" + "06"},
		"digests": {digests, "0d0123456789ab" + "1122334455667788"},
		"row":     {encodeRow(delta{network: "blue", kind: deltaChanges, from: 3, to: version{1, 9}, changes: make([]change, 2)}), "08626c7565" + "03" + "03" + "01" + "09" + "02"},
		"changes": {changes, "05aabb" + "02" + "76" + "026b" + "01" + "08676f6e65" + "00"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestWireThereAndBack(t *testing.T) {
	name := rapid.OneOf(rapid.StringMatching(`[0-9a-f]{1,40}`), rapid.StringN(1, 60, maxKey))
	rapid.Check(t, func(t *rapid.T) {
		h := hint{rowKey{name.Draw(t, "network"), name.Draw(t, "origin")}, version{rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "seq")}}
		e := encoder{hintsVersion}
		e.hint(h)
		e.hint(h)
		if got, err := decodeHints(e); err != nil || len(got) != 2 || got[0] != h || got[1] != h {
			t.Fatalf("hint %+v: got %+v, %v", h, got, err)
		}
		for cut := 2; cut < len(e); cut++ {
			if got, err := decodeHints(e[:cut]); err == nil && len(got) != 1 {
				t.Fatalf("%d hints of %x", len(got), e[:cut])
			}
		}
		c := change{key: name.Draw(t, "key")}
		if rapid.Bool().Draw(t, "set") {
			c.value = append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")...)
		}
		var ce encoder
		ce.change(c)
		d := decoder{rest: ce}
		if got := d.change(); d.err != nil || !reflect.DeepEqual(got, c) || d.more() {
			t.Fatalf("change %+v: got %+v, %v", c, got, d.err)
		}
		m := meta{name.Draw(t, "cluster"), name.Draw(t, "name"), rapid.Uint16().Draw(t, "port"), rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "life")}
		if got, err := decodeMeta(append(m.encode(), "added later"...)); err != nil || got != m {
			t.Fatalf("meta %+v: got %+v, %v", m, got, err)
		}
		addr := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
		if rapid.Bool().Draw(t, "ipv6") {
			addr = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr")))
		}
		hi := hello{m, netip.AddrPortFrom(addr, m.port), rapid.Uint64().Draw(t, "remembered"), []byte{1, 2}, []byte{3}}
		if got, err := decodeHello(append(hi.encode(), "added later"...)); err != nil || !reflect.DeepEqual(got, hi) {
			t.Fatalf("hello %+v: got %+v, %v", hi, got, err)
		}
		older := len(hi.encode()) - len(hi.mark) - len(hi.recalled) - 2
		hi.mark, hi.recalled = nil, nil
		if got, err := decodeHello(hi.encode()[:older]); err != nil || !reflect.DeepEqual(got, hi) {
			t.Fatalf("hello of an older version %+v: got %+v, %v", hi, got, err)
		}
	})
}

func TestWireRefuses(t *testing.T) {
	long := func(s string, n int) (e encoder) { e.text(strings.Repeat(s, n)); return e }
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"hints of a newer version":           {errOf(decodeHints([]byte{9, 1, 2, 3})), "format version 9, this node knows 1"},
		"an empty datagram":                  {errOf(decodeHints(nil)), "cut off"},
		"a node of a newer version":          {errOf(decodeMeta([]byte{9})), "format version 9, this node knows 1"},
		"a port beyond 65535":                {errOf(decodeMeta(append([]byte{metaVersion, 0, 0}, 0xff, 0xff, 0x7f, 1))), "port"},
		"hello without an address":           {errOf(decodeHello(append(long("x", 3), 0, 1, 1))), "no address"},
		"an empty name":                      {errOf(decodeWants([]byte{0, 1, 1})), "a name of 0 bytes"},
		"a name that is too long":            {errOf(decodeWants(append([]byte{0x80, 0x04}, make([]byte, 300)...))), "a name of 256 bytes"},
		"more changes than a row can have":   {errRow([]byte{2, 'n', byte(deltaFull), 0, 1, 1, 0xff, 0xff, 0xff, 0x7f}), "changes"},
		"changes in a row that is not there": {errRow([]byte{2, 'n', byte(deltaAbsent), 0, 1, 1, 1}), "1 changes"},
		"a row of an unknown kind":           {errRow([]byte{2, 'n', 9, 0, 1, 1, 0}), "kind 9"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, c.err, c.says)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func errRow(b []byte) error { _, _, err := decodeRow(b); return err }

// FuzzDecode gives every decoder the same bytes: none may panic, or allocate more than a small multiple of them, and what
// is understood means the same when it is encoded and decoded again.
func FuzzDecode(f *testing.F) {
	e := encoder{hintsVersion}
	for _, h := range goldenHints {
		e.hint(h)
	}
	f.Add([]byte(e))
	f.Add(meta{"c", "n", 1, 2, 3}.encode())
	f.Add(hello{meta{"c", "n", 1, 2, 3}, netip.MustParseAddrPort("[2001:db8::1]:1"), 3, nil, nil}.encode())
	f.Add(encodeRow(delta{network: "n", kind: deltaFull, to: version{1, 2}, changes: make([]change, 3)}))
	f.Fuzz(func(t *testing.T, in []byte) {
		if hints, err := decodeHints(in); err == nil {
			e := encoder{hintsVersion}
			for _, h := range hints {
				e.hint(h)
			}
			if again, err := decodeHints(e); err != nil || !reflect.DeepEqual(again, hints) {
				t.Fatalf("%v became %v, %v", hints, again, err)
			}
		}
		if m, err := decodeMeta(in); err == nil {
			if again, err := decodeMeta(m.encode()); err != nil || again != m {
				t.Fatalf("%v became %v, %v", m, again, err)
			}
		}
		if h, err := decodeHello(in); err == nil {
			if again, err := decodeHello(h.encode()); err != nil || string(again.encode()) != string(h.encode()) {
				t.Fatalf("%v became %v, %v", h, again, err)
			}
		}
		if r, n, err := decodeRow(in); err == nil && r.kind <= deltaAbsent && n > 0 {
			t.Fatalf("%+v has %d changes", r, n)
		}
		if wants, err := decodeWants(in); err == nil && len(wants) > len(in) {
			t.Fatalf("%d wants of %d bytes", len(wants), len(in))
		}
		if digests, err := decodeDigests(in); err == nil && len(digests) > len(in)/8 {
			t.Fatalf("%d digests of %d bytes", len(digests), len(in))
		}
		for d := (decoder{rest: in}); d.more(); {
			before := in[len(in)-len(d.rest):]
			c := d.change()
			if d.err != nil {
				break
			}
			var e encoder
			e.change(c)
			again := decoder{rest: e}
			if got := again.change(); got.key != c.key || !bytes.Equal(got.value, c.value) || (got.value == nil) != (c.value == nil) {
				t.Fatalf("%x: %v became %v", before, c, got)
			}
		}
	})
}
