package cluster

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// planned applies what a plan says, as the node that made it from the view old.
func planned(t *testing.T, now *View, old View, node string, txn Txn, err error) error {
	t.Helper()
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	next, err := now.Apply(txn.By(node, old))
	if err == nil {
		*now = next
	}
	return err
}

func keysOf(v View, prefix string) string {
	var keys []string
	for f := range v.Prefix(prefix) {
		keys = append(keys, f.Key)
	}
	return strings.Join(keys, " ")
}

// A node leaves by an old view, in which a block is still its own that another has since, or one is not yet.
func TestLeavingByAnOldViewTakesNothingFromOthers(t *testing.T) {
	for _, c := range []struct{ what, meanwhile, value string }{
		{"its block has been given to another", "block/net/10.0.0.0/28", `{"v":1,"node":"b"}`},
		{"it has got one more", "block/net/10.0.0.16/28", `{"v":1,"node":"a"}`},
		{"its address is asked for by another", "want/net/10.0.0.3", `{"v":1,"node":"b"}`},
		{"it asks", "want/net/10.0.0.99", `{"v":1,"node":"a"}`},
	} {
		t.Run(c.what, func(t *testing.T) {
			now, _ := attending(t, "a", "b")
			give(t, now, "block/net/10.0.0.0/28", `{"v":1,"node":"a"}`)
			give(t, now, "want/net/10.0.0.3", `{"v":1,"node":"a","denied":"no"}`)
			old := *now
			give(t, now, c.meanwhile, c.value)
			if err := planned(t, now, old, "a", PlanLeave(old, "net", "a"), nil); err == nil {
				t.Error("it has left by what is no more")
			}
			if err := planned(t, now, *now, "a", PlanLeave(*now, "net", "a"), nil); err != nil {
				t.Fatal(err)
			}
			for f := range now.Prefix("") {
				if f.Key == "attend/net/a" || strings.Contains(string(f.Value), `"a"`) {
					t.Errorf("left behind: %s %s", f.Key, f.Value)
				}
			}
			if strings.Contains(c.value, `"b"`) {
				if _, ok := now.Get(c.meanwhile); !ok {
					t.Errorf("%s of the other is gone", c.meanwhile)
				}
			}
		})
	}
}

