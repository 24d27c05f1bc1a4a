package cluster

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// maxPullFrame bounds what is buffered per connection, and how long one row keeps another waiting.
const maxPullFrame = 64 << 10

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
	from netip.Addr // of the other end, when it called us
	r    *bufio.Reader
	w    *bufio.Writer
	in   []byte
	out  encoder
}

func newFrames(conn net.Conn) *frames {
	return &frames{conn: conn, r: bufio.NewReaderSize(conn, 4<<10), w: bufio.NewWriterSize(conn, 16<<10)}
}

func (f *frames) write(kind frameKind, payload []byte) error {
	if err := f.conn.SetWriteDeadline(time.Now().Add(frameTimeout)); err != nil {
		return err
	}
	var head [frameHeader]byte
	head[0], head[1] = frameVersion, byte(kind)
	binary.BigEndian.PutUint32(head[2:], uint32(len(payload)))
	if _, err := f.w.Write(head[:]); err != nil {
		return err
	}
	_, err := f.w.Write(payload)
	return err
}

// writeList writes n items into as few frames as they fit. One item is never larger than a frame, see maxValue.
func (f *frames) writeList(kind frameKind, n int, put func(e *encoder, i int)) error {
	f.out = f.out[:0]
	for i := range n {
		before := len(f.out)
		put(&f.out, i)
		if len(f.out) > maxPullFrame {
			if err := f.write(kind, f.out[:before]); err != nil {
				return err
			}
			f.out = append(f.out[:0], f.out[before:]...)
		}
	}
	if len(f.out) == 0 {
		return nil
	}
	return f.write(kind, f.out)
}

// end finishes a request or an answer and sends it off.
func (f *frames) end() error {
	if err := f.write(frameEnd, nil); err != nil {
		return err
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
	if cap(f.in) < int(size) {
		f.in = make([]byte, size)
	}
	f.in = f.in[:size]
	_, err := io.ReadFull(f.r, f.in)
	return frameKind(head[1]), f.in, err
}
