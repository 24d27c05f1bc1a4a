package cluster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// alone is a cluster of one node, at an address of each family.
func alone(t *testing.T, addr netip.Addr) *testNode {
	t.Helper()
	l := newLab(t)
	if addr.Is4() {
		l.next = addr.As4()[3] - 2
	}
	n := l.host()
	n.cfg.Advertise = addr
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	return n
}

// ask makes one request as whoever has those credentials, from an address.
func ask(t *testing.T, creds *credentials, from netip.Addr, to *testNode, op string, in, out any) error {
	t.Helper()
	c := &Cluster{transport: newTransport(netip.AddrPortFrom(from, 1), creds, &alarms{}, testLogger(t, "attacker"))}
	_, err := c.call(t.Context(), to.c.transport.local, op, in, out)
	return err
}

func credentialsOf(t *testing.T, secret []byte) (*credentials, string) {
	t.Helper()
	key := testKey(t)
	creds, err := newCredentials(secret, key)
	if err != nil {
		t.Fatal(err)
	}
	return creds, nodeID(publicKey(key))
}

func joining(id string, addr netip.Addr) registered {
	return registered{ID: id, Name: "attacker", Addr: addr, GossipPort: 1, RaftPort: 2}
}

// Somebody asks to join without the secret. The control run has it.
func TestAttackJoinWithoutSecret(t *testing.T) {
	for _, addr := range []string{"127.0.0.2", "::1"} {
		t.Run(addr, func(t *testing.T) {
			from := netip.MustParseAddr(addr)
			n := alone(t, from)
			wrong, wrongID := credentialsOf(t, []byte(GenerateSecret()))
			if err := ask(t, wrong, from, n, opJoin, joining(wrongID, from), &joined{}); err == nil {
				t.Error("with another secret it joined")
			}
			conn, err := tls.Dial("tcp", n.at(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnRPC}})
			if err == nil { // in TLS 1.3 a client hears later that it is refused
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("without a certificate: %v", err)
			}
			if nodes := n.c.Nodes(); len(nodes) != 1 {
				t.Errorf("%d nodes: %v", len(nodes), nodes)
			}
			right, rightID := credentialsOf(t, n.cfg.Secret)
			if err := ask(t, right, from, n, opJoin, joining(rightID, from), &joined{}); err != nil || len(n.c.Nodes()) != 2 {
				t.Errorf("with the secret: %v: the attack does nothing", err)
			}
		})
	}
}

// Whoever has the secret can issue certificates. One in another node's name, with a key of his own, is not that node's.
func TestAttackBorrowedIdentity(t *testing.T) {
	n := alone(t, netip.MustParseAddr("127.0.0.2"))
	_, victim := credentialsOf(t, n.cfg.Secret)
	seed, err := derive(n.cfg.Secret, labelCA, ed25519.SeedSize)
	if err != nil {
		t.Fatal(err)
	}
	caKey, key := ed25519.NewKeyFromSeed(seed), testKey(t)
	issue := func(id string) *credentials {
		ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "carrick cluster"}, NotBefore: certFrom, NotAfter: certUntil,
			KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: id}, NotBefore: certFrom, NotAfter: certUntil}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		own, err := newCredentials(n.cfg.Secret, key)
		if err != nil {
			t.Fatal(err)
		}
		own.cert.Certificate = [][]byte{der}
		return own
	}
	from := netip.MustParseAddr("127.0.0.9")
	if err := ask(t, issue(victim), from, n, opJoin, joining(victim, from), &joined{}); err == nil {
		t.Error("it joined in the name of another")
	}
	own := nodeID(publicKey(key))
	var refused *rpcError
	if err := ask(t, issue(own), from, n, opJoin, joining(victim, from), &joined{}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "asks to join as "+victim) {
		t.Errorf("it asked for the entry of another: %v", err)
	}
	if err := ask(t, issue(own), from, n, opJoin, joining(own, from), &joined{}); err != nil {
		t.Errorf("in its own name: %v: the attack does nothing", err)
	}
}

// A node asks to join with the address of another, to which its traffic would go, and with its own.
func TestAttackJoinWithTheAddressOfAnother(t *testing.T) {
	n := alone(t, netip.MustParseAddr("127.0.0.2"))
	from := netip.MustParseAddr("127.0.0.9")
	for addr, want := range map[netip.Addr]string{n.cfg.Advertise: "asks to join with the address 127.0.0.2 and calls from 127.0.0.9", from: ""} {
		creds, id := credentialsOf(t, n.cfg.Secret)
		err := ask(t, creds, from, n, opJoin, joining(id, addr), &joined{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("as %s: %v, want %q", addr, err, want)
		}
	}
}

// Two hosts of one name ask at the same time, of different members: one of them joins, and the other is told.
func TestAttackTwoHostsOfOneName(t *testing.T) {
	l := newLab(t)
	nodes := l.hosts(3)
	allUp(nodes)
	oneCluster(t, nodes...)
	var twins []*testNode
	for i := range 2 {
		n := l.host(nodes[i].at())
		n.cfg.Name = "twin"
		twins = append(twins, n)
	}
	allUp(twins)
	states := func(s State) int {
		count := 0
		for _, n := range twins {
			if n.state() == s {
				count++
			}
		}
		return count
	}
	eventually(t, "one is a member and one is refused", func() bool { return states(Member) == 1 && states(Refused) == 1 })
	i := slices.IndexFunc(twins, func(n *testNode) bool { return n.state() == Refused })
	if reason := twins[i].c.Status().Reason; !strings.Contains(reason, `another node is called "twin" already`) {
		t.Errorf("it is told: %s", reason)
	}
	all := nodes[0].c.Nodes()
	if got := slices.DeleteFunc(all, func(n Node) bool { return n.Name != "twin" }); len(got) != 1 {
		t.Errorf("nodes of that name: %v", got)
	}
}

// FuzzRequests: what a node asks another may be anything. It is answered or refused, and changes nothing that it may not.
func FuzzRequests(f *testing.F) {
	for _, r := range []request{
		{Version: rpcVersion, Op: opHello, Body: json.RawMessage(`{"cluster":"c","node":{"id":"x"}}`)},
		{Version: rpcVersion, Op: opJoin, Body: json.RawMessage(`{"id":"attacker","name":"x","addr":"192.0.2.1","gossip":1,"raft":2}`)},
		{Version: rpcVersion, Op: opPropose, Body: json.RawMessage(`{"id":"1","txn":{"then":[{"key":"a","value":"eA=="}]}}`)},
		{Version: rpcVersion, Op: opIndex},
	} {
		raw, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	c, err := New(Config{
		Secret: []byte(GenerateSecret()), Advertise: netip.MustParseAddr("127.0.0.2"), Name: "n", GossipPort: 1, RaftPort: 2,
		Dir: f.TempDir(), Log: newMemKV(), timing: quick(),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r request
		if err := json.Unmarshal(in, &r); err != nil {
			return
		}
		conn := tls.Client(scripted{}, &tls.Config{})
		if a := c.answer(t.Context(), conn, "attacker", r); r.Op != opHello && a.Code == "" {
			t.Fatalf("%s was done by a node that is no member: %+v", in, a)
		}
		if c.View().Index() != 0 {
			t.Fatalf("%s has changed the facts", in)
		}
	})
}
