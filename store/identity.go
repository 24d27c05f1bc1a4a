package store

import (
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"path/filepath"
)

// identity tells the files of one store from those of another: 12 random bytes, and the checksum of the name of the
// directory that it was made for. Whoever puts the directory of leases in the place of another store is found out.
type identity [16]byte

func newIdentity(dir string) (id identity) {
	rand.Read(id[:12]) // never fails (crypto/rand since Go 1.24)
	binary.LittleEndian.PutUint32(id[12:], crc32.Checksum([]byte(filepath.Base(dir)), castagnoli))
	return id
}

// isFor says whether the identity was made for a directory of this name.
func (id identity) isFor(dir string) bool {
	return binary.LittleEndian.Uint32(id[12:]) == crc32.Checksum([]byte(filepath.Base(dir)), castagnoli)
}

// chain is what the checksum of the first commit goes on from.
func (id identity) chain() uint32 { return crc32.Checksum(id[:], castagnoli) }
