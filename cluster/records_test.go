package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"
)

func TestCacheThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching("[0-9a-f]{1,12}|[a-z]{1,8}")
		x := newTable("us")
		for range rapid.IntRange(0, 6).Draw(t, "rows") {
			d := delta{network: name.Draw(t, "network"), kind: rapid.SampledFrom([]deltaKind{deltaFull, deltaAbsent}).Draw(t, "kind"), to: version{1, rapid.Uint64Range(1, 1<<40).Draw(t, "seq")}}
			for i := range rapid.IntRange(0, 4).Draw(t, "records") {
				if d.kind == deltaFull {
					d.changes = append(d.changes, change{fmt.Sprint("k", i), append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "value")...)})
				}
			}
			if _, err := x.merge(name.Draw(t, "origin"), d); err != nil {
				t.Fatal(err)
			}
		}
		c := x.remembered()
		c.nodes = []cachedNode{{"id1", "name", netip.MustParseAddrPort("192.0.2.1:7946"), 7947}, {"id2", "", netip.MustParseAddrPort("[2001:db8::1]:1"), 0}}
		raw := c.encode()
		back, err := decodeCache(raw)
		if err != nil {
			t.Fatal(err)
		}
		y := newTable("us")
		y.remember(back)
		if !maps.Equal(x.epochs, y.epochs) || !reflect.DeepEqual(back.nodes, c.nodes) || len(x.remote) != len(y.remote) {
			t.Fatalf("%+v became %+v", c, back)
		}
		for network, rows := range x.remote {
			for origin, row := range rows {
				again := y.remote[network][origin]
				if again == nil || again.version != row.version || again.attending != row.attending || !maps.Equal(texts(again.records), texts(row.records)) {
					t.Fatalf("%s of %s: %+v became %+v", network, origin, row, again)
				}
			}
		}
		broken := bytes.Clone(raw)
		broken[rapid.IntRange(0, len(raw)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeCache(broken); err == nil {
			t.Fatal("a flipped bit was not noticed")
		}
		if _, err := decodeCache(raw[:rapid.IntRange(0, len(raw)-1).Draw(t, "length")]); err == nil {
			t.Fatal("a missing end was not noticed")
		}
	})
}

