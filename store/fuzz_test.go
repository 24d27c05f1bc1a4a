package store

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// FuzzRecovery opens a store of two files and a mark: it says the same when it is opened twice, and can be written.
func FuzzRecovery(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "leases")
	example(f, dir)
	lock := read(f, filepath.Join(dir, lockName))
	f.Add(read(f, filepath.Join(dir, "journal-3")), read(f, filepath.Join(dir, "snapshot-3")), lock)
	f.Add(read(f, filepath.Join(dir, "journal-2")), read(f, filepath.Join(dir, "snapshot-2")), lock)
	f.Add(read(f, "testdata/version1/journal-3"), read(f, "testdata/version1/snapshot-3"), []byte{})
	f.Add([]byte{}, []byte{}, []byte("x"))
	id := newIdentity(dir)
	f.Add(fileHeader{kind: startFile, gen: 3, aside: 1, note: "damaged", id: id, chain: id.chain()}.encode(), []byte("x"), []byte{})
	bad, _ := appendRecord(fileHeader{kind: startFile, gen: 3, id: id, chain: id.chain()}.encode(), 1, id.chain(), []byte{0xff, 0xff, 0x01})
	f.Add(bad, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, journal, snapshot, lock []byte) {
		for _, right := range []bool{false, true} { // as it comes, and with the header's checksum made right
			dir := filepath.Join(t.TempDir(), "leases")
			if right && len(journal) >= fileHeaderSize && binary.LittleEndian.Uint32(journal[fileHeaderSize-8:]) <= uint32(len(journal)-fileHeaderSize) {
				journal = resum(bytes.Clone(journal))
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, b := range map[string][]byte{"journal-3": journal, "snapshot-3": snapshot, lockName: lock} {
				put(t, filepath.Join(dir, name), b)
			}
			reopen := func() *Store {
				s, err := open(dir, fastDisk)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := reopen()
			got, damage := contents(s), s.Damage()
			s.Close()
			s = reopen()
			if again := contents(s); !maps.Equal(got, again) || s.Damage() != damage {
				t.Fatalf("opened twice: %v %q, then %v %q", got, damage, again, s.Damage())
			}
			mustApply(t, s, set("k", "v"))
			s.Close()
			s = reopen()
			if value, ok := s.Get("k"); !ok || string(value) != "v" || s.Damage() != "" {
				t.Fatalf("written after recovery: %q %v, damage %q", value, ok, s.Damage())
			}
			s.Close()
		}
	})
}

// FuzzFileHeader: what is read is what was written.
func FuzzFileHeader(f *testing.F) {
	f.Add(fileHeader{kind: snapshotFile, gen: 1, seq: 2, count: 3, aside: 4, id: newIdentity("x"), chain: 5, note: "note"}.encode())
	f.Add(read(f, "testdata/version1/journal-2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, trust := range []bool{false, true} {
			h, size, err := decodeFileHeader(b, trust)
			if err == nil && !trust && h.version == formatVersion && !bytes.Equal(h.encode(), b[:size]) {
				t.Errorf("%+v is written in another way than it was read", h)
			}
		}
	})
}

// FuzzRecords: reading comes to an end, whether checksums are compared or not.
func FuzzRecords(f *testing.F) {
	one, chain := appendRecord(nil, 1, 7, []byte("one"))
	two, _ := appendRecord(one, 2, chain, nil)
	f.Add(two, uint32(7))
	f.Add(two[:len(two)-9], uint32(7))
	f.Add(make([]byte, 100), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, chain uint32) {
		for _, version := range []uint32{oldVersion, formatVersion} {
			for _, trust := range []bool{false, true} {
				r := records{b: b, version: version, chain: chain, trust: trust}
				for before := 0; ; before = r.at {
					seq, payload, err := r.next()
					if err != nil {
						break
					}
					if r.at <= before || r.at > len(b) {
						t.Fatalf("from byte %d to %d of %d", before, r.at, len(b))
					}
					if again, _ := appendRecord(nil, seq, chain, payload); version == formatVersion && !trust && before == 0 && !bytes.Equal(again, b[:r.at]) {
						t.Error("a record is written in another way than it was read")
					}
				}
			}
		}
	})
}

// FuzzWrites: what is read, written and read again is the same.
func FuzzWrites(f *testing.F) {
	f.Add(appendWrite(appendWrite(nil, set("key", "value")), Write{Key: "deleted"}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, payload []byte) {
		all := func(payload []byte) (all []Write, err error) {
			err = decodeWrites(payload, func(w Write) { all = append(all, w) })
			return all, err
		}
		first, err := all(payload)
		if err != nil {
			return
		}
		var again []byte
		for _, w := range first {
			again = appendWrite(again, w)
		}
		second, err := all(again)
		same := func(a, b Write) bool {
			return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil)
		}
		if err != nil || !slices.EqualFunc(first, second, same) {
			t.Errorf("%v became %v, %v", first, second, err)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add(mark{newIdentity("x"), 3, 4, boot{5}}.encode())
	f.Add(make([]byte, markSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMark(b, false); err == nil && m != nil && !bytes.Equal(m.encode(), b) {
			t.Errorf("%+v is written in another way than it was read", m)
		}
		if m, err := decodeMark(b, true); m == nil && err == nil && slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			t.Error("something is taken for nothing")
		}
	})
}
