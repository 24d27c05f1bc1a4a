package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// silence is what a host hears that has no container in any network.
func silence(string) ([]Told, bool) { return nil, false }

// aboutThree is one host of three, of which the second is well and the third does not answer. Each has a block, and one
// address of the third's is the first's; the fourth node has nothing.
func aboutThree(t *testing.T) (h *host, pool string, others []*host) {
	t.Helper()
	w := newWorld()
	var err error
	for n := range 3 {
		other := newHost(t, w.node(fmt.Sprint("host", n+1)))
		if pool, _, err = other.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true); err != nil {
			t.Fatal(err)
		}
		others = append(others, other)
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	others[0].nodes = []cluster.Node{
		{ID: "host1", Name: "host1", Alive: true}, {ID: "host2", Name: "host2", Alive: true}, {ID: "host3", Name: "host3", Suspended: true, Silent: since},
	}
	return others[0], pool, others[1:]
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr()
	for p.Contains(a.Next()) {
		a = a.Next()
	}
	return a
}

// blockOf is the first block that a host has.
func blockOf(t *testing.T, h *host) netip.Prefix {
	t.Helper()
	for _, b := range h.Status()[0].Blocks {
		if b.Mine {
			return b.Prefix
		}
	}
	t.Fatal("there is no block")
	return netip.Prefix{}
}

func TestPoolsAddUp(t *testing.T) {
	h, pool, others := aboutThree(t)
	for n := range 3 {
		addressOf(t, h, pool, "", n)
	}
	carved := blockOf(t, others[1]).Addr().Next().Next()
	op, err := cluster.BlockOp(h.Status()[0].Shared, netip.PrefixFrom(carved, 32), "host1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.node.Propose(t.Context(), cluster.Txn{Then: []cluster.Op{op}}); err != nil {
		t.Fatal(err)
	}
	addressOf(t, h, pool, carved.String(), 9)
	told := []Told{
		{Node: "host2", Addrs: []netip.Addr{blockOf(t, others[0]).Addr().Next(), netip.MustParseAddr("fd00::1")}},
		{Node: "host2", Addrs: []netip.Addr{blockOf(t, h).Addr().Next()}}, // not its own, and not believed
	}
	all, err := h.Pools("", Elsewhere{Modes: map[string]string{dockerID: "overlay"}, Told: func(string) ([]Told, bool) { return told, true }})
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	p := all[0]
	if sum := uint64(p.Used) + p.Free + p.Frozen + p.Others + p.Stranded + p.Unclaimed; p.Usable != 253 || sum != p.Usable {
		t.Errorf("the parts are %d, all are %d: %+v", sum, p.Usable, p)
	}
	if p.Used != 4 || p.Mode != "overlay" || p.Told == nil || *p.Told != 1 {
		t.Errorf("%+v", p)
	}
	if p.Stranded < 12 || p.Stranded > 15 || p.Others < 13 || p.Others > 16 { // of 16, without the one that is host1's
		t.Errorf("%d stranded, %d of others", p.Stranded, p.Others)
	}
	var used int
	for _, b := range p.Blocks {
		switch {
		case b.Stranded != (b.Host == "host3") || b.Stranded && b.Used != nil:
			t.Errorf("%+v", b)
		case b.Mine:
			used += *b.Used
			if b.Prefix.IsSingleIP() && (b.Free != 0 || *b.Used != 1) {
				t.Errorf("%+v", b)
			}
		}
	}
	if used != 4 {
		t.Errorf("%d used in blocks of this host", used)
	}
	// Deaf: nobody says what the others use.
	if all, err = h.Pools("", Elsewhere{Told: silence}); err != nil || all[0].Told != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestFrozenAddressesAddUp: those that are seen to be in use are used.
func TestFrozenAddressesAddUp(t *testing.T) {
	h := newHost(t, newWorld().node("host1"))
	pool, s, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, true)
	if err != nil {
		t.Fatal(err)
	}
	inUse := netip.MustParseAddr(addressOf(t, h, pool, "", 1))
	shared := h.Status()[0].Shared
	h.store.values = nil
	h.restart(true)
	if err := h.Bind(t.Context(), dockerID, shared, []cluster.Subnet{s}); err != nil {
		t.Fatal(err)
	}
	addressOf(t, h, pool, "", 2)
	if err := h.Use(t.Context(), dockerID, "endpoint", []netip.Addr{inUse}); err != nil {
		t.Fatal(err)
	}
	p := h.Status()[0]
	if p.Used != 2 || p.Frozen < 12 || uint64(p.Used)+p.Free+p.Frozen+p.Unclaimed != p.Usable {
		t.Errorf("%+v", p)
	}
	who, err := h.Who(inUse.Next(), Elsewhere{Told: silence})
	if err != nil || who[0].State != StateUnknown || who[0].Note != "the block is frozen: what was handed out of it was lost with a damaged or older store" {
		t.Errorf("%+v, %v", who, err)
	}
}

