package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// families are the addresses of the attacked: of the bare memberlist of a control run, and of our nodes.
var families = map[string]struct {
	bare string
	ours func(*testing.T, int) []*realNode
}{
	"IPv4": {"127.77.9.1", realNodes},
	"IPv6": {"::1", realNodes6},
}

const ghosts = 2000

// ghostMessages say that nodes are alive that are not.
func ghostMessages() [][]byte {
	var all [][]byte
	for i := range ghosts {
		meta := meta{"c1", "ghost", 17947, 1 << epochLife, uint64(i + 1)}.encode()
		all = append(all, forgeAlive(fmt.Sprintf("ghost%d", i), net.IPv4(192, 0, 2, byte(i)), 17946, 1, meta))
	}
	return all
}

// Somebody without the key says that thousands of nodes are alive.
func TestAttackGhosts(t *testing.T) {
	for name, family := range families {
		t.Run(name+"/without defence", func(t *testing.T) {
			list := bareMemberlist(t, family.bare, nil)
			took := inTime(t, "full of ghosts", func() bool {
				throw(t, netip.AddrPortFrom(netip.MustParseAddr(family.bare), attackedPort).String(), ghostMessages()...)
				return list.NumMembers() > ghosts
			})
			t.Logf("a memberlist without a key knows %d nodes after %v", list.NumMembers(), took)
		})
		t.Run(name, func(t *testing.T) {
			nodes := family.ours(t, 2)
			formed(t, nodes)
			to := nodes[0].gossipAt()
			throw(t, to, ghostMessages()...)
			for _, packet := range ghostMessages()[:100] { // in our format, sealed with another key
				other := testSealer(t)
				throw(t, to, other.seal(nodes[0].gossip.sealer.life, packet))
			}
			tell(t, to, pushPull(1000, 0, 1000))
			stillTwo(t, nodes)
		})
	}
}

// Somebody without the key says that a node is dead.
func TestAttackForgedDeath(t *testing.T) {
	for name, family := range families {
		t.Run(name+"/without defence", func(t *testing.T) {
			list := bareMemberlist(t, family.bare, nil)
			to := netip.AddrPortFrom(netip.MustParseAddr(family.bare), attackedPort).String()
			victim := forgeAlive("victim", net.IPv4(192, 0, 2, 1), 1, 1, nil)
			inTime(t, "alive", func() bool { throw(t, to, victim); return list.NumMembers() == 2 })
			inTime(t, "dead", func() bool { throw(t, to, forgeDead("victim", 1)); return list.NumMembers() == 1 })
		})
		t.Run(name, func(t *testing.T) {
			nodes := family.ours(t, 2)
			formed(t, nodes)
			for range 20 {
				for _, incarnation := range []uint64{0, 1, 2, 1 << 20, 1<<32 - 1} {
					throw(t, nodes[0].gossipAt(), forgeSuspect(nodes[1].cfg.id, incarnation), forgeDead(nodes[1].cfg.id, incarnation))
				}
				stillTwo(t, nodes)
			}
		})
	}
}

// The packets that stopped memberlist v0.6.0, or blew it up: an alive with a short Vsn, and a compressed message that is
// large when it is read. The version that we have reads the first; the second holds it up for seconds still.
func TestAttackPoisonPackets(t *testing.T) {
	const large = 16 << 20
	poison := [][]byte{
		forge(msgAlive, field{"Incarnation", uint64(1)}, field{"Node", "x"}, field{"Addr", []byte{127, 0, 0, 1}}, field{"Vsn", []byte{1}}),
		bomb(20 << 20),
	}
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			nodes := family.ours(t, 2)
			formed(t, nodes)
			got := allocated(func() {
				for range 10 {
					throw(t, nodes[0].gossipAt(), poison...)
				}
				stillTwo(t, nodes)
			})
			if got > large {
				t.Errorf("%d MB were allocated", got>>20)
			}
		})
	}
	for name, family := range families {
		t.Run(name+"/without defence", func(t *testing.T) {
			bareMemberlist(t, family.bare, nil)
			to := netip.AddrPortFrom(netip.MustParseAddr(family.bare), attackedPort).String()
			start := allocations()
			throw(t, to, poison...)
			took := answers(t, to) // after what came before
			got := allocations() - start
			t.Logf("it has allocated %d MB for a packet of %d bytes, and answers again after %v", got>>20, len(poison[1]), took)
			if got < large {
				t.Error("the attack does nothing")
			}
		})
	}
}

// answers waits until a memberlist without a key answers a ping, and says how long that took.
func answers(t *testing.T, to string) time.Duration {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return inTime(t, "answered", func() bool {
		_, err := conn.Write(forge(msgPing, field{"SeqNo", uint64(1)}, field{"Node", ""}))
		conn.SetReadDeadline(time.Now().Add(time.Second))
		if err == nil {
			_, err = conn.Read(make([]byte, 1500))
		}
		return err == nil
	})
}

