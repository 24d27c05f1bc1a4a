package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

func TestSecretsThatWeMakeAreGood(t *testing.T) {
	seen := map[string]bool{}
	for range 10000 {
		secret := GenerateSecret()
		if err := CheckSecret(secret); err != nil {
			t.Fatalf("%s: %v", secret, err)
		}
		if seen[secret] {
			t.Fatalf("%s was made twice", secret)
		}
		seen[secret] = true
	}
}

// What other tools make of 128 random bits and more must not be refused.
func TestRandomSecretsAreAccepted(t *testing.T) {
	for range 20000 {
		random := make([]byte, 16)
		rand.Read(random)
		for _, secret := range []string{hex.EncodeToString(random), base64.RawURLEncoding.EncodeToString(random)} {
			if err := CheckSecret(secret); err != nil {
				t.Fatalf("%s: %v", secret, err)
			}
		}
	}
}

func TestWeakSecretsAreRefused(t *testing.T) {
	for _, secret := range []string{
		"", "secret", "correct horse battery", strings.Repeat("a", 40), strings.Repeat("ab", 20), strings.Repeat("changeme", 5),
		"0123456789abcdef0123456789abcdef", "abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba9876543210",
		"11111111111111111111111111111112", strings.Repeat("0", 31) + "1", "12345678901234567890123456789012",
		" " + GenerateSecret(), GenerateSecret() + "\n", strings.Repeat(GenerateSecret(), 30),
	} {
		err := CheckSecret(secret)
		if err == nil {
			t.Errorf("%q is accepted", secret)
			continue
		}
		if !strings.Contains(err.Error(), "`carrick secret` makes a good one") {
			t.Errorf("%q: %v does not say what to do", secret, err)
		}
		if len(secret) > 6 && strings.Contains(err.Error(), secret) {
			t.Errorf("%v repeats the secret", err)
		}
	}
}

func TestEveryUseHasItsOwnKey(t *testing.T) {
	var keys [][]byte
	for _, label := range []string{labelGossipKey, labelPacket, labelCA} {
		key, err := derive([]byte("secret"), label, 32)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range keys {
			if bytes.Equal(key, other) {
				t.Errorf("%s: the same key as another", label)
			}
		}
		keys = append(keys, key)
	}
	// Part of the protocol: nodes of different versions derive the same.
	if got, want := hex.EncodeToString(keys[0]), "19539f1558ba3ca51fd4608725450032e2be7f436546dd685a87c6f37bd66767"; got != want {
		t.Errorf("gossip key %s, want %s", got, want)
	}
}