func TestWhoHasAnAddress(t *testing.T) {
	h, pool, others := aboutThree(t)
	used, idle, rests := addressOf(t, h, pool, "", 1), addressOf(t, h, pool, "", 2), addressOf(t, h, pool, "", 3)
	if err := h.Use(t.Context(), dockerID, "endpoint1", []netip.Addr{netip.MustParseAddr(used)}); err != nil {
		t.Fatal(err)
	}
	if err := h.ReleaseAddress(t.Context(), pool, rests); err != nil {
		t.Fatal(err)
	}
	mine, second, third := blockOf(t, h), blockOf(t, others[0]), blockOf(t, others[1])
	remote := last(second).Prev()
	told := func(string) ([]Told, bool) {
		return []Told{{Node: "host2", Endpoint: "endpoint2", MAC: "02:00:00:00:00:02", Addrs: []netip.Addr{remote}}}, true
	}
	nobodys := netip.MustParseAddr("10.1.0.2")
	for slices.ContainsFunc([]netip.Prefix{mine, second, third}, func(p netip.Prefix) bool { return p.Contains(nobodys) }) {
		nobodys = last(netip.PrefixFrom(nobodys, 28)).Next().Next()
	}
	for _, tt := range []struct {
		addr string
		told func(string) ([]Told, bool)
		want string
	}{
		{used, silence, "in use, here true, endpoint1 02:42:00:00:00:01, host1 this node, "},
		{idle, silence, "idle, here true,  02:42:00:00:00:02, host1 this node, "},
		{rests, silence, "resting, here true,  , host1 this node, "},
		{last(mine).Prev().String(), silence, "free, here false,  , host1 this node, on this host"},
		{"10.1.0.1", silence, "gateway, here false,  ,  , "},
		{"10.1.0.0", silence, "unusable, here false,  ,  , "},
		{"10.1.0.255", silence, "unusable, here false,  ,  , "},
		{nobodys.String(), silence, "free, here false,  ,  , in a block that no host has"},
		{remote.String(), told, "in use, here false, endpoint2 02:00:00:00:00:02, host2 alive, "},
		{remote.Prev().String(), told, "not used, here false,  , host2 alive, as host2 tells; ask there whether it rests"},
		{remote.String(), silence, "unknown, here false,  , host2 alive, this host has no container in the network, and does not hear of others: ask on host2"},
		{last(third).Prev().String(), told, "unknown, here false,  , host3 suspended, its host does not answer"},
	} {
		all, err := h.Who(netip.MustParseAddr(tt.addr), Elsewhere{Told: tt.told})
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %+v, %v", tt.addr, all, err)
			continue
		}
		a := all[0]
		if got := fmt.Sprintf("%s, here %v, %s %s, %s %s, %s", a.State, a.Here, a.Endpoint, a.MAC, a.Host, a.HostState, a.Note); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.addr, got, tt.want)
		}
		if a.Since.IsZero() == (a.State == StateUsed && a.Here || a.State == StateIdle) || a.Until.IsZero() == (a.State == StateResting) {
			t.Errorf("%s: since %s, until %s", tt.addr, a.Since, a.Until)
		}
	}
	_, err := h.Who(netip.MustParseAddr("192.0.2.7"), Elsewhere{Told: silence})
	want(t, err, "address 192.0.2.7 is outside every pool; there are 10.1.0.0/24 (0123456789ab)")
}

