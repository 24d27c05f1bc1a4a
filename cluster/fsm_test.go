package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// dump is all that a state machine has.
func dump(t fatal, f *fsm) string {
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	var b bytes.Buffer
	if err := snap.(frozen).write(&b); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return b.String()
}

type fatal interface{ Fatalf(string, ...any) }

func command(t fatal, index uint64, e entry) *raft.Log {
	data, err := encodeEntry(e)
	if err != nil {
		t.Fatalf("entry: %v", err)
	}
	return &raft.Log{Type: raft.LogCommand, Index: index, Data: data}
}

// Copies of the log give the same facts, marks, remembered requests and answers, in whatever batches it comes, and also
// through a snapshot anywhere.
func TestStateMachineIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, batched, restored := newFSM(), newFSM(), newFSM()
		entries := rapid.IntRange(1, 30).Draw(t, "entries")
		moment := rapid.IntRange(0, entries-1).Draw(t, "snapshot after")
		var logs []*raft.Log
		var answers []any
		for i := range entries {
			e := entry{ID: fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "request")), Txn: genTxn(t, uint64(i+1))}
			logs = append(logs, command(t, uint64(i+2), e))
			answer := one.Apply(logs[i])
			answers = append(answers, answer)
			if i > moment {
				if got := restored.Apply(logs[i]); got != answer {
					t.Fatalf("entry %d: %+v after a snapshot, %+v without", i+2, got, answer)
				}
			}
			if i == moment {
				if err := restored.Restore(io.NopCloser(strings.NewReader(dump(t, one)))); err != nil {
					t.Fatalf("restore: %v", err)
				}
			}
		}
		if got := batched.ApplyBatch(logs); fmt.Sprint(got) != fmt.Sprint(answers) {
			t.Fatalf("answers of a batch %v, one by one %v", got, answers)
		}
		want := dump(t, one)
		for what, f := range map[string]*fsm{"in a batch": batched, "through a snapshot": restored} {
			if got := dump(t, f); got != want {
				t.Fatalf("%s:\n%s\nwant:\n%s", what, got, want)
			}
		}
		// The same log again, as raft gives it after a restart, changes nothing.
		one.ApplyBatch(logs)
		if got := dump(t, one); got != want {
			t.Fatalf("after the same log again:\n%s\nwant:\n%s", got, want)
		}
	})
}

func TestFactsAreSeenWhenTheyAreWhole(t *testing.T) {
	c := &Cluster{cfg: Config{Log: newMemKV()}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.cfg.Log.Apply(Write{Key: keyFloor, Value: []byte("5")}))
	for what, key := range map[string]string{"it is registered": "node/me", "it was forgotten": belowFenced + "me"} {
		f := newFSM()
		var err error
		f.whole, err = c.wholeFrom("me")
		must(err)
		for index, key := range []string{2: "network/a", 3: key, 4: "network/b", 5: "network/c", 6: "network/d"} {
			if key == "" {
				continue
			}
			f.Apply(command(t, uint64(index), entry{ID: fmt.Sprint(index), Txn: Txn{Then: []Op{{key, []byte(`{"v":1,"id":"me","name":"me"}`)}}}}))
			want := uint64(index)
			if index < 5 {
				want = 0
			}
			if got := f.view().Index(); got != want {
				t.Errorf("%s: after entry %d facts up to entry %d are seen, want %d", what, index, got, want)
			}
		}
	}
	strange := newFSM()
	strange.whole, _ = c.wholeFrom("another")
	strange.Apply(command(t, 7, entry{ID: "7", Txn: Txn{Then: []Op{{"node/me", []byte(`{"v":1,"id":"me"}`)}}}}))
	if got := strange.view().Index(); got != 0 {
		t.Errorf("facts up to entry %d are seen that do not show the node", got)
	}
	must(c.cfg.Log.Apply(Write{Key: keyFloor, Value: []byte("x")}))
	if _, err := c.wholeFrom("me"); !errors.Is(err, errRenew) {
		t.Errorf("a damaged floor: %v", err)
	}
}

