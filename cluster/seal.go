package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// A datagram of the gossip:
//
//	version (1) | life of the sender (8) | number (8) | AES-256-GCM of the message (its length + 16)
//
// A life is a random number that a process draws when it starts and tells in its meta. It has a key of its own, and numbers
// what it sends, so that no nonce is used twice. The life of the receiver is authenticated too. So a datagram counts once,
// at the node for which it was made, and no longer when that, or the sender, has been started anew.
const (
	packetVersion  = 1
	packetHead     = 1 + 8 + 8
	packetOverhead = packetHead + 16
	// packetWindow is by how much datagrams may overtake each other: a node sends a hundred a second, to all others together,
	// and numbers them as one.
	packetWindow = 4096
)

var errSealed = errors.New("not a datagram for this node")

// sealer is this node's life as others see it.
type sealer struct {
	key  []byte // of the cluster
	life uint64
	aead cipher.AEAD
	sent atomic.Uint64
}

func newSealer(key []byte) (*sealer, error) {
	var random [8]byte
	rand.Read(random[:])                                                 // never fails (crypto/rand since Go 1.24)
	s := &sealer{key: key, life: binary.BigEndian.Uint64(random[:]) | 1} // 0 is no life
	var err error
	s.aead, err = lifeAEAD(key, s.life)
	return s, err
}

func lifeAEAD(key []byte, life uint64) (cipher.AEAD, error) {
	own, err := derive(key, fmt.Sprintf("%s %016x", labelPacket, life), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal makes a datagram for the node that lives that life.
func (s *sealer) seal(to uint64, message []byte) []byte {
	number := s.sent.Add(1)
	packet := make([]byte, packetHead, packetOverhead+len(message))
	packet[0] = packetVersion
	binary.BigEndian.PutUint64(packet[1:], s.life)
	binary.BigEndian.PutUint64(packet[9:], number)
	return s.aead.Seal(packet, nonce(number), message, authenticated(packet, to))
}

// senderOf is the life that a datagram says it is from.
func senderOf(packet []byte) (uint64, error) {
	if len(packet) < packetOverhead || packet[0] != packetVersion {
		return 0, errSealed
	}
	return binary.BigEndian.Uint64(packet[1:]), nil
}

func nonce(number uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), number)
}

func authenticated(packet []byte, to uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, packetHead+8), packet[:packetHead]...), to)
}

// opener is what another life has sent to this one.
type opener struct {
	aead cipher.AEAD
	seen window
}

func newOpener(key []byte, life uint64) (*opener, error) {
	aead, err := lifeAEAD(key, life)
	return &opener{aead: aead}, err
}

// open returns the message. The packet is not to be used any more.
func (o *opener) open(self uint64, packet []byte) ([]byte, error) {
	number := binary.BigEndian.Uint64(packet[9:])
	if !o.seen.fresh(number) {
		return nil, fmt.Errorf("%w: number %d was here, or is too old", errSealed, number)
	}
	body := packet[packetHead:]
	message, err := o.aead.Open(body[:0], nonce(number), body, authenticated(packet, self))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSealed, err)
	}
	o.seen.add(number)
	return message, nil
}

// window remembers which of the newest numbers were seen (RFC 6479).
type window struct {
	newest uint64
	bits   [packetWindow / 64]uint64
}

func (w *window) fresh(n uint64) bool {
	switch {
	case n > w.newest:
		return true
	case w.newest-n >= packetWindow-64: // the word of the newest number is cleared as a whole
		return false
	}
	return w.bits[n/64%uint64(len(w.bits))]&(1<<(n%64)) == 0
}

func (w *window) add(n uint64) {
	words := uint64(len(w.bits))
	for word := w.newest/64 + 1; n > w.newest && word <= n/64; word++ {
		if word+words <= n/64 {
			word = n/64 - words + 1 // all others are cleared by these
		}
		w.bits[word%words] = 0
	}
	w.newest = max(w.newest, n)
	w.bits[n/64%words] |= 1 << (n % 64)
}