// TestWhoHasAnAddressIsNotGuessed out of facts that are too old: what this host has in a receipt is its own, and that is all.
func TestWhoHasAnAddressIsNotGuessed(t *testing.T) {
	h, pool, others := aboutThree(t)
	used, mine, theirs := addressOf(t, h, pool, "", 1), blockOf(t, h), blockOf(t, others[0])
	h.node.lags, h.node.at = true, 0
	h.restart(false)
	for addr, want := range map[string]AddressState{
		used: StateIdle, last(mine).Prev().String(): StateFree, last(theirs).Prev().String(): StateUnknown, "10.1.0.1": StateGateway,
	} {
		all, err := h.Who(netip.MustParseAddr(addr), Elsewhere{Told: silence})
		if err != nil || len(all) != 1 || all[0].State != want {
			t.Errorf("%s: want %s: %+v, %v", addr, want, all, err)
		}
	}
	if p := h.Status()[0]; !p.Stale || p.Unclaimed != 0 || p.Used != 1 || p.Free == 0 {
		t.Errorf("%+v", p)
	}
	alone, err := build(Config{Store: h.store}, h.clock.now, "/nonexistent") // SECRET was taken away
	if err != nil {
		t.Fatal(err)
	}
	all, err := alone.Who(last(theirs).Prev(), Elsewhere{Told: silence})
	if err != nil || all[0].State != StateUnknown || !alone.Status()[0].Stale {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestManyPoolsAreNotAllNamed in a sentence.
func TestManyPoolsAreNotAllNamed(t *testing.T) {
	h := newHost(t, nil)
	for n := range 22 {
		if _, _, _, err := h.RequestPool(t.Context(), PoolRequest{Space: localSpace, Pool: fmt.Sprintf("10.%d.0.0/24", n)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.Who(netip.MustParseAddr("192.0.2.7"), Elsewhere{Told: silence})
	want(t, err, "there are 10.0.0.0/24, ", ", and 2 more")
}

// TestANetworkOfOtherHosts is known, with who gives which of its addresses.
func TestANetworkOfOtherHosts(t *testing.T) {
	w := newWorld()
	far, near := newHost(t, w.node("far")), newHost(t, w.node("near"))
	if _, _, err := far.create(dockerID, PoolRequest{Options: map[string]string{"network": "blue"}}, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := near.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false); err != nil {
		t.Fatal(err)
	}
	all, err := near.Pools("blue", Elsewhere{Told: silence})
	if err != nil || len(all) != 1 || !all[0].Absent() || all[0].Mode != "overlay" || all[0].Others == 0 || all[0].Used != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	blocks, err := near.Blocks("blue", Elsewhere{Told: silence})
	if err != nil || len(blocks) != 1 || blocks[0].Host != "far" || blocks[0].Used != nil {
		t.Fatalf("%+v, %v", blocks, err)
	}
	who, err := near.Who(last(blocks[0].Prefix).Prev(), Elsewhere{Told: silence})
	if err != nil || len(who) != 1 || who[0].Host != "far" || who[0].State != StateUnknown {
		t.Errorf("%+v, %v", who, err)
	}
	if leases, err := near.Leases("blue"); err != nil || len(leases) > 0 {
		t.Errorf("%+v, %v", leases, err)
	}
	_, err = near.Leases("green")
	want(t, err, `no pool has the subnet "green", or a network of that name or identifier; there are 10.1.0.0/24 (0123456789ab)`)
}

func TestWhatIsNotFreeHere(t *testing.T) {
	h := newHost(t, nil)
	ctx := t.Context()
	pool, _, err := h.create(dockerID, PoolRequest{Pool: "10.1.0.0/24"}, false)
	if err != nil {
		t.Fatal(err)
	}
	rests, idle := addressOf(t, h, pool, "", 1), addressOf(t, h, pool, "", 2)
	if err := h.ReleaseAddress(ctx, pool, rests); err != nil {
		t.Fatal(err)
	}
	shown := func(which string) (text string) {
		all, err := h.Leases(which)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			text += fmt.Sprint(l.Addr, " ", l.State, ", ")
		}
		return text
	}
	all := "10.1.0.1 gateway, " + rests + " resting, " + idle + " idle, "
	for _, which := range []string{"", "10.1.0.0/24", dockerID, dockerID[:12], "0123", pool} {
		if got := shown(which); got != all {
			t.Errorf("%q: %s", which, got)
		}
	}
	h.clock.pass(60 * time.Second)
	if got := shown(""); got != "10.1.0.1 gateway, "+idle+" idle, " {
		t.Errorf("after its rest: %s", got)
	}
	id, _, _, err := h.RequestPool(ctx, PoolRequest{Space: localSpace, Pool: "10.2.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.RequestAddress(ctx, id, "10.2.0.9", nil); err != nil { // --aux-address
		t.Fatal(err)
	}
	if got := shown(id); got != "10.2.0.9 auxiliary, " {
		t.Errorf("of a network that is being made: %s", got)
	}
	h.restart(false)
	for _, l := range h.Status()[0].Leases {
		if l.Since.IsZero() {
			t.Errorf("since when is forgotten: %+v", l)
		}
	}
	_, err = h.Leases("10.1.0.0/25")
	want(t, err, `no pool has the subnet "10.1.0.0/25", or a network of that name or identifier; there are 10.1.0.0/24 (0123456789ab), 10.2.0.0/24`)
	_, err = newHost(t, nil).Leases("blue")
	want(t, err, `there is none`)
}
