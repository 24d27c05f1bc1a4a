package cluster

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Format versions. Each message begins with its own, and one that is not known is refused as a whole.
const (
	hintsVersion = 1 // a datagram of hints
	metaVersion  = 1 // what a node says of itself in memberlist
	frameVersion = 1 // a frame of a pull
)

// errTruncated: a message ends before it is complete.
var errTruncated = errors.New("the message is cut off")

// encoder appends; decoder reads the same from the front and remembers the first error, so that a message is decoded
// without an error check per field. Numbers are unsigned varints (the encoding of protocol buffers and encoding/binary).
type encoder []byte

type decoder struct {
	rest []byte
	err  error
}

func (e *encoder) uint(n uint64) { *e = binary.AppendUvarint(*e, n) }

func (d *decoder) uint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail(errTruncated)
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// name encodes identifiers. Most are hexadecimal digits and take half their length, which matters in hints: a datagram
// holds about 45 of them instead of 25.
func (e *encoder) name(s string) {
	if len(s)%2 == 1 || strings.Trim(s, "0123456789abcdef") != "" {
		e.uint(uint64(len(s)) << 1)
		*e = append(*e, s...)
		return
	}
	e.uint(uint64(len(s)/2)<<1 | 1)
	*e, _ = hex.AppendDecode(*e, []byte(s)) // fails only for other digits
}

func (d *decoder) name() string {
	n := d.uint()
	raw := d.bytes(n >> 1)
	s := string(raw)
	if n&1 == 1 {
		s = hex.EncodeToString(raw)
	}
	if d.err == nil && (s == "" || len(s) > maxKey) {
		d.fail(fmt.Errorf("a name of %d bytes, 1 to %d are allowed", len(s), maxKey))
	}
	return s
}

func (e *encoder) text(s string) { e.uint(uint64(len(s))); *e = append(*e, s...) }

func (d *decoder) text() string { return string(d.bytes(d.uint())) }

func (e *encoder) version(v version) { e.uint(v.epoch); e.uint(v.seq) }

func (d *decoder) version() version { return version{d.uint(), d.uint()} }

// bytes are those of the message itself, not a copy.
func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail(errTruncated)
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

// more tells whether there is something left to read.
func (d *decoder) more() bool { return d.err == nil && len(d.rest) > 0 }

// expect reads the format version.
func (d *decoder) expect(known byte) {
	if b := d.bytes(1); d.err == nil && b[0] != known {
		d.fail(fmt.Errorf("format version %d, this node knows %d", b[0], known))
	}
}

func (e *encoder) hint(h hint) {
	e.name(h.network)
	e.name(h.origin)
	e.version(h.version)
}

func (d *decoder) hint() hint {
	return hint{rowKey{d.name(), d.name()}, d.version()}
}

// decodeHints reads a datagram; either all of it is sound or none of it counts.
func decodeHints(message []byte) ([]hint, error) {
	d := decoder{rest: message}
	d.expect(hintsVersion)
	hints, err := d.hints()
	if err != nil {
		return nil, fmt.Errorf("hints: %w", err)
	}
	return hints, nil
}

func (d *decoder) hints() ([]hint, error) {
	var hints []hint
	for d.more() {
		hints = append(hints, d.hint())
	}
	return hints, d.err
}

// meta is what a node says of itself in memberlist. Fields may be added at its end without a new format version.
type meta struct {
	cluster string // "" while the node belongs to none
	name    string
	port    uint16 // of the cluster's TCP port
	epoch   uint64 // 0 while the node is not ready to be asked
	life    uint64 // of the process, see sealer; 0: none is said
}

func (m meta) encode() []byte {
	e := encoder{metaVersion}
	e.text(m.cluster)
	e.text(m.name)
	e.uint(uint64(m.port))
	e.uint(m.epoch)
	e.uint(m.life)
	return e
}

func decodeMeta(message []byte) (meta, error) {
	d := decoder{rest: message}
	d.expect(metaVersion)
	m := meta{cluster: d.text(), name: d.text(), port: d.port(), epoch: d.uint()}
	if d.more() {
		m.life = d.uint()
	}
	if d.err != nil {
		return meta{}, fmt.Errorf("node: %w", d.err)
	}
	return m, nil
}

func (d *decoder) port() uint16 {
	n := d.uint()
	if n > 0xffff {
		d.fail(fmt.Errorf("port %d", n))
	}
	return uint16(n)
}

