package cluster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
)

// keyFile is the node's key, in Config.Dir.
const keyFile = "node.key"

// keyVersion is the version of keyFile.
const keyVersion = 1

// errNewer: a newer program wrote it; nothing is lost, only the program too old.
var errNewer = errors.New("written by a newer version of carrick")

// storedKey is what keyFile holds.
type storedKey struct {
	Version int    `json:"v"`
	Seed    []byte `json:"seed"` // RFC 8032 section 5.1.5
	// Sum is the CRC-32C of the others, in every version: a damaged version is not taken for a newer one. Zero: an older
	// program wrote it.
	Sum uint32 `json:"sum,omitempty"`
}

func (k storedKey) sum() uint32 {
	return crc32.Checksum(fmt.Appendf(nil, "%d %x", k.Version, k.Seed), crcTable)
}

// nodeID is the fingerprint of a node's public key: the first 16 bytes of its SHA-256, in hexadecimal. Nobody finds a
// second key with the same (2^128 tries), and it is short enough to be read aloud in parts.
func nodeID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:16])
}

// errNoKey: there is no key, or what is there is none.
var errNoKey = errors.New("no key")

// loadKey reads the node's key. A file that cannot be read is neither errNoKey nor errNewer.
func loadKey(dir string) (ed25519.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoKey
	}
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	var stored storedKey
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, errNoKey, err)
	}
	if stored.Sum != 0 && stored.Sum != stored.sum() || stored.Version < keyVersion {
		return nil, fmt.Errorf("%s: %w: it does not match its checksum", path, errNoKey)
	}
	if stored.Version != keyVersion {
		return nil, fmt.Errorf("%s: %w: format %d, this node knows %d", path, errNewer, stored.Version, keyVersion)
	}
	if len(stored.Seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: %w: %d bytes, expected %d", path, errNoKey, len(stored.Seed), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(stored.Seed), nil
}

// makeKey makes a new key and returns when it is on disk.
func makeKey(dir string) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails (crypto/rand since Go 1.24)
	stored := storedKey{Version: keyVersion, Seed: seed}
	stored.Sum = stored.sum()
	raw, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if err := makeAll(dir); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	if err := writeSynced(path+".new", raw); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if err := rename(path+".new", path); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