// A stranger sends megabytes where a node would prove itself first.
func TestAttackBytesBeforeProof(t *testing.T) {
	const size, streams = 19 << 20, 4
	t.Run("without defence", func(t *testing.T) {
		bareMemberlist(t, "127.77.9.1", func(cfg *memberlist.Config) { cfg.SecretKey = make([]byte, 32) })
		message := append(binary.BigEndian.AppendUint32([]byte{msgEncrypt}, size), make([]byte, size)...)
		got := allocated(func() {
			for range streams {
				tell(t, "127.77.9.1:17946", message)
			}
		})
		if got < streams*size {
			t.Errorf("memberlist's own transport holds %d MB for strangers: the attack does nothing", got>>20)
		}
	})
	nodes := realNodes(t, 2)
	formed(t, nodes)
	garbage := make([]byte, size)
	greeting := append([]byte{0x16, 3, 1, 0x3f, 0xff, 1, 0xff, 0xff, 0xff}, garbage...) // of TLS, which says that it has 16 MB
	for _, to := range []string{nodes[0].gossipAt(), nodes[0].transport.local.String()} {
		got := allocated(func() {
			for range streams {
				tell(t, to, garbage)
				tell(t, to, greeting)
			}
		})
		t.Logf("%s: %d KB were allocated for %d MB", to, got>>10, 2*streams*size>>20)
		if got > size {
			t.Errorf("%s: %d MB were allocated", to, got>>20)
		}
	}
	stillTwo(t, nodes)
}

// Strangers open connections, and say nothing or one byte now and then. With the limits, few are kept, and not for long.
func TestAttackConnections(t *testing.T) {
	const attempts = 300
	for _, defended := range []bool{false, true} {
		t.Run(fmt.Sprintf("without defence %v", !defended), func(t *testing.T) {
			limit := defaultLimits
			limit.time = time.Second // instead of 5
			if !defended {
				limit = limits{conns: 1 << 20, handshakes: 1 << 20, fromOne: 1 << 20, time: time.Hour}
			}
			creds, err := newCredentials([]byte(GenerateSecret()), testKey(t))
			if err != nil {
				t.Fatal(err)
			}
			at := netip.AddrPortFrom(netip.MustParseAddr("127.77.9.2"), attackedPort)
			tr := newTransport(at, creds, &alarms{}, testLogger(t, "attacked"))
			tr.limits = limit
			tr.handle(alpnRPC, func(*tls.Conn, string) {})
			runUntilEnd(t, tr.run)
			count := func() int {
				tr.mu.Lock()
				defer tr.mu.Unlock()
				return len(tr.conns)
			}
			inTime(t, "listening", func() bool {
				conn, err := net.Dial("tcp", at.String())
				if err == nil {
					conn.Close()
				}
				return err == nil
			})
			for i := range attempts {
				conn, err := net.Dial("tcp", at.String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if i%2 == 0 {
					go drip(t, conn)
				}
				if got := count(); defended && got > limit.fromOne {
					t.Fatalf("%d connections of one stranger", got)
				}
			}
			if !defended {
				inTime(t, "kept", func() bool { return count() >= attempts })
				pause(t.Context(), 2*time.Second)
				if got := count(); got < attempts {
					t.Errorf("%d of %d connections are kept without limits: the attack does nothing", got, attempts)
				}
				return
			}
			t.Logf("the last of %d was closed after %v", attempts, inTime(t, "closed", func() bool { return count() == 0 }))
		})
	}
}

// A container behind a host opens connections with that host's address, all the time. The host's own node gets through,
// which it does not where the first come keep their places.
func TestAttackFromBehindANode(t *testing.T) {
	for _, defended := range []bool{false, true} {
		t.Run(fmt.Sprintf("without defence %v", !defended), func(t *testing.T) {
			secret := []byte(GenerateSecret())
			victim, _ := credentialsOf(t, secret)
			node, _ := credentialsOf(t, secret)
			from := netip.MustParseAddr("127.77.1.2")
			at := netip.AddrPortFrom(netip.MustParseAddr("127.77.9.5"), attackedPort)
			tr := newTransport(at, victim, &alarms{}, testLogger(t, "attacked"))
			tr.limits.time = time.Hour
			if !defended {
				tr.limits.fromOne, tr.limits.handshakes = 1<<20, defaultLimits.fromOne
			}
			tr.handle(alpnRPC, func(*tls.Conn, string) {})
			runUntilEnd(t, tr.run)
			for range 3 * defaultLimits.fromOne {
				open(t, from, at)
			}
			inTime(t, "full", func() bool {
				tr.mu.Lock()
				defer tr.mu.Unlock()
				return (tr.accepted == 3*defaultLimits.fromOne || !defended) && len(tr.conns) == defaultLimits.fromOne
			})
			conn, _, err := newTransport(netip.AddrPortFrom(from, 1), node, &alarms{}, testLogger(t, "node")).dial(t.Context(), at, alpnRPC)
			if err == nil {
				conn.Close()
			}
			if defended != (err == nil) {
				t.Errorf("the node got through: %v", err)
			}
		})
	}
}

// open makes a connection that stays open until the test ends, or the other side closes it.
func open(t *testing.T, from netip.Addr, to netip.AddrPort) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	inTime(t, "connected", func() bool {
		conn, err := dialer.Dial("tcp", to.String())
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err == nil
	})
}

