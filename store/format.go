package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// formatVersion stands in every file and every record. A file of another version is not read, it counts as damage.
const formatVersion = 1

const (
	fileMagic = "carrick\n"
	// endMark closes a record. It has no zero byte, so a tail of zeros (sectors that were never written) cannot be taken
	// for the end of one, nor a single flipped byte for such a tail.
	endMark = "\nrecord\n"

	fileHeaderSize   = 56 // bytes, without the note
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
	kind  fileKind
	gen   uint64
	seq   uint64 // of the last commit before this file, or in this snapshot
	count uint64 // records that follow; only in a snapshot
	aside uint64 // of a start after damage: the N of damaged-N
	note  string // of a start after damage: the sentence about it
}

func (h fileHeader) encode() []byte {
	b := make([]byte, 0, fileHeaderSize+len(h.note))
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.kind))
	b = binary.LittleEndian.AppendUint64(b, h.gen)
	b = binary.LittleEndian.AppendUint64(b, h.seq)
	b = binary.LittleEndian.AppendUint64(b, h.count)
	b = binary.LittleEndian.AppendUint64(b, h.aside)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.note)))
	sum := crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, []byte(h.note))
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, h.note...)
}

// decodeFileHeader returns the header and its length in bytes.
func decodeFileHeader(b []byte) (fileHeader, int, error) {
	if len(b) < fileHeaderSize {
		return fileHeader{}, 0, fmt.Errorf("%d bytes, too short for its header", len(b))
	}
	if string(b[:8]) != fileMagic {
		return fileHeader{}, 0, errors.New("does not begin as a file of this store")
	}
	noteLen := binary.LittleEndian.Uint32(b[48:])
	if noteLen > maxNote || int(noteLen) > len(b)-fileHeaderSize {
		return fileHeader{}, 0, errors.New("header does not match its checksum")
	}
	note := b[fileHeaderSize : fileHeaderSize+int(noteLen)]
	sum := crc32.Update(crc32.Checksum(b[:52], castagnoli), castagnoli, note)
	version := binary.LittleEndian.Uint32(b[8:])
	switch {
	case sum != binary.LittleEndian.Uint32(b[52:]):
		return fileHeader{}, 0, errors.New("header does not match its checksum")
	case version != formatVersion:
		return fileHeader{}, 0, fmt.Errorf("format version %d, this program knows %d", version, formatVersion)
	}
	return fileHeader{
		kind:  fileKind(binary.LittleEndian.Uint32(b[12:])),
		gen:   binary.LittleEndian.Uint64(b[16:]),
		seq:   binary.LittleEndian.Uint64(b[24:]),
		count: binary.LittleEndian.Uint64(b[32:]),
		aside: binary.LittleEndian.Uint64(b[40:]),
		note:  string(note),
	}, fileHeaderSize + int(noteLen), nil
}

// appendRecord adds one record. Its header has a checksum of its own, so that a damaged length is not taken for a torn
// record.
func appendRecord(b []byte, seq uint64, payload []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(payload, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = append(b, payload...)
	return append(b, endMark...)
}

// errTorn is what a crash leaves at the end of a journal.
var errTorn = errors.New("torn")

// decodeRecord returns the first record of b, its payload and its length in bytes. errTorn means that b ends, or was not
// written any further, within the record.
func decodeRecord(b []byte, offset int) (seq uint64, payload []byte, size int, err error) {
	rest := b[offset:]
	if len(rest) < recordHeaderSize {
		return 0, nil, 0, errTorn
	}
	head := rest[:recordHeaderSize]
	if crc32.Checksum(head[:20], castagnoli) != binary.LittleEndian.Uint32(head[20:]) {
		return 0, nil, 0, damagedOrUnwritten(b, offset, len(b), "the header of a record does not match its checksum")
	}
	length := int(binary.LittleEndian.Uint32(head))
	if version := binary.LittleEndian.Uint32(head[4:]); version != formatVersion {
		return 0, nil, 0, fmt.Errorf("a record has format version %d, this program knows %d", version, formatVersion)
	}
	if length > maxRecord {
		return 0, nil, 0, fmt.Errorf("a record of %d bytes, at most %d are possible", length, maxRecord)
	}
	size = recordHeaderSize + length + len(endMark)
	if len(rest) < size {
		return 0, nil, 0, errTorn
	}
	payload = rest[recordHeaderSize : recordHeaderSize+length]
	if string(rest[recordHeaderSize+length:size]) != endMark ||
		crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[16:]) {
		return 0, nil, 0, damagedOrUnwritten(b, offset, offset+size, "a record does not match its checksum")
	}
	return binary.LittleEndian.Uint64(head[8:]), payload, size, nil
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
