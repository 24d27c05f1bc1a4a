package cluster

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// The log in a KV does what raft's own in memory does, also after it was opened again.
func TestLogStoreAgreesWithRafts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kv, model := newMemKV(), raft.NewInmemStore()
		s, err := openRaftStore(kv)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			first, _ := model.FirstIndex()
			last, _ := model.LastIndex()
			step := rapid.IntRange(0, 3).Draw(t, "step")
			if last == 0 { // raft's own does not like to delete from nothing
				step = 0
			}
			switch step {
			case 0, 1:
				var logs []*raft.Log
				for i := range rapid.IntRange(1, 5).Draw(t, "entries") {
					logs = append(logs, &raft.Log{
						Index: last + 1 + uint64(i), Term: uint64(rapid.IntRange(1, 9).Draw(t, "term")),
						Type: raft.LogType(rapid.IntRange(0, 5).Draw(t, "type")), Data: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "data"),
						Extensions: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "extensions"), AppendedAt: time.Unix(int64(last), 5),
					})
				}
				check(t, s.StoreLogs(logs), model.StoreLogs(logs))
			case 2: // the beginning
				to := uint64(rapid.IntRange(int(first), int(last)).Draw(t, "to"))
				check(t, s.DeleteRange(first, to), model.DeleteRange(first, to))
			case 3: // the end
				from := uint64(rapid.IntRange(int(first), int(last)).Draw(t, "from"))
				check(t, s.DeleteRange(from, last), model.DeleteRange(from, last))
			}
			if rapid.Bool().Draw(t, "reopen") {
				if s, err = openRaftStore(kv); err != nil {
					t.Fatal(err)
				}
			}
			sameLog(t, s, model)
		}
	})
}

func check(t *rapid.T, errs ...error) {
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func sameLog(t *rapid.T, s, model raft.LogStore) {
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	wantLast, _ := model.LastIndex()
	wantFirst, _ := model.FirstIndex()
	if wantFirst > wantLast { // raft's keeps its bounds when it becomes empty
		wantFirst, wantLast = 0, 0
	}
	if first != wantFirst || last != wantLast {
		t.Fatalf("entries %d to %d, want %d to %d", first, last, wantFirst, wantLast)
	}
	for index := first; index != 0 && index <= last; index++ {
		var got, want raft.Log
		check(t, s.GetLog(index, &got), model.GetLog(index, &want))
		if got.Term != want.Term || got.Type != want.Type || string(got.Data) != string(want.Data) ||
			string(got.Extensions) != string(want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			t.Fatalf("entry %d is %+v, want %+v", index, got, want)
		}
	}
}

func TestLogBehindASnapshotHasNoHole(t *testing.T) {
	kv := newMemKV()
	s, err := openRaftStore(kv)
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []uint64{1, 2, 9} {
		if err := s.StoreLog(&raft.Log{Index: index, Term: 1}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := openRaftStore(kv)
	if err != nil {
		t.Fatal(err)
	}
	if again.first != 9 || again.last != 9 {
		t.Errorf("entries %d to %d, want 9 alone", again.first, again.last)
	}
}

func TestStableStore(t *testing.T) {
	kv := newMemKV()
	s, err := openRaftStore(kv)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get([]byte("x")); err == nil || err.Error() != "not found" {
		t.Errorf("missing key: %v", err)
	}
	if err := errors.Join(s.Set([]byte("x"), []byte("y")), s.SetUint64([]byte(termKey), 7)); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Get([]byte("x")); err != nil || string(v) != "y" {
		t.Errorf("get: %q, %v", v, err)
	}
	if v, err := s.GetUint64([]byte(termKey)); err != nil || v != 7 {
		t.Errorf("get number: %d, %v", v, err)
	}
	// Raft panics when the term cannot be saved: it must be held instead.
	var held error
	s.failed = func(err error) { held = err }
	kv.fail(errors.New("no space"))
	if err := s.SetUint64([]byte(termKey), 8); err != nil || held == nil {
		t.Errorf("term: %v, held for %v", err, held)
	}
	if err := s.SetUint64([]byte("LastVoteTerm"), 8); err == nil {
		t.Error("a vote that is not on disk is given")
	}
}

func TestDamagedLogIsFound(t *testing.T) {
	fill := func() *memKV {
		kv := newMemKV()
		s, err := openRaftStore(kv)
		if err != nil {
			t.Fatal(err)
		}
		for index := range uint64(5) {
			if err := s.StoreLog(&raft.Log{Index: index + 1, Term: 1, Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		return kv
	}
	for what, damage := range map[string]func(map[string][]byte){
		"hole":         func(d map[string][]byte) { delete(d, logKey(3)) },
		"other index":  func(d map[string][]byte) { d[logKey(3)] = d[logKey(4)] },
		"short":        func(d map[string][]byte) { d[logKey(3)] = d[logKey(3)][:7] },
		"key":          func(d map[string][]byte) { d[prefixLog+"x"] = d[logKey(3)] },
		"length":       func(d map[string][]byte) { v := slices.Clone(d[logKey(3)]); v[26] = 255; d[logKey(3)] = v },
		"newer format": func(d map[string][]byte) { v := slices.Clone(d[logKey(3)]); v[0] = 2; d[logKey(3)] = v },
	} {
		kv := fill()
		damage(kv.data)
		_, err := openRaftStore(kv)
		if err == nil {
			t.Errorf("%s: not found", what)
		}
		if newer := what == "newer format"; errors.Is(err, errNewer) != newer {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzDecodeLog(f *testing.F) {
	f.Add(encodeLog(&raft.Log{Index: 3, Term: 2, Data: []byte("data"), Extensions: []byte("e"), AppendedAt: time.Unix(1, 2)}))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var log raft.Log
		if decodeLog(data, &log) != nil {
			return
		}
		var again raft.Log
		if err := decodeLog(encodeLog(&log), &again); err != nil || fmt.Sprint(again) != fmt.Sprint(log) {
			t.Errorf("%+v became %+v, %v", log, again, err)
		}
	})
}
