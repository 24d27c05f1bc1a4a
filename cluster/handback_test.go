package cluster

import (
	"errors"
	"net/netip"
	"testing"
)

// blockView is a view in which node a has two blocks of a network.
func blockView(t *testing.T) (v View, blocks []Block) {
	t.Helper()
	for _, prefix := range []string{"10.1.0.0/28", "10.1.0.16/28"} {
		op, err := BlockOp("net", netip.MustParsePrefix(prefix), "a")
		if err != nil {
			t.Fatal(err)
		}
		if v, err = v.Apply(Txn{Then: []Op{op, {Key: attendKey("net", "a"), Value: []byte("{}")}}}); err != nil {
			t.Fatal(err)
		}
	}
	return v, v.Blocks("net")
}

func TestPlanHandBack(t *testing.T) {
	v, blocks := blockView(t)
	late := PlanHandBack(v, "net", blocks)
	after, err := v.Apply(late)
	if err != nil || len(after.Blocks("net")) != 0 {
		t.Fatalf("left: %v, %v", after.Blocks("net"), err)
	}
	if txn := PlanHandBack(after, "net", blocks); len(txn.Then) != 0 {
		t.Errorf("of what is gone: %v", txn)
	}
	if txn, err := PlanReclaim(after, "net", blocks[0]); len(txn.Then) != 0 || err != nil {
		t.Errorf("of what is gone: %v, %v", txn, err)
	}
	again, err := PlanReclaim(v, "net", blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	if v, err = v.Apply(again); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Apply(late); !errors.Is(err, ErrConflict) {
		t.Errorf("what was proposed before is written: %v", err)
	}
	if txn := PlanHandBack(v, "net", blocks); len(txn.Then) != 1 || txn.Then[0].Key != BlockKey("net", blocks[1].Prefix) {
		t.Errorf("%v, want only the block that was not granted anew", txn.Then)
	}
	others := []Block{{Prefix: blocks[1].Prefix, Node: "b", Index: 99}}
	if txn := PlanHandBack(v, "net", others); len(txn.Then) != 0 {
		t.Errorf("b gives back what a has: %v", txn)
	}
}