// A cached row is only as good as its version: it never takes the place of a newer one.
func TestCacheIsNeverNewer(t *testing.T) {
	x := newTable("us")
	if _, err := x.merge("a", delta{network: "blue", kind: deltaFull, to: version{2, 5}, changes: []change{{"new", []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	x.remember(cache{rows: []cachedRow{
		{rowKey{"blue", "a"}, version{2, 4}, true, map[string][]byte{"old": nil}},
		{rowKey{"blue", "us"}, version{9, 9}, true, map[string][]byte{"forged": nil}},
	}})
	if got, _ := x.share(rowKey{"blue", "a"}); len(got) != 1 || got["new"] == nil {
		t.Errorf("got %v", texts(got))
	}
	if len(x.remote["blue"]) != 1 {
		t.Error("a row of our own came out of the cache")
	}
}

func TestCacheFileDamaged(t *testing.T) {
	dir := t.TempDir()
	if c, err := loadCache(dir); err != nil || len(c.rows) != 0 {
		t.Errorf("no file: %+v, %v", c, err)
	}
	if err := os.WriteFile(filepath.Join(dir, cacheFile), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCache(dir); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged file: %v", err)
	}
	g, err := newGossip(gossipConfig{id: "us", advertise: netip.MustParseAddr("192.0.2.1"), key: make([]byte, 32), dir: dir})
	if err != nil || len(g.table.remote) != 0 {
		t.Errorf("a damaged cache keeps the node from starting: %v", err)
	}
}

func TestEpochs(t *testing.T) {
	dir := t.TempDir()
	last, err := loadEpoch(dir)
	if last != 0 || err != nil {
		t.Fatalf("no file: %d, %v", last, err)
	}
	lives := map[uint64]bool{}
	for range 100 {
		next, err := nextEpoch(last, last/2)
		if err != nil || next <= last || next>>epochLife != last>>epochLife+1 {
			t.Fatalf("%d after %d: %v", next, last, err)
		}
		lives[next&(1<<epochLife-1)] = true
		if err := saveEpoch(dir, next); err != nil {
			t.Fatal(err)
		}
		if last, err = loadEpoch(dir); last != next || err != nil {
			t.Fatalf("read back %d, %v; saved %d", last, err, next)
		}
	}
	if len(lives) < 95 { // of 100 random numbers of 24 bits, two are equal once in 3,400 runs, six never
		t.Errorf("only %d different lives", len(lives))
	}
	if next, err := nextEpoch(5, 77<<epochLife|3); err != nil || next>>epochLife != 78 {
		t.Errorf("after what is remembered: %d, %v", next, err)
	}
	if _, err := nextEpoch(5, 1<<64-1); err == nil {
		t.Error("there is an epoch after the last")
	}
	raw, err := os.ReadFile(filepath.Join(dir, epochFile))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(raw) {
		broken := bytes.Clone(raw)
		broken[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(filepath.Join(dir, epochFile), broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if epoch, err := loadEpoch(dir); err == nil {
			t.Fatalf("flipped bit %d: epoch %d", bit, epoch)
		}
	}
}

func TestGossipRefuses(t *testing.T) {
	good := gossipConfig{id: "us", name: "alpha", advertise: netip.MustParseAddr("192.0.2.1"), key: make([]byte, 32), dir: t.TempDir()}
	if _, err := newGossip(good); err != nil {
		t.Fatal(err)
	}
	for says, spoil := range map[string]func(*gossipConfig){
		"no gossip without encryption": func(c *gossipConfig) { c.key = nil },
		"a key of 16 bytes":            func(c *gossipConfig) { c.key = make([]byte, 16) },
		"node id":                      func(c *gossipConfig) { c.id = "" },
		"node name":                    func(c *gossipConfig) { c.name = strings.Repeat("x", 256) },
		"the address of one interface": func(c *gossipConfig) { c.advertise = netip.IPv4Unspecified() },
		"address invalid":              func(c *gossipConfig) { c.advertise = netip.Addr{} },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := newGossip(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// scripted is a connection whose other end says what it says.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s scripted) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 66), Port: 1} }
func (s scripted) SetReadDeadline(time.Time) error  { return nil }
func (s scripted) SetWriteDeadline(time.Time) error { return nil }

func frame(kind frameKind, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{frameVersion, byte(kind)}, uint32(len(payload)))
	return append(head, payload...)
}

func testGossip(t testing.TB) *gossip {
	t.Helper()
	g, err := newGossip(gossipConfig{id: "us", advertise: netip.MustParseAddr("192.0.2.1"), key: make([]byte, 32), dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	mustAttendOf(t, g.table, "blue")
	return g
}

func mustAttendOf(t testing.TB, x *table, network string) {
	t.Helper()
	x.setEpoch(1 << epochLife)
	if _, _, err := x.attend(network, true); err != nil {
		t.Fatal(err)
	}
}

func TestPullRefuses(t *testing.T) {
	hi := frame(frameHello, hello{meta{"", "n", 1, 5, 0}, netip.MustParseAddrPort("192.0.2.2:1"), 0, nil, nil}.encode())
	end := frame(frameEnd, nil)
	row := frame(frameRow, encodeRow(delta{network: "blue", kind: deltaFull, to: version{5, 1}, changes: make([]change, 1)}))
	var one encoder
	one.change(change{"k", []byte("v")})
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	newer := bytes.Clone(hi)
	newer[0] = 9
	for says, in := range map[string][]byte{
		"hello comes first":           join(end),
		"once":                        join(hi, hi, end),
		"EOF":                         join(hi),
		"format version 9":            newer,
		"65537 bytes, 65536 are":      {frameVersion, byte(frameHello), 0, 1, 0, 1},
		"the message is cut off":      join(hi, row, end),
		"more changes than announced": join(hi, row, frame(frameChanges, append(bytes.Clone(one), one...)), end),
		"frame of kind 99":            join(hi, frame(99, nil), end),
		"more than was asked":         join(hi, row, frame(frameChanges, one), row, frame(frameChanges, one), row, frame(frameChanges, one), end),
	} {
		g := testGossip(t)
		if _, err := g.readAnswer(newFrames(scripted{in: bytes.NewReader(in)}), "other", 1); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	// Changes without a row.
	g := testGossip(t)
	if _, err := g.readAnswer(newFrames(scripted{in: bytes.NewReader(join(hi, frame(frameChanges, one), end))}), "other", 1); err == nil {
		t.Error("changes without a row were accepted")
	}
}

// FuzzPull gives both ends of a pull the same bytes: neither may panic, and what is not complete changes nothing.
func FuzzPull(f *testing.F) {
	hi := frame(frameHello, hello{meta{"c", "n", 1, 5, 0}, netip.MustParseAddrPort("192.0.2.2:1"), 7, nil, nil}.encode())
	var want1, hint1, digest1, change1 encoder
	want1.want(want{"blue", version{1, 2}})
	hint1.hint(goldenHints[0])
	digest1.digest(digest{"blue", 1})
	change1.change(change{"k", []byte("v")})
	end := frame(frameEnd, nil)
	f.Add(bytes.Join([][]byte{hi, frame(frameWants, want1), frame(frameDigests, digest1), frame(frameHints, hint1), end}, nil))
	f.Add(bytes.Join([][]byte{hi, frame(frameRow, encodeRow(delta{network: "blue", kind: deltaFull, to: version{5, 1}, changes: make([]change, 1)})), frame(frameChanges, change1), end}, nil))
	f.Add(bytes.Join([][]byte{hi, frame(frameNotReady, nil), frame(frameHints, hint1), end}, nil))
	g := testGossip(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		if q, err := g.readQuestion(newFrames(scripted{in: bytes.NewReader(in)}), "other"); err == nil {
			if err := g.writeAnswer(newFrames(scripted{}), "other", q); err != nil {
				t.Fatal(err)
			}
		}
		b := newBatch()
		b.wants["blue"] = nil
		a, err := g.readAnswer(newFrames(scripted{in: bytes.NewReader(in)}), "other", len(b.wants))
		if err != nil {
			return
		}
		if left, err := g.takeOver("other", b, a); err == nil && len(left.wants) > 1 {
			t.Fatalf("%d networks are asked again", len(left.wants))
		}
		if len(g.table.own["blue"].records) != 0 {
			t.Fatal("somebody wrote our row")
		}
	})
}

// A node may not say that its endpoints are behind somebody else's address.
func TestPullAddressIsProven(t *testing.T) {
	g := testGossip(t)
	said := netip.MustParseAddrPort("192.0.2.2:7946")
	in := append(frame(frameHello, hello{meta{"", "n", 7947, 5, 0}, said, 0, nil, nil}.encode()), frame(frameEnd, nil)...)
	for from, want := range map[string]netip.AddrPort{"192.0.2.66": {}, "192.0.2.2": said} {
		f := newFrames(scripted{in: bytes.NewReader(in)})
		f.from = netip.MustParseAddr(from)
		if _, err := g.readQuestion(f, "other "+from); err != nil {
			t.Fatal(err)
		}
		if got := g.contacts.all["other "+from].heard; got != want {
			t.Errorf("called from %s: %v, want %v", from, got, want)
		}
		if got, want := g.contacts.metAt("other "+from), netip.AddrPortFrom(f.from, 7947); got != want {
			t.Errorf("met at %v, want %v", got, want)
		}
	}
}

// A node whose format this one does not know is refused, and the operator is told why.
func TestGossipStranger(t *testing.T) {
	g := testGossip(t)
	g.cfg.clusterID, g.cfg.nodes = func() string { return "c1" }, func() []registered { return nil }
	if err := g.delegate().NotifyAlive(&memberlist.Node{Name: "other", Addr: net.IPv4(192, 0, 2, 2), Meta: []byte{9}}); err == nil {
		t.Error("it was accepted")
	}
	g.follow()
	if texts := g.cfg.alarms.texts(); len(texts) != 1 || !strings.Contains(texts[0], "192.0.2.2 cannot be understood: node: format version 9, this node knows 1") {
		t.Errorf("alarms: %q", texts)
	}
}
