package cluster

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
)

// What memberlist says, as far as a Carrick node does. Anything else is not for its decoders: they trust whoever has the
// key with memory and recursion. The numbers are those of memberlist's messageType.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgUser         = 8
	msgNack         = 11
	msgCRC          = 12
	msgErr          = 13
)

const (
	// maxFields of a message: memberlist's largest has eight.
	maxFields = 16
	// maxField is the longest of its values in bytes: node ids have 32, meta 512 (memberlist.MetaMaxSize).
	maxField = 1024
	// maxMembers of a push/pull: ten times the nodes that we are made for. They take maxStream bytes at most.
	maxMembers = 1000
	maxStream  = 1 << 20
)

var errMessage = errors.New("not a message of the gossip")

// checkPacket says why a datagram is not for memberlist.
func checkPacket(message []byte) error {
	if len(message) >= 5 && message[0] == msgCRC {
		if crc32.ChecksumIEEE(message[5:]) != binary.BigEndian.Uint32(message[1:]) {
			return fmt.Errorf("%w: its checksum is wrong", errMessage)
		}
		message = message[5:]
	}
	if len(message) < 2 || message[0] != msgCompound {
		return checkPart(message)
	}
	// The number of parts (1), the length of each (2), and the parts.
	lengths, parts := message[2:], []byte(nil)
	if n := 2 * int(message[1]); n <= len(lengths) {
		lengths, parts = lengths[:n], lengths[n:]
	} else {
		return fmt.Errorf("%w: %d parts in %d bytes", errMessage, message[1], len(message))
	}
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(binary.BigEndian.Uint16(lengths))
		if n > len(parts) {
			return fmt.Errorf("%w: a part is cut off", errMessage)
		}
		if err := checkPart(parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// checkPart is for one message, which holds no other.
func checkPart(message []byte) error {
	if len(message) == 0 {
		return fmt.Errorf("%w: it is empty", errMessage)
	}
	switch message[0] {
	case msgUser: // ours, see NotifyMsg
		return nil
	case msgPing, msgIndirectPing, msgAck, msgNack, msgSuspect, msgAlive, msgDead:
		rest := bytes.NewReader(message[1:])
		if _, err := readFields(rest); err != nil {
			return err
		}
		if rest.Len() > 0 {
			return fmt.Errorf("%w: %d bytes too many", errMessage, rest.Len())
		}
		return nil
	}
	return fmt.Errorf("%w: it is of kind %d", errMessage, message[0])
}

// byteReader is what messages are read from.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// checkStream reads the one message that a stream begins with.
func checkStream(r byteReader) error {
	kind, err := r.ReadByte()
	if err != nil {
		return err
	}
	switch kind {
	case msgPing, msgAck, msgErr:
		_, err = readFields(r)
		return err
	case msgPushPull:
	default:
		return fmt.Errorf("%w: it is of kind %d", errMessage, kind)
	}
	head, err := readFields(r)
	if err != nil {
		return err
	}
	if head["Nodes"] > maxMembers || head["UserStateLen"] > 0 {
		return fmt.Errorf("%w: %d nodes and %d bytes of state, %d and none are allowed", errMessage, head["Nodes"], head["UserStateLen"], maxMembers)
	}
	for range head["Nodes"] {
		if _, err := readFields(r); err != nil {
			return err
		}
	}
	return nil
}

// readFields reads a map of names to numbers, truths and bytes, in msgpack (github.com/msgpack/msgpack, spec.md), and
// returns the numbers. memberlist has no other messages.
func readFields(r byteReader) (map[string]uint64, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	n := uint64(kind & 0x0f)
	switch {
	case kind == 0xde: // map 16
		n, err = readNumber(r, 2)
	case kind&0xf0 != 0x80: // fixmap
		err = fmt.Errorf("%w: %#x where fields should begin", errMessage, kind)
	}
	if err == nil && n > maxFields {
		err = fmt.Errorf("%w: %d fields", errMessage, n)
	}
	numbers := map[string]uint64{}
	for i := uint64(0); i < n && err == nil; i++ {
		var name []byte
		var number uint64
		if name, _, err = readValue(r); err == nil {
			_, number, err = readValue(r)
			numbers[string(name)] = max(numbers[string(name)], number)
		}
	}
	return numbers, err
}

// readValue reads bytes, or anything that has no parts. Truths count as numbers, negative numbers as very large ones.
func readValue(r byteReader) (raw []byte, number uint64, err error) {
	kind, err := r.ReadByte()
	if err != nil {
		return nil, 0, err
	}
	switch {
	case kind < 0x80: // positive fixint
		return nil, uint64(kind), nil
	case kind >= 0xe0: // negative fixint
		return nil, uint64(int64(int8(kind))), nil
	case kind >= 0xa0 && kind < 0xc0: // fixstr
		raw, err = readBytes(r, uint64(kind&0x1f))
		return raw, 0, err
	}
	switch kind {
	case 0xc0, 0xc2: // nil, false
		return nil, 0, nil
	case 0xc3: // true
		return nil, 1, nil
	case 0xcc, 0xcd, 0xce, 0xcf: // uint 8 to 64
		number, err = readNumber(r, 1<<(kind-0xcc))
	case 0xd0, 0xd1, 0xd2, 0xd3: // int 8 to 64
		if number, err = readNumber(r, 1<<(kind-0xd0)); number>>(8<<(kind-0xd0)-1) != 0 {
			number = ^uint64(0)
		}
	case 0xc4, 0xc5, 0xd9, 0xda: // bin 8, bin 16, str 8, str 16
		size := map[byte]int{0xc4: 1, 0xc5: 2, 0xd9: 1, 0xda: 2}[kind]
		if number, err = readNumber(r, size); err == nil {
			raw, err = readBytes(r, number)
			number = 0
		}
	default:
		err = fmt.Errorf("%w: a value of kind %#x", errMessage, kind)
	}
	return raw, number, err
}

// readNumber reads a big-endian number of that many bytes.
func readNumber(r byteReader, size int) (uint64, error) {
	var n uint64
	for range size {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n = n<<8 | uint64(b)
	}
	return n, nil
}

func readBytes(r byteReader, n uint64) ([]byte, error) {
	if n > maxField {
		return nil, fmt.Errorf("%w: a value of %d bytes", errMessage, n)
	}
	raw := make([]byte, n)
	_, err := io.ReadFull(r, raw)
	return raw, err
}

// checkedConn gives memberlist the one message that it expects from a stream when all of it is here and sound.
type checkedConn struct {
	net.Conn
	message *bytes.Reader // nil: not read yet
}

// tee keeps what is read.
type tee struct {
	*bufio.Reader
	kept bytes.Buffer
}

// Read is of io.Reader.
func (t *tee) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.kept.Write(p[:n])
	return n, err
}

// ReadByte is of io.ByteReader.
func (t *tee) ReadByte() (byte, error) {
	b, err := t.Reader.ReadByte()
	if err == nil {
		t.kept.WriteByte(b)
	}
	return b, err
}

// Read is of net.Conn.
func (c *checkedConn) Read(p []byte) (int, error) {
	if c.message == nil {
		in := &tee{Reader: bufio.NewReader(io.LimitReader(c.Conn, maxStream))}
		if err := checkStream(in); err != nil {
			return 0, err
		}
		c.message = bytes.NewReader(in.kept.Bytes())
	}
	return c.message.Read(p)
}
