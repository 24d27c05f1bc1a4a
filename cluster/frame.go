package cluster

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"
)

// maxPullFrame bounds what is buffered per connection, and how long one row keeps another waiting.
const maxPullFrame = 64 << 10

// keptBuffer is what a connection may keep while it waits for the next question, twice in each direction: after everybody has
// talked to everybody, a node of a hundred has two hundred of them.
const keptBuffer = 4 << 10

// frameHeader: format version, kind, and the length of the payload as four bytes, the highest first.
const frameHeader = 6

// frameTimeout is how long one frame may take: 64 KiB on a link of 1 Mbit/s take half a second.
const frameTimeout = 10 * time.Second

// frameKind says what a frame holds.
type frameKind byte

const (
	frameHello    frameKind = iota + 1 // hello: the first frame of each side
	frameWants                         // wants
	frameDigests                       // digests
	frameHints                         // hints
	frameRow                           // the head of a row, followed by its changes
	frameChanges                       // changes of the row before
	frameNotReady                      // this node has not yet said everything that it has to say; ask again
	frameEnd                           // of a request or an answer
)

// frames reads and writes the frames of one connection. It is for one goroutine.
type frames struct {
	conn net.Conn
	from netip.Addr // of the other end; not valid where there is none
	r    *bufio.Reader
	w    *bufio.Writer
	in   []byte
	out  encoder
}

func newFrames(conn net.Conn) *frames {
	return &frames{conn: conn, r: bufio.NewReaderSize(conn, keptBuffer), w: bufio.NewWriterSize(conn, keptBuffer)}
}

func (f *frames) write(kind frameKind, payload []byte) error {
	var head [frameHeader]byte
	if err := f.writeRaw(appendHead(head[:0], kind, len(payload))); err != nil {
		return err
	}
	return f.writeRaw(payload)
}

// writeRaw writes frames that are encoded already.
func (f *frames) writeRaw(encoded []byte) error {
	for piece := range slices.Chunk(encoded, maxPullFrame) {
		if err := f.conn.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
		if _, err := f.w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

func appendHead(b []byte, kind frameKind, size int) []byte {
	return binary.BigEndian.AppendUint32(append(b, frameVersion, byte(kind)), uint32(size))
}

// writeList writes n items into as few frames as they fit.
func (f *frames) writeList(kind frameKind, n int, put func(e *encoder, i int)) error {
	f.out = f.out[:0]
	return pack(&f.out, n, put, func(payload []byte) error { return f.write(kind, payload) })
}

// pack puts n items into as few payloads as they fit. One item is never larger than a frame, see maxValue.
func pack(e *encoder, n int, put func(e *encoder, i int), full func(payload []byte) error) error {
	for i := range n {
		before := len(*e)
		put(e, i)
		if len(*e) > maxPullFrame {
			if err := full((*e)[:before]); err != nil {
				return err
			}
			*e = append((*e)[:0], (*e)[before:]...)
		}
	}
	if len(*e) == 0 {
		return nil
	}
	return full(*e)
}

// end finishes a request or an answer and sends it off.
func (f *frames) end() error {
	if err := f.write(frameEnd, nil); err != nil {
		return err
	}
	if cap(f.out) > keptBuffer {
		f.out = nil
	}
	return f.w.Flush()
}

// read returns the next frame; the payload is valid until the one after. wait is for its beginning.
func (f *frames) read(wait time.Duration) (frameKind, []byte, error) {
	if err := f.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, nil, err
	}
	var head [frameHeader]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0] != frameVersion {
		return 0, nil, fmt.Errorf("frame: format version %d, this node knows %d", head[0], frameVersion)
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size > maxPullFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes, %d are allowed", size, maxPullFrame)
	}
	if err := f.conn.SetReadDeadline(time.Now().Add(frameTimeout)); err != nil {
		return 0, nil, err
	}
	if cap(f.in) < int(size) || size == 0 && cap(f.in) > keptBuffer {
		f.in = make([]byte, size)
	}
	f.in = f.in[:size]
	_, err := io.ReadFull(f.r, f.in)
	return frameKind(head[1]), f.in, err
}
