package cluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// patience is how long tests wait for what must happen: two cores are shared by many.
const patience = 60 * time.Second

// quick makes clusters of tests fast, yet patient enough for a loaded machine.
func quick() timing {
	return timing{
		found: 400 * time.Millisecond, poll: 50 * time.Millisecond, heartbeat: 300 * time.Millisecond,
		lease: 200 * time.Millisecond, propose: 8 * time.Second, tend: 50 * time.Millisecond, contact: 200 * time.Millisecond,
		gone: 500 * time.Millisecond, alarm: 2 * time.Second,
	}
}

// memKV is a KV in memory that outlives a Cluster. It can be made to fail.
type memKV struct {
	mu   sync.Mutex
	data map[string][]byte
	err  error
}

func newMemKV() *memKV { return &memKV{data: map[string][]byte{}} }

func (m *memKV) Get(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.data[key]
	return v, ok
}

func (m *memKV) Prefix(prefix string) iter.Seq2[string, []byte] {
	m.mu.Lock()
	all := maps.Clone(m.data)
	m.mu.Unlock()
	return func(yield func(string, []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(key, prefix) && !yield(key, all[key]) {
				return
			}
		}
	}
}

func (m *memKV) Apply(writes ...Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	for _, w := range writes {
		if w.Value == nil {
			delete(m.data, w.Key)
		} else {
			m.data[w.Key] = slices.Clone(w.Value)
		}
	}
	return nil
}

func (m *memKV) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// testNode is a host of a test: what is on its disk, and the Cluster while it is up.
type testNode struct {
	t    *testing.T
	lab  *lab
	cfg  Config
	kv   *memKV
	c    *Cluster
	stop func()
	done chan struct{} // closed when Run has ended
	err  error         // what it ended with
}

// lab makes hosts that share a secret.
type lab struct {
	t      *testing.T
	secret string
	next   byte

	mu  sync.Mutex
	off map[netip.Addr]bool // hosts without power: all are on this machine, whose kernel would answer for them
}

func newLab(t *testing.T) *lab {
	return &lab{t: t, secret: GenerateSecret(), off: map[netip.Addr]bool{}}
}

func (l *lab) power(on bool, addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off[addr] = !on
}

func (l *lab) lives(_ context.Context, addr netip.AddrPort) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.off[addr.Addr()]
}

// powerOff is the end of the host without a word. It is on again when it is up.
func (n *testNode) powerOff() {
	n.lab.power(false, n.cfg.Advertise)
	n.stop()
}

// host is the next one: node-2 on 127.0.0.2 and so on, each with an address of its own, which is not up yet.
func (l *lab) host(join ...string) *testNode {
	l.next++
	addr := netip.AddrFrom4([4]byte{127, 0, 0, l.next + 1})
	n := &testNode{t: l.t, lab: l, kv: newMemKV()}
	n.cfg = Config{
		Secret: []byte(l.secret), Join: join, Advertise: addr, Name: fmt.Sprintf("node-%d", l.next+1),
		GossipPort: freePort(l.t, addr), RaftPort: freePort(l.t, addr), Dir: l.t.TempDir(), Log: n.kv, Version: "test",
		Logger: testLogger(l.t, fmt.Sprintf("node-%d", l.next+1)), timing: quick(), probe: l.lives,
	}
	return n
}

// hosts are n hosts with the same JOIN line, which lists them all.
func (l *lab) hosts(n int) []*testNode {
	var all []*testNode
	var join []string
	for range n {
		h := l.host()
		all = append(all, h)
		join = append(join, h.at())
	}
	for _, h := range all {
		h.cfg.Join = join
	}
	return all
}

// ports counts those that were given to hosts of tests. They are none that the kernel gives to who dials, from 32768 on
// (ip(7), ip_local_port_range): such a one may be taken before its host is up.
var ports atomic.Uint32