func give(t *testing.T, now *View, key, value string) {
	t.Helper()
	next, err := now.Apply(Txn{Then: []Op{{key, []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	*now = next
}

func TestNothingOfAForgottenNodeStays(t *testing.T) {
	now, _ := attending(t, "a", "b")
	for key, value := range map[string]string{
		"node/a": `{"v":1,"name":"n"}`, "block/net/10.0.0.0/28": `{"v":1,"node":"a"}`, "want/net/10.0.0.99": `{"v":1,"node":"a"}`,
		// It is not in this network any more.
		"attend/other/b": "{}", "block/other/10.1.0.0/28": `{"v":1,"node":"a"}`, "want/other/10.1.0.99": `{"v":1,"node":"a","denied":"no"}`,
		"want/net/10.0.0.3": `{"v":1,"node":"b"}`, "attend/alone/a": "{}", "network/alone": "{}", "block/alone/x": "newer",
	} {
		give(t, now, key, value)
	}
	old := *now
	txn, err := PlanForget(old, "a")
	if err := planned(t, now, old, "b", txn, err); err != nil {
		t.Fatal(err)
	}
	if got, want := keysOf(*now, ""), "attend/net/b attend/other/b forgotten/a want/net/10.0.0.3"; got != want {
		t.Errorf("there is %s, want %s", got, want)
	}
	if txn, err := PlanForget(*now, "a"); err != nil || len(txn.Then) > 0 {
		t.Errorf("forgotten again: %v, %v", txn, err)
	}
	if how, fenced := now.Fenced("a"); !fenced || how != "forgotten" {
		t.Errorf("fenced: %v %q", fenced, how)
	}
	if _, err := now.Apply((Txn{Then: []Op{{"x", []byte("1")}}}).By("a", old)); err == nil {
		t.Error("the forgotten one writes by its old view")
	}
}

// The owner answers a question after its asker has left, or asked anew, or after the block has become another's.
func TestOnlyOpenQuestionsAreAnswered(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.3")
	for _, c := range []struct {
		what      string
		meanwhile func(t *testing.T, now *View)
		late      bool // the answer by the new view still does something
	}{
		{"nothing has happened", func(*testing.T, *View) {}, true},
		{"the asker has left", func(t *testing.T, now *View) { leaves(t, now, "b") }, false},
		{"the owner has left", func(t *testing.T, now *View) { leaves(t, now, "a") }, false},
		{"it is withdrawn", func(t *testing.T, now *View) {
			if err := planned(t, now, *now, "b", PlanWithdraw(*now, "net", addr, "b"), nil); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"it is asked anew", func(t *testing.T, now *View) {
			txn, err := PlanAsk(*now, "net", addr, "b")
			if err := planned(t, now, *now, "b", txn, err); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"the address is given already", func(t *testing.T, now *View) { give(t, now, "block/net/10.0.0.3/32", `{"v":1,"node":"c"}`) }, false},
		{"its fact alone says that it attends no more", func(t *testing.T, now *View) {
			next, err := now.Apply(Txn{Then: []Op{{Key: "attend/net/b"}}})
			if err != nil {
				t.Fatal(err)
			}
			*now = next
		}, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			now, _ := attending(t, "a", "b", "c")
			give(t, now, "block/net/10.0.0.0/28", `{"v":1,"node":"a"}`)
			txn, err := PlanAsk(*now, "net", addr, "b")
			if err := planned(t, now, *now, "b", txn, err); err != nil {
				t.Fatal(err)
			}
			old := *now
			asked, _ := old.Want("net", addr)
			c.meanwhile(t, now)
			before := now.Index()
			for _, plan := range []func(v View) (Txn, error){
				func(v View) (Txn, error) { return PlanGive(v, "net", asked, "a") },
				func(v View) (Txn, error) { return PlanDeny(v, "net", asked, "a", "it is in use") },
			} {
				txn, err := plan(old)
				now := *now
				if err := planned(t, &now, old, "a", txn, err); (err == nil) != (before == old.Index()) {
					t.Errorf("by the old view: %v", err)
				}
				if txn, err := plan(now); before != old.Index() && (err != nil || (len(txn.Then) > 0) != c.late) {
					t.Errorf("by the new view: %v, %v", txn, err)
				}
			}
		})
	}
}

func leaves(t *testing.T, now *View, node string) {
	t.Helper()
	if err := planned(t, now, *now, node, PlanLeave(*now, "net", node), nil); err != nil {
		t.Fatal(err)
	}
}

// following is a node whose view is another after each wake.
type following struct {
	view View
	wake chan struct{}
}

func (f *following) View() View { return f.view }

func (f *following) Watch() (<-chan struct{}, func()) { return f.wake, func() { f.wake = nil } }

func TestNewerWaitsForWhatIsNew(t *testing.T) {
	f := &following{wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.wake <- struct{}{} // it is woken by something else
	if v, err := Newer(ctx, f, f.view); !errors.Is(err, context.Canceled) || v != f.view {
		t.Errorf("nothing is new: %v, %v", v.Index(), err)
	}
	if f.wake != nil {
		t.Error("it is still woken")
	}
	old := f.view
	give(t, &f.view, "a", "1")
	if v, err := Newer(ctx, f, old); err != nil || v.Index() != 1 {
		t.Errorf("there is a newer view: %d, %v", v.Index(), err)
	}
}

func TestAnAddressIsGivenAway(t *testing.T) {
	now, _ := attending(t, "a", "b", "c")
	give(t, now, "block/net/10.0.0.0/28", `{"v":1,"node":"a"}`)
	addr := netip.MustParseAddr("10.0.0.3")
	txn, err := PlanAsk(*now, "net", addr, "b")
	if err := planned(t, now, *now, "b", txn, err); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanAsk(*now, "net", addr, "c"); err == nil || err.Error() != "host b is asking for it at the moment" {
		t.Errorf("two ask for one address: %v", err)
	}
	if _, err := PlanAsk(*now, "net", addr.Next(), "d"); err == nil {
		t.Error("who does not have the network asks")
	}
	asked := now.Wants("net")[0]
	txn, err = PlanGive(*now, "net", asked, "a")
	if err := planned(t, now, *now, "a", txn, err); err != nil {
		t.Fatal(err)
	}
	if b, ok := now.Owner("net", addr); !ok || b.Node != "b" || len(now.Wants("net")) != 0 {
		t.Errorf("it is in %+v, and %v are open", b, now.Wants("net"))
	}
	if b, txn, err := PlanClaimOf(*now, "net", subnet("10.0.0.0/24"), addr, "c"); err != nil || len(txn.Then) > 0 || b.Node != "b" {
		t.Errorf("claimed by c: %+v, %v, %v", b, txn, err)
	}
}
