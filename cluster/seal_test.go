package cluster

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func testSealer(t testing.TB) *sealer {
	t.Helper()
	s, err := newSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testOpener(t testing.TB, from *sealer) *opener {
	t.Helper()
	o, err := newOpener(from.key, from.life)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestSealOpensOnceForOne(t *testing.T) {
	from, to, other := testSealer(t), testSealer(t), testSealer(t)
	packet := from.seal(to.life, []byte("hello"))
	if want := packetOverhead + len("hello"); len(packet) != want {
		t.Errorf("%d bytes, want %d", len(packet), want)
	}
	o := testOpener(t, from)
	if _, err := o.open(other.life, bytes.Clone(packet)); err == nil {
		t.Error("another node, or this one after a restart, could open it")
	}
	if got, err := o.open(to.life, bytes.Clone(packet)); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := o.open(to.life, bytes.Clone(packet)); err == nil {
		t.Error("it could be opened twice")
	}
	packet = from.seal(to.life, nil)
	for bit := range 8 * len(packet) {
		broken := bytes.Clone(packet)
		broken[bit/8] ^= 1 << (bit % 8)
		life, err := senderOf(broken)
		if err == nil && life == from.life {
			_, err = o.open(to.life, broken)
			if err == nil {
				t.Fatalf("bit %d was flipped, and it could be opened", bit)
			}
		}
	}
	if got, err := o.open(to.life, packet); err != nil || len(got) != 0 {
		t.Errorf("after that the true one: %q, %v", got, err)
	}
}

// The window agrees with a memory that forgets nothing, but for what is old.
func TestWindowAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		seen := map[uint64]bool{}
		newest := uint64(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			n := rapid.OneOf(
				rapid.Uint64Range(newest-min(newest, 2*packetWindow), newest+100), rapid.Uint64Range(newest, newest+3*packetWindow),
			).Draw(t, "number")
			old := n+packetWindow-64 <= newest
			if got, want := w.fresh(n), !seen[n] && !old; got != want && n > 0 {
				t.Fatalf("%d after %d: fresh is %v, want %v", n, newest, got, want)
			}
			if w.fresh(n) {
				w.add(n)
				seen[n] = true
				newest = max(newest, n)
			}
		}
	})
}
