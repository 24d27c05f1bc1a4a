package cluster

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// realNode is a node with real sockets on a loopback address of its own.
type realNode struct {
	t         *testing.T
	cfg       gossipConfig
	transport *transport
	gossip    *gossip
	stop      context.CancelFunc
	wg        sync.WaitGroup
}

// realNodes differ by the last byte of their address. The ports are those that the kernel gives to nobody by itself.
func realNodes(t *testing.T, size int) []*realNode {
	t.Helper()
	return realNodesAt(t, size, func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, 1, byte(i + 1)}), 17946)
	})
}

// realNodes6 are all at the one loopback address of IPv6, and differ by their ports.
func realNodes6(t *testing.T, size int) []*realNode {
	t.Helper()
	return realNodesAt(t, size, func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.IPv6Loopback(), uint16(17946+10*i))
	})
}

// realNodesAt listen for gossip there, and one port above for the rest.
func realNodesAt(t *testing.T, size int, at func(i int) netip.AddrPort) []*realNode {
	t.Helper()
	secret := []byte(GenerateSecret())
	key, err := derive(secret, labelGossipKey, 32)
	if err != nil {
		t.Fatal(err)
	}
	var nodes []*realNode
	var facts []registered
	for i := range size {
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		creds, err := newCredentials(secret, private)
		if err != nil {
			t.Fatal(err)
		}
		addr := at(i).Addr()
		id := nodeID(private.Public().(ed25519.PublicKey))
		fact := registered{ID: id, Name: fmt.Sprint("n", i+1), Addr: addr, GossipPort: at(i).Port(), RaftPort: at(i).Port() + 1}
		facts = append(facts, fact)
		logger := logrus.New()
		logger.SetOutput(testOutput(t, fact.Name))
		n := &realNode{t: t, transport: newTransport(fact.at(), creds, &alarms{}, logger)}
		n.cfg = gossipConfig{
			id: id, name: fact.Name, advertise: addr, gossipPort: fact.GossipPort, port: fact.RaftPort, key: key, creds: creds,
			dir: t.TempDir(), logger: logger, clusterID: func() string { return "c1" }, nodes: func() []registered { return facts },
			dial: func(ctx context.Context, to netip.AddrPort, alpn string) (net.Conn, string, error) {
				conn, id, err := n.transport.dial(ctx, to, alpn)
				if err != nil {
					return nil, "", err
				}
				return conn, id, nil
			},
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.start()
		t.Cleanup(n.end)
	}
	return nodes
}

func (n *realNode) start() {
	n.t.Helper()
	g, err := newGossip(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.gossip = g
	n.transport.handle(alpnPull, g.servePull)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	for _, run := range []func(context.Context) error{n.transport.run, g.run} {
		n.wg.Go(func() {
			if err := run(ctx); err != nil {
				n.t.Error(err)
			}
		})
	}
}

func (n *realNode) end() {
	n.stop()
	n.wg.Wait()
}

// inTime waits up to a minute of real time.
func inTime(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > time.Minute {
			t.Fatalf("not %s after a minute", what)
		}
		pause(t.Context(), 5*time.Millisecond)
	}
	return time.Since(start)
}

func (n *realNode) records(network string, origin *realNode) int {
	for _, row := range n.gossip.remote(network) {
		if row.Node.ID == origin.cfg.id {
			return len(row.Records)
		}
	}
	return -1
}

// running are the stacks of goroutines in which something of a gossip runs.
func running() []string {
	stacks := make([]byte, 64<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return slices.DeleteFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
		return !slices.ContainsFunc([]string{"(*gossip)", "(*pulls)", "(*tracked", "closeWith"}, func(ours string) bool {
			return strings.Contains(stack, "carrick/cluster."+ours)
		})
	})
}

// Three nodes with real sockets, TLS, and a file system. Nothing of ours runs when they have ended.
func TestGossipReal(t *testing.T) {
	nodes := realNodes(t, 3)
	all := func(origin *realNode, records int) func() bool {
		return func() bool {
			for _, n := range nodes {
				if n != origin && n.records("blue", origin) != records {
					return false
				}
			}
			return true
		}
	}
	for _, n := range nodes {
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		inTime(t, "attending", all(n, 0))
		if err := n.gossip.sync(t.Context(), "blue"); err != nil {
			t.Error(err)
		}
	}
	for i := range 1000 {
		if err := nodes[0].gossip.publish("blue", fmt.Sprintf("%064x", i), []byte("02:42:ac:11:00:02 10.0.0.2 web")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("1000 records on three real nodes after %v", inTime(t, "there", all(nodes[0], 1000)))

	// A restart, with everything that was remembered.
	nodes[1].end()
	nodes[1].start()
	if got := nodes[1].records("blue", nodes[0]); got != 1000 {
		t.Errorf("%d of 1000 records are remembered", got)
	}
	if err := nodes[1].gossip.attend("blue", true); err != nil {
		t.Fatal(err)
	}
	if err := nodes[1].gossip.publish("blue", "back", []byte("x")); err != nil {
		t.Fatal(err)
	}
	inTime(t, "back", all(nodes[1], 1))

	for _, n := range nodes {
		n.end()
	}
	// A goroutine that has said that it is done may still have its last instructions before it.
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(strings.Join(running(), "\n\n"))
		}
	})
	inTime(t, "over", func() bool { return len(running()) == 0 })
	if err := nodes[0].gossip.run(t.Context()); err == nil {
		t.Error("it ran twice")
	}
}

// The address is taken, as after a quick restart, or not there yet, as at boot with DHCP: it is tried until it works.
func TestGossipAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.77.1.1:17946")
	if err != nil {
		t.Fatal(err)
	}
	nodes := realNodes(t, 2)
	alarm := func() bool { return len(nodes[0].gossip.cfg.alarms.texts()) > 0 }
	inTime(t, "an alarm", alarm)
	if text := nodes[0].gossip.cfg.alarms.texts()[0]; !strings.Contains(text, "127.77.1.1") || !strings.Contains(text, "in use") {
		t.Errorf("alarm: %s", text)
	}
	taken.Close()
	inTime(t, "together", func() bool { return len(nodes[0].gossip.contacts.allLive(true)) == 1 })
}

func TestHostLives(t *testing.T) {
	lives := hostLives(netip.Addr{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	if !lives(t.Context(), addr) {
		t.Error("a host that accepts counts as dead")
	}
	ln.Close()
	if !lives(t.Context(), addr) {
		t.Error("a host that refuses counts as dead")
	}
	limited, cancel := context.WithTimeout(t.Context(), probeTimeout)
	defer cancel()
	if silent := silentPort(t); lives(limited, silent) {
		t.Error("a host that says nothing counts as alive")
	}
	if !hostLives(netip.MustParseAddr("192.0.2.1"))(t.Context(), addr) {
		t.Error("an error of our own counts against the host")
	}
	counts := make(chan bool)
	go func() { // in a network namespace without routes, out of which the thread is brought back: the first one of all never ends
		runtime.LockOSThread()
		old, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer old.Close()
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err != nil {
			t.Errorf("unshare: %v", err)
		}
		alive := lives(t.Context(), netip.MustParseAddrPort("192.0.2.1:7947"))
		if err == nil && unix.Setns(int(old.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		counts <- alive
	}()
	if <-counts {
		t.Error("a host to which there is no route counts as alive")
	}
}

// silentPort is a listener whose queue is full: Linux then drops SYNs (net.ipv4.tcp_abort_on_overflow is 0).
func silentPort(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 16 {
		conn, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("a queue of length 0 took 16 connections")
	return netip.AddrPort{}
}
