package cluster

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	msgCompress = 9
	msgEncrypt  = 10
	msgLabel    = 244
)

// bomb is a compressed message that becomes large when it is read.
func bomb(size int) []byte {
	var packed bytes.Buffer
	w := lzw.NewWriter(&packed, lzw.LSB, 8)
	w.Write(make([]byte, size)) // a buffer takes everything
	w.Close()
	b := []byte{msgCompress, 0x82, 0xa4, 'A', 'l', 'g', 'o', 0x00, 0xa3, 'B', 'u', 'f', 0xdb}
	return append(binary.BigEndian.AppendUint32(b, uint32(packed.Len())), packed.Bytes()...)
}

// nested is a list in a list in a list.
func nested(depth int) []byte {
	b := []byte{msgUser}
	for range depth {
		b = compound(b)
	}
	return b
}

// malformedPackets are datagrams that no Carrick node sends.
func malformedPackets() map[string][]byte {
	alive := forgeAlive("n", net.IPv4(127, 0, 0, 1), 1, 1, nil)
	sum := append([]byte{msgCRC, 0, 0, 0, 0}, alive...)
	return map[string][]byte{
		"nothing":                     {},
		"a bomb":                      bomb(4 << 20),
		"a bomb in a list":            compound(bomb(1 << 20)),
		"a list in a list":            nested(2),
		"a list in a thousand lists":  nested(1000),
		"a label":                     append([]byte{msgLabel, 4, 't', 'e', 's', 't'}, alive...),
		"a sealed message":            append([]byte{msgEncrypt, 0, 0, 0, 40}, make([]byte, 40)...),
		"a push/pull":                 pushPull(1, 0, 1),
		"an unknown kind":             {77, 0x80},
		"half an alive":               alive[:len(alive)/2],
		"an alive and more":           append(bytes.Clone(alive), 0),
		"a wrong checksum":            sum,
		"a list without its parts":    {msgCompound, 200, 0, 1},
		"a list with half a part":     compound(alive)[:20],
		"an empty part":               compound(nil),
		"a struct as an array":        {msgAlive, 0x96, 1, 0xa1, 'n', 0xa1, 'x', 1, 0xc0, 0xc0},
		"a map in a map":              {msgAlive, 0x81, 0xa1, 'n', 0x81, 0xa1, 'n', 1},
		"a map of 2^32 fields":        {msgAlive, 0xdf, 0xff, 0xff, 0xff, 0xff},
		"bytes of 2^32":               {msgAlive, 0x81, 0xa4, 'N', 'o', 'd', 'e', 0xdb, 0xff, 0xff, 0xff, 0xff},
		"bytes beyond the end":        {msgAlive, 0x81, 0xa4, 'N', 'o', 'd', 'e', 0xda, 0x01, 0x00, 'x'},
		"a name of two kilobytes":     forgeDead(strings.Repeat("n", 2048), 1),
		"an extension":                {msgAlive, 0x81, 0xa1, 'n', 0xc7, 1, 1, 1},
		"17 fields":                   append([]byte{msgAlive, 0xde, 0, 17}, bytes.Repeat([]byte{0xa1, 'n', 1}, 17)...),
		"a list of one, and a list":   compound(compound(alive)),
		"a checksum of a checksum":    append([]byte{msgCRC, 0, 0, 0, 0}, sum...),
		"a checksum and nothing else": {msgCRC, 0, 0, 0, 0},
	}
}

// malformedStreams are what no Carrick node says on a stream of the gossip.
func malformedStreams() map[string][]byte {
	return map[string][]byte{
		"nothing":                      {},
		"a push/pull of a million":     pushPull(1<<20, 0, 0),
		"a push/pull of 2^64":          pushPull(1<<64-1, 0, 0),
		"a push/pull cut short":        pushPull(5, 0, 4),
		"a state of 20 MB":             pushPull(0, 20<<20, 0),
		"a user's message of 20 MB":    forge(msgUser, field{"UserMsgLen", uint64(20 << 20)}),
		"a bomb":                       bomb(4 << 20),
		"a sealed message without end": {msgEncrypt, 0x01, 0x3f, 0xff, 0xff},
		"a label":                      {msgLabel, 4, 't', 'e', 's', 't', msgPing, 0x80},
		"a list":                       nested(1),
		"an alive":                     forgeAlive("n", net.IPv4(127, 0, 0, 1), 1, 1, nil),
		"an unknown kind":              {77, 0x80},
	}
}

