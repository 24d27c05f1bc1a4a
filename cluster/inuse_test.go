package cluster

import (
	"errors"
	"net/netip"
	"testing"
)

func nodeOp(id, name string) Op {
	return Op{belowNode + id, []byte(`{"v":1,"name":"` + name + `"}`)}
}

func written(t *testing.T, v View, txn Txn) View {
	t.Helper()
	next, err := v.Apply(txn)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// tells has a node tell what it uses, and says whether there was anything to write.
func tells(t *testing.T, v View, node string, prefixes ...netip.Prefix) (View, bool) {
	t.Helper()
	txn, err := PlanInUse(v, node, prefixes)
	if err != nil {
		t.Fatal(err)
	}
	if len(txn.Then) == 0 {
		return v, false
	}
	return written(t, v, txn), true
}

func TestInUse(t *testing.T) {
	ten, eleven := netip.MustParsePrefix("10.0.0.0/20"), netip.MustParsePrefix("11.0.0.0/20")
	var v View
	if _, is := tells(t, v, "a", ten); is {
		t.Error("a node that is not registered has written something")
	}
	v = written(t, v, Txn{Then: []Op{nodeOp("a", "host-a"), nodeOp("b", "host-b")}})
	for _, step := range []struct {
		what  string
		tells []netip.Prefix
		write bool
	}{
		{"nothing, and nothing is known", nil, false},
		{"one", []netip.Prefix{ten}, true},
		{"the same", []netip.Prefix{ten}, false},
		{"another", []netip.Prefix{eleven}, true},
		{"nothing any more", nil, true},
		{"nothing, as before", nil, false},
		{"one again", []netip.Prefix{ten}, true},
	} {
		var is bool
		if v, is = tells(t, v, "a", step.tells...); is != step.write {
			t.Errorf("%s: something is written: %t, want %t", step.what, is, step.write)
		}
		all := v.InUse()
		if len(all) != min(1, len(step.tells)) || len(all) == 1 && (all[0].Node != "a" || all[0].Name != "host-a" || all[0].Prefixes[0] != step.tells[0]) {
			t.Errorf("%s: %+v", step.what, all)
		}
	}
	// What is not understood counts for nobody and hurts nobody.
	strange := written(t, v, Txn{Then: []Op{{belowInUse + "b", []byte(`{"v":2,"prefixes":7}`)}, {belowInUse + "gone", []byte(`{"v":1,"prefixes":["11.0.0.0/20"]}`)}}})
	if all := strange.InUse(); len(all) != 1 || all[0].Node != "a" {
		t.Errorf("%+v, want what a tells", all)
	}
	if _, is := tells(t, strange, "b", eleven); !is {
		t.Error("what a newer version of a node has told stays when an older one runs there")
	}
	// Two plans from one view: the second has to look again.
	one, _ := PlanInUse(v, "b", []netip.Prefix{ten})
	if _, err := written(t, v, one).Apply(one); !errors.Is(err, ErrConflict) {
		t.Errorf("%v, want a conflict", err)
	}
	forget, err := PlanForget(v, "a")
	if err != nil {
		t.Fatal(err)
	}
	v = written(t, v, forget)
	if _, still := v.Get(belowInUse + "a"); still || len(v.InUse()) > 0 {
		t.Errorf("what a forgotten node used is there: %+v", v.InUse())
	}
}