// Strangers at many addresses take all places for those who have not yet proved themselves, again and again. A node that is
// known gets through all the same.
func TestAttackAllPlacesTaken(t *testing.T) {
	for _, defended := range []bool{false, true} {
		t.Run(fmt.Sprintf("without defence %v", !defended), func(t *testing.T) {
			secret := []byte(GenerateSecret())
			victim, _ := credentialsOf(t, secret)
			node, _ := credentialsOf(t, secret)
			from := netip.MustParseAddr("127.77.1.2")
			at := netip.AddrPortFrom(netip.MustParseAddr("127.77.9.4"), attackedPort)
			tr := newTransport(at, victim, &alarms{}, testLogger(t, "attacked"))
			tr.limits.time = time.Hour
			if defended {
				tr.friend = func(addr netip.Addr) bool { return addr == from }
			}
			served := make(chan struct{}, 1)
			tr.handle(alpnRPC, func(*tls.Conn, string) { served <- struct{}{} })
			runUntilEnd(t, tr.run)
			for i := range 2 * defaultLimits.handshakes {
				open(t, netip.AddrFrom4([4]byte{127, 77, 2, byte(1 + i%20)}), at)
			}
			inTime(t, "full", func() bool {
				tr.mu.Lock()
				defer tr.mu.Unlock()
				return len(tr.conns) == defaultLimits.handshakes
			})
			conn, _, err := newTransport(netip.AddrPortFrom(from, 1), node, &alarms{}, testLogger(t, "node")).dial(t.Context(), at, alpnRPC)
			if err == nil {
				defer conn.Close()
				<-served
			}
			if defended != (err == nil) {
				t.Errorf("the node got through: %v", err)
			}
		})
	}
}

// drip sends the beginning of a handshake, a byte at a time, for as long as somebody listens.
func drip(t *testing.T, conn net.Conn) {
	for _, b := range append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 500)...) {
		if _, err := conn.Write([]byte{b}); err != nil || !pause(t.Context(), 100*time.Millisecond) {
			return
		}
	}
}

// While strangers flood all ports of a node, others still hear of its endpoints.
func TestAttackFlood(t *testing.T) {
	nodes := realNodes(t, 2)
	formed(t, nodes)
	for _, n := range nodes {
		if err := n.gossip.attend("blue", true); err != nil {
			t.Fatal(err)
		}
	}
	garbage := make([]byte, 1400)
	rand.Read(garbage)
	garbage[0] = packetVersion
	done := make(chan int)
	go func() {
		conn, err := net.Dial("udp", nodes[0].gossipAt())
		if err != nil {
			t.Error(err)
		}
		defer conn.Close()
		sent := 0
		for ; sent < 100000; sent++ {
			binary.BigEndian.PutUint64(garbage[1:], uint64(sent))
			conn.Write(garbage)
			if sent%1000 == 0 {
				for _, to := range []string{nodes[0].gossipAt(), nodes[0].transport.local.String()} {
					if c, err := net.Dial("tcp", to); err == nil {
						c.Write(garbage)
						defer c.Close()
					}
				}
			}
		}
		done <- sent
	}()
	start, records, sent := time.Now(), 0, 0
	for sent == 0 {
		if err := nodes[0].gossip.publish("blue", fmt.Sprint(records), []byte("x")); err != nil {
			t.Fatal(err)
		}
		records++
		inTime(t, "there", func() bool { return nodes[1].records("blue", nodes[0]) == records })
		select {
		case sent = <-done:
		default:
		}
	}
	t.Logf("%d records, one after the other, got through during a flood of %d datagrams in %v", records, sent, time.Since(start))
	stillTwo(t, nodes)
}

func (n *realNode) gossipAt() string { return n.cfg.gossipAddr().String() }

func (c gossipConfig) gossipAddr() netip.AddrPort {
	return netip.AddrPortFrom(c.advertise, c.gossipPort)
}

func formed(t *testing.T, nodes []*realNode) {
	t.Helper()
	inTime(t, "together", func() bool {
		for _, n := range nodes {
			if len(n.gossip.contacts.allLive(true)) != len(nodes)-1 {
				return false
			}
		}
		return true
	})
}

// stillTwo: each knows the other as alive, and nobody else.
func stillTwo(t *testing.T, nodes []*realNode) {
	t.Helper()
	pause(t.Context(), 100*time.Millisecond) // what was sent is read by then
	for _, n := range nodes {
		if got := n.gossip.list.Load().NumMembers(); got != 2 {
			t.Errorf("memberlist knows %d nodes", got)
		}
		if members := n.gossip.members(); len(members) != 1 || !members[0].Alive || members[0].Suspended {
			t.Errorf("members %+v", members)
		}
	}
}

// tell sends something to a TCP port and waits until the other side has closed.
func tell(t *testing.T, to string, message []byte) {
	t.Helper()
	var conn net.Conn
	inTime(t, "connected", func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", to)
		return err == nil
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	conn.Write(message) // it may be closed in the middle of it
	io.Copy(io.Discard, conn)
}

// runUntilEnd runs something until the test ends.
func runUntilEnd(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
