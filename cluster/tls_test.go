package cluster

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func testKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	key, err := makeKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestWrongSecretIsSeenOnBothSides(t *testing.T) {
	l := newLab(t)
	a, b := l.host(), l.host()
	a.cfg.Join, b.cfg.Join = []string{a.at()}, []string{a.at()}
	b.cfg.Secret = []byte(GenerateSecret())
	a.up()
	b.up()
	eventually(t, "both say so", func() bool {
		return strings.Contains(fmt.Sprint(a.c.Status().Alarms), "127.0.0.3 has another SECRET") &&
			strings.Contains(fmt.Sprint(b.c.Status().Alarms), "127.0.0.2 has another SECRET")
	})
	b.stop()
	eventually(t, "the alarm goes", func() bool { return len(a.c.Status().Alarms) == 0 })
}

func TestCertificateProvesSecretAndKey(t *testing.T) {
	secret, key := []byte(GenerateSecret()), testKey(t)
	own, err := newCredentials(secret, key)
	if err != nil {
		t.Fatal(err)
	}
	same, err := newCredentials(secret, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newCredentials([]byte(GenerateSecret()), key)
	if err != nil {
		t.Fatal(err)
	}
	state := func(c *credentials) tls.ConnectionState {
		cert, err := x509.ParseCertificate(c.cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	}
	if id, err := same.verify(state(own)); err != nil || id != nodeID(publicKey(key)) {
		t.Errorf("verify: %q, %v", id, err)
	}
	if _, err := other.verify(state(own)); !errors.Is(err, errOtherSecret) {
		t.Errorf("another secret: %v", err)
	}
	forged := state(own)
	forged.PeerCertificates[0].Subject.CommonName = nodeID(publicKey(testKey(t)))
	if _, err := same.verify(forged); err == nil {
		t.Error("a certificate with the id of another key is accepted")
	}
	if _, err := same.verify(tls.ConnectionState{}); err == nil {
		t.Error("no certificate is accepted")
	}
}