// freePort is one that is free for TCP and UDP at addr, and no other host's.
func freePort(t *testing.T, addr netip.Addr) uint16 {
	t.Helper()
	for range 100 {
		port := uint16(20000 + ports.Add(1)%12000)
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		if err != nil {
			continue
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		ln.Close()
		if err == nil {
			udp.Close()
			return port
		}
	}
	t.Fatalf("no free port on %v", addr)
	return 0
}

func (n *testNode) at() string {
	return netip.AddrPortFrom(n.cfg.Advertise, n.cfg.RaftPort).String()
}

// up starts the host's program.
func (n *testNode) up() *testNode {
	n.t.Helper()
	c, err := New(n.cfg)
	if err != nil {
		n.t.Fatalf("%s: %v", n.cfg.Name, err)
	}
	n.lab.power(true, n.cfg.Advertise)
	ctx, cancel := context.WithCancel(context.Background())
	n.c, n.done = c, make(chan struct{})
	done := n.done
	go func() {
		defer close(done)
		n.err = c.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
			if n.err != nil && !errors.Is(n.err, context.Canceled) {
				n.t.Errorf("%s: Run: %v", n.cfg.Name, n.err)
			}
		case <-time.After(patience):
			n.t.Errorf("%s: Run does not end", n.cfg.Name)
		}
	})
	n.t.Cleanup(n.stop)
	return n
}

// again waits until the node wants to begin again, and does what the plugin does then.
func (n *testNode) again() *testNode {
	n.t.Helper()
	select {
	case <-n.done:
	case <-time.After(patience):
		n.t.Fatalf("%s: does not begin again: %+v", n.cfg.Name, n.c.Status())
	}
	if !errors.Is(n.err, ErrAgain) {
		n.t.Fatalf("%s: Run: %v, want ErrAgain", n.cfg.Name, n.err)
	}
	n.err = nil
	return n.up()
}

func allUp(nodes []*testNode) {
	for _, n := range nodes {
		n.up()
	}
}

// eventually waits for a condition and says how long it took.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	begin := time.Now()
	for !holds() {
		if time.Since(begin) > patience {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(5 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(begin).Round(time.Millisecond))
}

func (n *testNode) state() State { return n.c.Status().State }

// oneCluster waits until all nodes are members of the same cluster, know each other, and have the votes that they
// should have.
func oneCluster(t *testing.T, nodes ...*testNode) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	eventually(t, fmt.Sprintf("one cluster of %d", len(nodes)), func() bool {
		for _, n := range nodes {
			s := n.c.Status()
			last = fmt.Sprintf("%s: %+v", n.cfg.Name, s)
			if s.State != Member || s.Cluster != nodes[0].c.Status().Cluster || !s.Quorum || len(s.Nodes) != len(nodes) ||
				len(s.Voters) != wantVoters(len(nodes)) {
				return false
			}
		}
		return true
	})
}

// leader is the one of the nodes that leads.
func leader(t *testing.T, nodes ...*testNode) *testNode {
	t.Helper()
	var found *testNode
	eventually(t, "a leader", func() bool {
		for _, n := range nodes {
			if r := n.c.running(); r != nil && r.leads() {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// write proposes one fact without condition.
func (n *testNode) write(t *testing.T, key, value string) {
	t.Helper()
	view, err := n.c.Propose(t.Context(), Txn{Then: []Op{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatalf("%s: write %s: %v", n.cfg.Name, key, err)
	}
	if f, ok := view.Get(key); !ok || string(f.Value) != value {
		t.Fatalf("%s: the view has not what was written to %s: %q", n.cfg.Name, key, f.Value)
	}
}

func (n *testNode) has(key, value string) bool {
	f, ok := n.c.View().Get(key)
	return ok && string(f.Value) == value
}

func testLogger(t *testing.T, name string) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(testOutput(t, name))
	log.SetLevel(logrus.InfoLevel)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, TimestampFormat: "05.000"})
	return log
}

// testWriter shows the log with the test that it belongs to, and drops what comes after it: memberlist's Shutdown does not
// wait for who is still at a packet.
type testWriter struct {
	name string
	mu   sync.Mutex
	t    *testing.T // nil after the test
}

// testOutput is to be had before what writes there is told to end in a Cleanup.
func testOutput(t *testing.T, name string) *testWriter {
	w := &testWriter{name: name, t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return w
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s %s", w.name, strings.TrimSpace(string(p)))
	}
	return len(p), nil
}
