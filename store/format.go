package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// formatVersion stands in every file and every record. Files of oldVersion are read, and written anew as this one at once;
// files of any other count as damage.
const (
	formatVersion = 2
	// oldVersion has no identity and no chain: its checksums are of the payload alone.
	oldVersion = 1
)

const (
	fileMagic = "carrick\n"
	// endMark closes a record. It has no zero byte, so a tail of zeros (sectors that were never written) cannot be taken
	// for the end of one, nor a single flipped byte for such a tail.
	endMark = "\nrecord\n"

	fileHeaderSize   = 76 // bytes, without the note
	oldHeaderSize    = 56
	recordHeaderSize = 24 // bytes
	sectorSize       = 512

	// maxRecord bounds one commit, in bytes: far above any record of ours, and small enough to be read at once.
	maxRecord = 16 << 20
	// maxNote bounds the sentence about damage in a journal's header, in bytes.
	maxNote = 4 << 10
)

// castagnoli is the polynomial of RFC 3720 appendix B.4, which amd64 and arm64 compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type fileKind uint32

const (
	journalFile  fileKind = 1
	snapshotFile fileKind = 2
	// startFile is a journal before which there is nothing: that of a new store, or of one that was found damaged.
	startFile fileKind = 3
)

// fileHeader begins every file.
type fileHeader struct {
	version uint32
	kind    fileKind
	gen     uint64
	seq     uint64 // of the last commit before this file, or in this snapshot
	count   uint64 // records that follow; only in a snapshot
	aside   uint64 // of a start after damage: the N of damaged-N; 0: there was nothing to put aside
	id      identity
	chain   uint32 // checksum of the commit seq; the identity's, if there is none or an older version wrote it
	note    string // of a start after damage: the sentence about it
}

// encode is in formatVersion, whatever version says.
func (h fileHeader) encode() []byte {
	b := make([]byte, 0, fileHeaderSize+len(h.note))
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.kind))
	b = binary.LittleEndian.AppendUint64(b, h.gen)
	b = binary.LittleEndian.AppendUint64(b, h.seq)
	b = binary.LittleEndian.AppendUint64(b, h.count)
	b = binary.LittleEndian.AppendUint64(b, h.aside)
	b = append(b, h.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, h.chain)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.note)))
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, []byte(h.note))
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, h.note...)
}

// decodeFileHeader returns the header and its length in bytes. trust is of tests: the checksum is not compared.
func decodeFileHeader(b []byte, trust bool) (fileHeader, int, error) {
	if len(b) < oldHeaderSize {
		return fileHeader{}, 0, fmt.Errorf("%d bytes, too short for its header", len(b))
	}
	if string(b[:8]) != fileMagic {
		return fileHeader{}, 0, errors.New("does not begin as a file of this store")
	}
	h := fileHeader{version: binary.LittleEndian.Uint32(b[8:])}
	size := fileHeaderSize
	if h.version == oldVersion {
		size = oldHeaderSize
	}
	if len(b) < size {
		return fileHeader{}, 0, fmt.Errorf("%d bytes, too short for its header", len(b))
	}
	noteLen := binary.LittleEndian.Uint32(b[size-8:])
	if noteLen > maxNote || int(noteLen) > len(b)-size {
		return fileHeader{}, 0, errors.New("header does not match its checksum")
	}
	note := b[size : size+int(noteLen)]
	sum := crc32.Update(crc32.Checksum(b[:size-4], castagnoli), castagnoli, note)
	switch {
	case sum != binary.LittleEndian.Uint32(b[size-4:]) && !trust:
		return fileHeader{}, 0, errors.New("header does not match its checksum")
	case h.version != formatVersion && h.version != oldVersion:
		return fileHeader{}, 0, fmt.Errorf("format version %d, this program knows %d and %d", h.version, oldVersion, formatVersion)
	}
	h.kind = fileKind(binary.LittleEndian.Uint32(b[12:]))
	h.gen = binary.LittleEndian.Uint64(b[16:])
	h.seq = binary.LittleEndian.Uint64(b[24:])
	h.count = binary.LittleEndian.Uint64(b[32:])
	h.aside = binary.LittleEndian.Uint64(b[40:])
	h.note = string(note)
	if h.version == formatVersion {
		copy(h.id[:], b[48:])
		h.chain = binary.LittleEndian.Uint32(b[64:])
	}
	return h, size + int(noteLen), nil
}

// headerSum is the checksum in the header that a file begins with. It is what the records of a snapshot go on from; that of
// the bytes of the header would be the same for all, as of anything that ends with its own CRC.
func headerSum(b []byte) uint32 { return binary.LittleEndian.Uint32(b[fileHeaderSize-4:]) }