func TestRepeatedRequestHasTheFirstResult(t *testing.T) {
	f := newFSM()
	e := entry{ID: "r", Txn: Txn{If: []Cond{{"n", 1}}, Then: []Op{{"n", []byte("1")}}}}
	first := f.Apply(command(t, 2, e))
	if first != (result{Index: 2}) {
		t.Fatalf("first: %+v", first)
	}
	f.Apply(command(t, 3, entry{ID: "other", Txn: Txn{Then: []Op{{"n", []byte("2")}}}}))
	if again := f.Apply(command(t, 4, e)); again != first {
		t.Errorf("again: %+v, want %+v", again, first)
	}
	if got, _ := f.view().Get("n"); string(got.Value) != "2" {
		t.Errorf("the repeated request was applied again: %s", got.Value)
	}
	for i := range rememberedRequests {
		f.Apply(command(t, uint64(5+i), entry{ID: fmt.Sprint(i)}))
	}
	if len(f.seen) != rememberedRequests || len(f.order) != rememberedRequests {
		t.Errorf("%d requests are remembered, want %d", len(f.seen), rememberedRequests)
	}
	if _, ok := f.seen["r"]; ok {
		t.Error("the oldest request is still remembered")
	}
}

func TestStateMachineStopsAtWhatItDoesNotKnow(t *testing.T) {
	for what, data := range map[string]string{
		"version":   `{"v":2,"id":"x","txn":{"then":[{"key":"a","value":"Mg=="}]}}`,
		"field":     `{"v":1,"id":"x","txn":{"then":[{"key":"a","value":"Mg=="}],"unless":[]}}`,
		"condition": `{"v":1,"id":"x","txn":{"if":[{"key":"a","below":3}],"then":[]}}`,
		"rubbish":   `xyz`,
	} {
		f := newFSM()
		f.Apply(command(t, 2, entry{ID: "1", Txn: Txn{Then: []Op{{"a", []byte("1")}}}}))
		var halt haltedError
		if err, _ := f.Apply(&raft.Log{Type: raft.LogCommand, Index: 3, Data: []byte(data)}).(error); !errors.As(err, &halt) {
			t.Errorf("%s: answer %v", what, err)
		}
		if err, _ := f.Apply(command(t, 4, entry{ID: "2", Txn: Txn{Then: []Op{{"a", []byte("3")}}}})).(error); !errors.As(err, &halt) {
			t.Errorf("%s: a later entry was applied: %v", what, err)
		}
		if got, _ := f.view().Get("a"); string(got.Value) != "1" || f.view().Index() != 2 {
			t.Errorf("%s: the view has changed: %s at %d", what, got.Value, f.view().Index())
		}
		if _, err := f.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot was made", what)
		}
		if !strings.Contains(f.halted(), "entry 3") {
			t.Errorf("%s: %q does not name the entry", what, f.halted())
		}
	}
}

func TestSnapshotOfANewerVersionStopsAndKeepsTheFacts(t *testing.T) {
	f := newFSM()
	f.Apply(command(t, 2, entry{ID: "1", Txn: Txn{Then: []Op{{"a", []byte("1")}}}}))
	if err := f.Restore(io.NopCloser(strings.NewReader(`{"v":2,"last":9,"things":1}` + "\n" + `{}`))); err != nil {
		t.Fatalf("raft would try again for ever: %v", err)
	}
	if got, _ := f.view().Get("a"); string(got.Value) != "1" || !strings.Contains(f.halted(), "format version 2") {
		t.Errorf("a is %q, halted: %q", got.Value, f.halted())
	}
}

func TestDamagedSnapshotIsAnError(t *testing.T) {
	whole := newFSM()
	whole.Apply(command(t, 2, entry{ID: "1", Txn: Txn{Then: []Op{{"a", []byte("1")}}}}))
	content := dump(t, whole)
	for i := range len(content) - 1 {
		f := newFSM()
		err := f.Restore(io.NopCloser(strings.NewReader(content[:i])))
		if err == nil && f.halted() == "" {
			t.Errorf("cut after %d of %d bytes: restored", i, len(content))
		}
		if f.view().Index() != 0 {
			t.Errorf("cut after %d of %d bytes: the view has something of it", i, len(content))
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"x","txn":{"if":[{"key":"a","index":3}],"then":[{"key":"a","value":"Mg=="},{"key":"b","value":null}]}}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err != nil {
			return
		}
		again, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := decodeEntry(again); err != nil || fmt.Sprint(twice) != fmt.Sprint(e) {
			t.Errorf("%+v became %+v, %v", e, twice, err)
		}
	})
}
