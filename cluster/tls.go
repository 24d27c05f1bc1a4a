package cluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Protocols on the TCP ports, told apart by ALPN (RFC 7301). A version that is not understood is a name that is not
// in the list, and the handshake says so.
const (
	alpnRaft   = "carrick-raft/1"
	alpnRPC    = "carrick-rpc/1"
	alpnPull   = "carrick-pull/1"
	alpnGossip = "carrick-gossip/1" // on the gossip port
)

// handshakeTimeout bounds a handshake on either side: two round trips and one signature take milliseconds, a lost
// packet one second (RFC 6298 section 2.1), two lost ones three.
const handshakeTimeout = 5 * time.Second

// errOtherSecret: the other side proved that it knows another SECRET.
var errOtherSecret = errors.New("has another SECRET")

// credentials are what a node proves itself with.
type credentials struct {
	id   string
	cert tls.Certificate
	pool *x509.CertPool // the cluster's CA alone
}

// The certificates say nothing about time, because hosts without a clock must find each other too: valid since before
// we existed until the end that RFC 5280 section 4.1.2.5 gives to those that have none. verify does not ask the clock.
var (
	certFrom  = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	certUntil = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// newCredentials issues the certificate of a node from the CA that every node derives from SECRET. Ed25519 signs
// deterministically (RFC 8032), so the CA's certificate is the same everywhere.
func newCredentials(secret []byte, node ed25519.PrivateKey) (*credentials, error) {
	seed, err := derive(secret, labelCA, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	caKey := ed25519.NewKeyFromSeed(seed)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "carrick cluster"},
		NotBefore:             certFrom,
		NotAfter:              certUntil,
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("cluster ca: %w", err)
	}
	if ca, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("cluster ca: %w", err)
	}
	public := node.Public().(ed25519.PublicKey)
	var random [16]byte  // of this life: two hosts that have one key can be told from one that has dialled itself
	rand.Read(random[:]) // never fails (crypto/rand since Go 1.24)
	serial := new(big.Int).SetBytes(append([]byte{1}, random[:]...))
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: nodeID(public)},
		NotBefore:    certFrom,
		NotAfter:     certUntil,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, public, caKey); err != nil {
		return nil, fmt.Errorf("node certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &credentials{id: nodeID(public), cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: node}, pool: pool}, nil
}

// config is for one protocol when dialling, for all of them when listening. The verification of crypto/tls is replaced,
// not left out: there are no host names here, and it would ask the clock.
func (c *credentials) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c.cert},
		NextProtos:             protocols,
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // see VerifyConnection
		SessionTicketsDisabled: true, // a resumed session would prove SECRET as of then, and the key to nobody
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := c.verify(s)
			return err
		},
	}
}

// verify returns the id of the node at the other end.
func (c *credentials) verify(s tls.ConnectionState) (string, error) {
	if len(s.PeerCertificates) != 1 {
		return "", fmt.Errorf("%d certificates, expected 1", len(s.PeerCertificates))
	}
	cert := s.PeerCertificates[0]
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       c.pool,
		CurrentTime: certFrom.Add(time.Hour),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errOtherSecret, err)
	}
	public, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("certificate with a key of type %T", cert.PublicKey)
	}
	id := nodeID(public)
	if cert.Subject.CommonName != id {
		return "", fmt.Errorf("certificate of %q with the key of %s", cert.Subject.CommonName, id)
	}
	return id, nil
}

// refusedUs tells whether a handshake failed because the other side did not accept our certificate. crypto/tls has no
// type for a received alert; its text is that of RFC 8446 section 6, "bad certificate" for what VerifyConnection refused.
func refusedUs(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "bad certificate")
}

// dial connects to a node and returns its id. In TLS 1.3 a client is through before the server has looked at its
// certificate, so that a refusal shows at the first read.
func (t *transport) dial(ctx context.Context, addr netip.AddrPort, alpn string) (*tls.Conn, string, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	if local := t.local.Addr(); local.IsValid() {
		// The others know us by this address, and firewalls too.
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	raw, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, "", err
	}
	conn := tls.Client(raw, t.creds.config(alpn))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		t.handshakeFailed(addr.Addr(), err)
		return nil, "", fmt.Errorf("%s: %w", addr, err)
	}
	id, err := t.creds.verify(conn.ConnectionState())
	if err != nil {
		conn.Close()
		return nil, "", fmt.Errorf("%s: %w", addr, err)
	}
	if err := t.isOther(conn.ConnectionState(), id); err != nil {
		conn.Close()
		return nil, "", fmt.Errorf("%s: %w", addr, err)
	}
	return conn, id, nil
}
