package cluster

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFacts reads a view in which one fact is anything at all: what is not understood belongs to nobody, and what was given stays
// given.
func FuzzFacts(f *testing.F) {
	subnet := Subnet{Prefix: netip.MustParsePrefix("10.0.0.0/28"), Gateway: netip.MustParseAddr("10.0.0.1")}
	addr := netip.MustParseAddr("10.0.0.3")
	sound := Txn{Then: []Op{
		{Key: "node/a", Value: []byte(`{"v":1,"id":"a","name":"host-a"}`)},
		{Key: "network/n", Value: []byte(`{"v":1,"id":"n","subnets":[{"prefix":"10.0.0.0/28","gateway":"10.0.0.1"}]}`)},
		{Key: "attend/n/a", Value: []byte(`{}`)},
		{Key: "block/n/10.0.0.3/32", Value: []byte(`{"v":1,"node":"a"}`)},
	}}
	for _, op := range append(sound.Then, []Op{
		{Key: "want/n/10.0.0.3", Value: []byte(`{"v":1,"node":"b","denied":"it is in use"}`)},
		{Key: "forgotten/b", Value: []byte(`{"v":1,"name":"host-b","how":"left"}`)},
		{Key: "recovered/2-x", Value: []byte(`{"v":1,"id":"2-x","by":"host-a","lost":{"b":"host-b"}}`)},
		{Key: "reserve/name/4", Value: []byte(`10.0.0.0/28`)},
		{Key: "block/n/::/0", Value: []byte(`{"v":2}`)},
		{Key: "block/n/nothing", Value: nil},
	}...) {
		f.Add(op.Key, op.Value)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		v, err := View{}.Apply(sound)
		if err != nil {
			t.Fatal(err)
		}
		if value == nil {
			value = []byte{}
		}
		if v, err = v.Apply(Txn{Then: []Op{{Key: key, Value: value}}}); err != nil {
			t.Fatal(err)
		}
		_, _, _, _, _ = v.Networks(), v.Reserved(), v.recoveries(), v.leftBehindAll(), v.wanted()
		_, _ = v.Fenced("b")
		_, _ = v.outcast("b")
		_ = v.NodeName("a")
		for _, w := range v.Wants("n") {
			_, _ = PlanGive(v, "n", w, "a")
			_, _ = PlanDeny(v, "n", w, "a", "it is in use")
		}
		_, _ = PlanAsk(v, "n", addr, "b")
		_, _ = PlanForget(v, "b")
		_, _, _ = PlanJoin(v, Network{Version: 1, ID: "n", Subnets: []Subnet{subnet}}, Defaults{}, "a")
		if owner, _ := v.Owner("n", addr); owner.Prefix.Bits() != 32 {
			t.Fatalf("%s is in block %s", addr, owner.Prefix)
		}
		if b, _, err := PlanClaim(v, "n", subnet, "a"); err == nil {
			if owner, taken := v.Owner("n", b.Prefix.Addr()); taken && owner.Prefix == b.Prefix {
				t.Fatalf("%s is to be claimed, and is that of %q", b.Prefix, owner.Node)
			}
		}
	})
}

// FuzzNodeKey reads a key file that holds anything: it is a key, or none, or a newer program's.
func FuzzNodeKey(f *testing.F) {
	dir := f.TempDir()
	if _, err := makeKey(dir); err != nil {
		f.Fatal(err)
	}
	sound, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(sound[:len(sound)/2])
	f.Add([]byte(`{"v":2,"seed":"","sum":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, keyFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadKey(dir); err != nil && !errors.Is(err, errNoKey) && !errors.Is(err, errNewer) {
			t.Fatal(err)
		}
	})
}