// appendRecord adds one record and returns its checksum, which goes on from that of the record before: a record that
// belongs elsewhere does not match. The header has a checksum of its own, so that a damaged length is not taken for a torn
// record.
func appendRecord(b []byte, seq uint64, chain uint32, payload []byte) ([]byte, uint32) {
	start := len(b)
	chain = crc32.Update(chain, castagnoli, payload)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint32(b, chain)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = append(b, payload...)
	return append(b, endMark...), chain
}

// errTorn is what a crash leaves at the end of a journal.
var errTorn = errors.New("torn")

// records reads the records of a file.
type records struct {
	b       []byte
	at      int    // where the next record begins
	version uint32 // of the file
	chain   uint32 // checksum of the record before
	trust   bool   // of tests: no checksum is compared
}

// next returns the next record's number and payload. errTorn means that the file ends, or was not written any further,
// within the record. After an error at and chain are as before.
func (r *records) next() (seq uint64, payload []byte, err error) {
	rest := r.b[r.at:]
	if len(rest) < recordHeaderSize {
		return 0, nil, errTorn
	}
	head := rest[:recordHeaderSize]
	if crc32.Checksum(head[:20], castagnoli) != binary.LittleEndian.Uint32(head[20:]) && !r.trust {
		return 0, nil, damagedOrUnwritten(r.b, r.at, len(r.b), "the header of a record does not match its checksum")
	}
	length := int(binary.LittleEndian.Uint32(head))
	if version := binary.LittleEndian.Uint32(head[4:]); version != r.version && !r.trust {
		return 0, nil, fmt.Errorf("a record has format version %d, its file %d", version, r.version)
	}
	if length > maxRecord {
		return 0, nil, fmt.Errorf("a record of %d bytes, at most %d are possible", length, maxRecord)
	}
	size := recordHeaderSize + length + len(endMark)
	if len(rest) < size {
		return 0, nil, errTorn
	}
	payload = rest[recordHeaderSize : recordHeaderSize+length]
	chain := r.chain
	if r.version == oldVersion {
		chain = 0
	}
	chain = crc32.Update(chain, castagnoli, payload)
	if (string(rest[recordHeaderSize+length:size]) != endMark || chain != binary.LittleEndian.Uint32(head[16:])) && !r.trust {
		return 0, nil, damagedOrUnwritten(r.b, r.at, r.at+size, "a record does not match its checksum")
	}
	r.at, r.chain = r.at+size, chain
	return binary.LittleEndian.Uint64(head[8:]), payload, nil
}

// damagedOrUnwritten tells a record that lost its last sectors in a power cut, where the file system had recorded the
// longer size already, from one that was changed: the file is zero from a sector boundary on, or from where the record
// begins, and at least as far as the mark that closes a record is long.
func damagedOrUnwritten(b []byte, start, end int, what string) error {
	zeros := len(b) - len(bytes.TrimRight(b[start:], "\x00")) - start
	first := len(b) - zeros
	if boundary := (first + sectorSize - 1) / sectorSize * sectorSize; first > start {
		first = boundary
	}
	if first <= end-len(endMark) && len(b)-first >= len(endMark) {
		return errTorn
	}
	return fmt.Errorf("%s, at byte %d", what, start)
}

// appendWrite adds one write to a payload: the key, and the value's length plus one, where zero is a deletion.
func appendWrite(b []byte, w Write) []byte {
	b = binary.AppendUvarint(b, uint64(len(w.Key)))
	b = append(b, w.Key...)
	if w.Value == nil {
		return binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(w.Value))+1)
	return append(b, w.Value...)
}

// decodeWrites calls do for each write of a payload.
func decodeWrites(payload []byte, do func(Write)) error {
	next := func() (int, bool) {
		n, k := binary.Uvarint(payload)
		if k <= 0 || n > maxRecord {
			return 0, false
		}
		payload = payload[k:]
		return int(n), true
	}
	bad := errors.New("a record's checksum is right and its contents are not")
	for len(payload) > 0 {
		n, ok := next()
		if !ok || n > len(payload) {
			return bad
		}
		w := Write{Key: string(payload[:n])}
		payload = payload[n:]
		if n, ok = next(); !ok || n-1 > len(payload) {
			return bad
		}
		if n > 0 {
			w.Value = append([]byte{}, payload[:n-1]...) // does not keep the file in memory
			payload = payload[n-1:]
		}
		do(w)
	}
	return nil
}
