package cluster

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
)

// TestMemoOfEachVersion makes versions out of random earlier ones, and looks at random ones: each shows its own facts, whichever
// were looked at before.
func TestMemoOfEachVersion(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	networks := []string{"red", "redder", "blue"}
	versions := []View{{}}
	for range 3000 {
		v := versions[random.IntN(len(versions))]
		var txn Txn
		for range 1 + random.IntN(3) {
			network := networks[random.IntN(len(networks))]
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(8))})
			op, err := BlockOp(network, netip.PrefixFrom(addr, 32), fmt.Sprint("node", random.IntN(3)))
			if random.IntN(2) == 0 {
				op, err = wantOp(network, Want{Addr: addr, Node: "asker"})
			}
			if err != nil {
				t.Fatal(err)
			}
			if random.IntN(3) == 0 {
				op.Value = nil
			}
			txn.Then = append(txn.Then, op)
		}
		next, err := v.Apply(txn)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, next)
		for range 4 {
			v := versions[random.IntN(len(versions))]
			network := networks[random.IntN(len(networks))]
			if got, want := v.Blocks(network), v.readBlocks(network).All(); !reflect.DeepEqual(got, want) {
				t.Fatalf("blocks %v, the facts say %v", got, want)
			}
			asked := 0
			for range v.Prefix("want/" + network + "/") {
				asked++
			}
			if got := len(v.Wants(network)); got != asked {
				t.Fatalf("%d questions, the facts have %d", got, asked)
			}
		}
	}
}
