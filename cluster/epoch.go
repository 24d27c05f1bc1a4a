package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// epochFile holds the newest epoch of this node, in Config.Dir.
const epochFile = "epoch"

// epochFormat is the version of epochFile: the format byte, the epoch (8 bytes, the highest first), CRC-32C of both.
const epochFormat = 1

// epochLife is how many low bits of an epoch are random. A disk that went back in time counts to the same number again;
// the two lives can then still be told apart, and the later one learns from the others that it must go higher.
const epochLife = 24

var crcTable = crc32.MakeTable(crc32.Castagnoli) // RFC 3720 section 12.1

// nextEpoch is higher than both. It fails when somebody claims to remember the end of all numbers.
func nextEpoch(last, remembered uint64) (uint64, error) {
	count := max(last, remembered)>>epochLife + 1
	if count>>(64-epochLife) != 0 {
		return 0, fmt.Errorf("epoch %d: there is none after it", max(last, remembered))
	}
	var life [8]byte
	rand.Read(life[:]) // never fails (crypto/rand since Go 1.24)
	return count<<epochLife | binary.BigEndian.Uint64(life[:])>>(64-epochLife), nil
}

// loadEpoch returns the newest epoch that this node may have published, and 0 if it never has.
func loadEpoch(dir string) (uint64, error) {
	path := filepath.Join(dir, epochFile)
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	case len(raw) != 13 || crc32.Checksum(raw[:9], crcTable) != binary.BigEndian.Uint32(raw[9:]):
		return 0, fmt.Errorf("%s: damaged", path)
	case raw[0] != epochFormat:
		return 0, fmt.Errorf("%s: format version %d, this node knows %d", path, raw[0], epochFormat)
	}
	return binary.BigEndian.Uint64(raw[1:]), nil
}

// saveEpoch returns when the epoch is on disk.
func saveEpoch(dir string, epoch uint64) error {
	raw := binary.BigEndian.AppendUint64([]byte{epochFormat}, epoch)
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, crcTable))
	path := filepath.Join(dir, epochFile)
	if err := makeAll(dir); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if err := writeSynced(path+".new", raw); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if err := rename(path+".new", path); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	return nil
}

// beginEpoch begins this life of the node.
func (g *gossip) beginEpoch(ctx context.Context) {
	last, err := loadEpoch(g.cfg.dir)
	if err != nil {
		g.log.WithError(err).Error("this node does not know what it has said before; the others will tell it")
	}
	g.raise(ctx, last)
}

// raise begins an epoch after the given one, unless this node is there already. Nothing is published in it before it is on
// disk, which is tried until it succeeds.
func (g *gossip) raise(ctx context.Context, above uint64) {
	g.epochMu.Lock()
	defer g.epochMu.Unlock()
	g.mu.Lock()
	own := g.table.epoch
	g.mu.Unlock()
	if own > above {
		return
	}
	epoch, err := nextEpoch(own, above)
	if err != nil {
		g.cfg.alarms.raise("epoch", "what this node says cannot be ordered any more: "+err.Error())
		return
	}
	for {
		err := saveEpoch(g.cfg.dir, epoch)
		if err == nil {
			break
		}
		g.cfg.alarms.raise("epoch disk", "what this node says is not told to the others: "+err.Error())
		if !pause(ctx, time.Second) {
			return
		}
	}
	g.mu.Lock()
	g.tell(g.table.setEpoch(epoch)...)
	g.mu.Unlock()
	poke(g.said)
}
