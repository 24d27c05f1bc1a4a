package cluster

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math"
	"strings"
)

// Lengths of secrets, in bytes.
const (
	// secretBytes of randomness go into a secret that we make: twice the 128 bits that nobody can search.
	secretBytes = 32
	// minSecret characters: 22 characters of base64 carry 132 bits.
	minSecret = 22
	// maxSecret keeps a file that was pasted by mistake out of the settings.
	maxSecret = 1024
	// minSecretBits is what we want to see in the characters of a secret, from how often each occurs in it. 22 random
	// characters of base64 show 80 to 98 bits by this count, random hexadecimal digits of 128 bits about 115; it is a net for
	// repeated patterns and words, not a measure of randomness.
	minSecretBits = 64
)

// Labels of what is derived from SECRET: one per use, so that no key says anything about another. They are part of the
// protocol; a change makes another cluster.
const (
	labelGossipKey = "carrick/1 gossip key"
	labelPacket    = "carrick/1 gossip life" // with the life's number
	labelCA        = "carrick/1 cluster ca"
)

// GenerateSecret returns a new SECRET.
func GenerateSecret() string {
	random := make([]byte, secretBytes)
	rand.Read(random) // never fails (crypto/rand since Go 1.24)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random))
}

// CheckSecret says why a SECRET must not be used, without repeating it.
func CheckSecret(secret string) error {
	const advice = "; `carrick secret` makes a good one"
	switch {
	case secret == "":
		return errors.New("SECRET is empty" + advice)
	case len(secret) < minSecret:
		return fmt.Errorf("SECRET has %d characters, at least %d random ones are needed"+advice, len(secret), minSecret)
	case len(secret) > maxSecret:
		return fmt.Errorf("SECRET has %d characters, at most %d are allowed"+advice, len(secret), maxSecret)
	case strings.TrimSpace(secret) != secret:
		return errors.New("SECRET begins or ends with a blank" + advice)
	case seenBits(secret) < minSecretBits || periodic(secret):
		return errors.New("SECRET is too regular, it must be random" + advice)
	}
	return nil
}

// seenBits is Shannon's entropy of the characters, times their number.
func seenBits(s string) float64 {
	count := map[byte]int{}
	for i := range len(s) {
		count[s[i]]++
	}
	bits := 0.0
	for _, n := range count {
		bits -= float64(n) * math.Log2(float64(n)/float64(len(s)))
	}
	return bits
}

// periodic tells whether s repeats a shorter string, or counts up or down.
func periodic(s string) bool {
	for p := 1; p <= len(s)/2; p++ {
		if s[p:] == s[:len(s)-p] {
			return true
		}
	}
	steps := 0
	for i := 1; i < len(s); i++ {
		if d := int(s[i]) - int(s[i-1]); d == 1 || d == -1 {
			steps++
		}
	}
	return steps > len(s)/2
}

// derive returns size bytes for one use of the secret (RFC 5869).
func derive(secret []byte, label string, size int) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, label, size)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", label, err)
	}
	return key, nil
}