// sealedByMemberlist is a message as memberlist's own encryption has it, in either of its versions, and without the padding
// that version 0 wants.
func sealedByMemberlist(t *testing.T, version byte, key, message, authenticated []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, 12)
	return gcm.Seal(append([]byte{version}, nonce...), nonce, message, authenticated)
}

// Whoever has the key stops a memberlist with one message. It runs in a process of its own.
func TestAttackMalformedWithoutDefence(t *testing.T) {
	key := make([]byte, 32)
	if os.Getenv("CARRICK_TEST_VICTIM") != "" {
		bareMemberlist(t, "127.77.9.3", func(cfg *memberlist.Config) { cfg.SecretKey = key })
		<-time.After(time.Minute)
		return
	}
	const at = "127.77.9.3:17946"
	head := []byte{msgEncrypt, 0, 0, 0, 29} // an empty message has 29 bytes
	for name, attack := range map[string]func(){
		"a stream without a byte": func() {
			if conn, err := net.Dial("tcp", at); err == nil {
				conn.Write(append(bytes.Clone(head), sealedByMemberlist(t, 1, key, nil, head)...))
				conn.Close()
			}
		},
		"a padding longer than the datagram": func() {
			throw(t, at, sealedByMemberlist(t, 0, key, bytes.Repeat([]byte{0xff}, 16), nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			victim := exec.Command(os.Args[0], "-test.run=^"+strings.Split(t.Name(), "/")[0]+"$")
			victim.Env = append(os.Environ(), "CARRICK_TEST_VICTIM=1")
			var out bytes.Buffer
			victim.Stdout, victim.Stderr = &out, &out
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				victim.Wait() // its exit code is that of a panic
			}()
			inTime(t, "dead", func() bool {
				attack()
				select {
				case <-ended:
					return true
				default:
					return false
				}
			})
			text := out.String()
			if !strings.Contains(text, "hashicorp/memberlist.") {
				t.Errorf("it did not die of the attack:\n%s", text)
			}
			_, cause, _ := strings.Cut(text, "panic: ")
			cause, _, _ = strings.Cut(cause, "\n")
			t.Logf("it died: %s", cause)
		})
	}
}

// One of our nodes says the same, and all else that is malformed, to another: with the key, over streams that TLS lets
// through, and sealed. It goes on, and little memory is asked for.
func TestAttackMalformed(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			nodes := family.ours(t, 2)
			formed(t, nodes)
			insider, victim := nodes[1], nodes[0]
			life, ok := insider.gossip.contacts.lifeOf(victim.cfg.id)
			if !ok {
				t.Fatal("the insider does not know the victim")
			}
			got := allocated(func() {
				for range 3 {
					for _, message := range malformedPackets() {
						if len(message) < 60<<10 {
							throw(t, victim.gossipAt(), insider.gossip.sealer.seal(life, message))
						}
					}
				}
				for _, message := range malformedStreams() {
					conn, _, err := insider.transport.dial(t.Context(), victim.cfg.gossipAddr(), alpnGossip)
					if err != nil {
						t.Fatal(err)
					}
					conn.SetDeadline(time.Now().Add(time.Minute))
					conn.Write(message)
					conn.CloseWrite()
					conn.Read(make([]byte, 1<<10))
					conn.Close()
				}
			})
			if got > 64<<20 {
				t.Errorf("%d MB were allocated", got>>20)
			}
			stillTwo(t, nodes)
		})
	}
}
