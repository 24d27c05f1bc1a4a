package ledger

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// disk is a store in memory.
type disk map[string][]byte

func (d disk) read(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var keys []string
		for key := range d {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			if !yield(key, d[key]) {
				return
			}
		}
	}
}

// finish does what a move wants, on a host without a cluster.
func (d disk) finish(t *testing.T, at Moment, m Move) (Answer, error) {
	t.Helper()
	for m.Kind != Done {
		if m.Kind != Write {
			t.Fatalf("a move of kind %d", m.Kind)
		}
		for _, w := range m.Writes {
			if d[w.Key] = w.Value; w.Value == nil {
				delete(d, w.Key)
			}
		}
		for _, below := range m.Drop {
			for key := range d {
				if strings.HasPrefix(key, below) {
					delete(d, key)
				}
			}
		}
		m = m.Next(at, nil)
	}
	return m.Answer, m.Err
}

// FuzzLoad begins with a store in which one record is anything at all. A ledger that takes it goes on giving out addresses that
// nobody has.
func FuzzLoad(f *testing.F) {
	at := Moment{Now: time.Unix(1e9, 0)}
	sound := disk{}
	const pool = LocalSpace + "|10.0.0.0/28|"
	used := netip.MustParseAddr("10.0.0.5")
	rec := poolRecord{Version: recordVersion, ID: pool, Space: LocalSpace, Prefix: netip.MustParsePrefix("10.0.0.0/28"), Network: "network"}
	rec.Subnet.Prefix = rec.Prefix
	for _, w := range writes(
		putPool(rec), putLease(leaseRecord{Version: recordVersion, Pool: pool, Addr: used, Endpoint: "endpoint"}),
		putRest(restRecord{recordVersion, pool, used.Next()}), putNext(nextRecord{recordVersion, pool, rec.Prefix, used}),
		putCarve(carveRecord{recordVersion, pool, used.Prev(), 3, 4}), putBlock(blockRecord{Version: recordVersion, Pool: pool, Prefix: rec.Prefix, Node: "node", Index: 2}),
		Damaged(),
	) {
		f.Add(w.Key, w.Value)
		if w.Key != KeyDamaged {
			sound[w.Key] = w.Value
		}
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		d := disk{}
		maps.Copy(d, sound)
		if sound[key] != nil && (strings.HasPrefix(key, belowPool) || strings.HasPrefix(key, belowLease)) {
			return // without the sound one nothing says who has what
		}
		d[key] = value
		l, err := New(d.read, nil, QuietTime, at)
		if err != nil {
			return // it is refused, with the key
		}
		l.Status(at)
		l.Survey(at)
		for range 20 {
			answer, err := d.finish(t, at, l.RequestAddress(at, pool, "", nil))
			if err != nil {
				break
			}
			if answer.Prefix.Addr() == used {
				t.Fatalf("%s is given twice", used)
			}
		}
		if _, err := d.finish(t, at, l.Sweep(at)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.finish(t, at, l.Unbind(at, "network")); err != nil {
			t.Fatal(err)
		}
		for k := range d {
			if strings.Contains(k, pool) && sound[k] != nil {
				t.Fatalf("%s is left behind", k)
			}
		}
	})
}