// hello opens an exchange in both directions: who we are, where we are, and what we remember of the other. Fields may be added at
// its end.
type hello struct {
	meta
	gossip     netip.AddrPort
	remembered uint64 // the newest epoch that the other has told us
	mark       []byte // how far our disk has come; nil: that is not said
	recalled   []byte // the mark that the other has told us; nil: none
}

func (h hello) encode() []byte {
	var e encoder
	e.text(string(h.meta.encode()))
	e.text(string(h.gossip.Addr().AsSlice()))
	e.uint(uint64(h.gossip.Port()))
	e.uint(h.remembered)
	e.text(string(h.mark))
	e.text(string(h.recalled))
	return e
}

func decodeHello(payload []byte) (hello, error) {
	d := decoder{rest: payload}
	raw := d.bytes(d.uint())
	addr, ok := netip.AddrFromSlice(d.bytes(d.uint()))
	h := hello{gossip: netip.AddrPortFrom(addr, d.port()), remembered: d.uint()}
	if d.more() {
		h.mark, h.recalled = d.bytes(d.uint()), d.bytes(d.uint())
	}
	if d.err != nil {
		return hello{}, fmt.Errorf("hello: %w", d.err)
	}
	if !ok {
		return hello{}, errors.New("hello: no address")
	}
	var err error
	if h.meta, err = decodeMeta(raw); err != nil {
		return hello{}, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// want asks for what has changed in a network after a version.
type want struct {
	network string
	have    version
}

func (e *encoder) want(w want) { e.name(w.network); e.version(w.have) }

func decodeWants(payload []byte) ([]want, error) {
	d := decoder{rest: payload}
	var wants []want
	for d.more() {
		wants = append(wants, want{d.name(), d.version()})
	}
	return wants, d.err
}

// digest stands for all versions of a network that a node knows.
type digest struct {
	network string
	sum     uint64
}

func (e *encoder) digest(g digest) {
	e.name(g.network)
	*e = binary.BigEndian.AppendUint64(*e, g.sum)
}

func decodeDigests(payload []byte) ([]digest, error) {
	d := decoder{rest: payload}
	var digests []digest
	for d.more() {
		network := d.name()
		if sum := d.bytes(8); d.err == nil {
			digests = append(digests, digest{network, binary.BigEndian.Uint64(sum)})
		}
	}
	return digests, d.err
}

// row is the head of a delta; its changes follow in frames of their own.
func encodeRow(r delta) []byte {
	var e encoder
	e.name(r.network)
	e.uint(uint64(r.kind))
	e.uint(r.from)
	e.version(r.to)
	e.uint(uint64(len(r.changes)))
	return e
}

func decodeRow(payload []byte) (delta, int, error) {
	d := decoder{rest: payload}
	r := delta{network: d.name()}
	kind := d.uint()
	r.from, r.to = d.uint(), d.version()
	count := d.uint()
	switch {
	case d.err != nil:
	case kind < uint64(deltaSame) || kind > uint64(deltaFull):
		d.fail(fmt.Errorf("kind %d", kind))
	case count > 2*maxRecords+minTombstones: // as many deleted as there are, see ownRow.compact
		d.fail(fmt.Errorf("%d changes", count))
	case count > 0 && kind != uint64(deltaChanges) && kind != uint64(deltaFull):
		d.fail(fmt.Errorf("%d changes in a row of kind %d", count, kind))
	}
	if d.err != nil {
		return delta{}, 0, fmt.Errorf("row: %w", d.err)
	}
	r.kind = deltaKind(kind)
	return r, int(count), nil
}

// change: the length of the value is one more than it is, so that 0 means deleted.
func (e *encoder) change(c change) {
	e.name(c.key)
	if c.value == nil {
		e.uint(0)
		return
	}
	e.uint(uint64(len(c.value)) + 1)
	*e = append(*e, c.value...)
}

func (d *decoder) change() change {
	c := change{key: d.name()}
	n := d.uint()
	if n == 0 {
		return c
	}
	if n-1 > maxValue {
		d.fail(fmt.Errorf("record %s has %d bytes, %d are allowed", c.key, n-1, maxValue))
		return c
	}
	if value := d.bytes(n - 1); d.err == nil {
		c.value = append(make([]byte, 0, n-1), value...) // not nil, and not a view of the whole frame
	}
	return c
}
