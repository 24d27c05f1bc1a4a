package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// cacheFile holds what the other nodes have said, in Config.Dir. Without it a restarted plugin would know no remote
// endpoint until the first pulls are through, and would take the forwarding entries of running traffic away.
const cacheFile = "remote"

// cacheFormat is the version of cacheFile: the format byte, the content, CRC-32C of both. It is not synced: what a power
// cut takes from it is pulled again, and after a power cut there is no traffic to lose.
const cacheFormat = 1

// maxCache is the largest file that is read back: a million records of 60 bytes.
const maxCache = 256 << 20

// cache is the content of cacheFile.
type cache struct {
	epochs map[string]uint64
	nodes  []cachedNode
	rows   []cachedRow
	marks  map[string][]byte // by node; not in files of older versions
}

// cachedNode is where a node was when we last heard of it.
type cachedNode struct {
	id, name string
	gossip   netip.AddrPort
	port     uint16
}

type cachedRow struct {
	rowKey
	version
	attending bool
	records   map[string][]byte
}

func (c cache) encode() []byte {
	e := encoder{cacheFormat}
	e.uint(uint64(len(c.epochs)))
	for id, epoch := range c.epochs {
		e.name(id)
		e.uint(epoch)
	}
	e.uint(uint64(len(c.nodes)))
	for _, n := range c.nodes {
		e.name(n.id)
		e.text(n.name)
		e.text(string(n.gossip.Addr().AsSlice()))
		e.uint(uint64(n.gossip.Port()))
		e.uint(uint64(n.port))
	}
	e.uint(uint64(len(c.rows)))
	for _, r := range c.rows {
		e.hint(hint{r.rowKey, r.version})
		if !r.attending {
			e.uint(0)
			continue
		}
		e.uint(uint64(len(r.records)) + 1)
		for key, value := range r.records {
			e.change(change{key, value})
		}
	}
	e.uint(uint64(len(c.marks)))
	for id, m := range c.marks {
		e.name(id)
		e.text(string(m))
	}
	return binary.BigEndian.AppendUint32(e, crc32.Checksum(e, crcTable))
}

func decodeCache(raw []byte) (cache, error) {
	if len(raw) < 5 || crc32.Checksum(raw[:len(raw)-4], crcTable) != binary.BigEndian.Uint32(raw[len(raw)-4:]) {
		return cache{}, errors.New("damaged")
	}
	d := decoder{rest: raw[:len(raw)-4]}
	d.expect(cacheFormat)
	c := cache{epochs: map[string]uint64{}}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		id := d.name()
		c.epochs[id] = d.uint()
	}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		node := cachedNode{id: d.name(), name: d.text()}
		addr, ok := netip.AddrFromSlice(d.bytes(d.uint()))
		if !ok {
			d.fail(errors.New("no address"))
		}
		node.gossip, node.port = netip.AddrPortFrom(addr, d.port()), d.port()
		c.nodes = append(c.nodes, node)
	}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		h := d.hint()
		row := cachedRow{rowKey: h.rowKey, version: h.version}
		if records := d.uint(); records > 0 {
			row.attending, row.records = true, map[string][]byte{}
			for ; records > 1 && d.err == nil; records-- {
				rec := d.change()
				row.records[rec.key] = rec.value
			}
		}
		c.rows = append(c.rows, row)
	}
	if d.more() {
		c.marks = map[string][]byte{}
		for n := d.uint(); n > 0 && d.err == nil; n-- {
			c.marks[d.name()] = slices.Clone(d.bytes(d.uint()))
		}
	}
	if d.err != nil {
		return cache{}, d.err
	}
	return c, nil
}

// loadCache returns the zero cache if there is none.
func loadCache(dir string) (cache, error) {
	path := filepath.Join(dir, cacheFile)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return cache{}, nil
	case err != nil:
		return cache{}, err
	case info.Size() > maxCache:
		return cache{}, fmt.Errorf("%s: %d bytes, %d are allowed", path, info.Size(), maxCache)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return cache{}, err
	}
	c, err := decodeCache(raw)
	if err != nil {
		return cache{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func saveCache(dir string, raw []byte) error {
	path := filepath.Join(dir, cacheFile)
	if err := makeAll(dir); err != nil {
		return err
	}
	if err := writeFile(path+".new", raw); err != nil {
		return err
	}
	return rename(path+".new", path)
}

// remember takes over rows from the cache, which are as good as the day they were written: any newer one replaces them.
func (t *table) remember(c cache) {
	for id, epoch := range c.epochs {
		t.epochs[id] = max(t.epochs[id], epoch)
	}
	for _, r := range c.rows {
		if r.origin != t.self && r.version.newer(t.version(r.rowKey)) {
			row := &remoteRow{version: r.version, attending: r.attending, records: r.records}
			for _, value := range r.records {
				row.bytes += len(value)
			}
			t.set(r.rowKey, row)
		}
	}
}

// remembered is what the cache should hold now. The records in it will not change any more.
func (t *table) remembered() cache {
	c := cache{epochs: map[string]uint64{}}
	for id, epoch := range t.epochs {
		c.epochs[id] = epoch
	}
	for network, rows := range t.remote {
		for origin, row := range rows {
			row.shared = true
			c.rows = append(c.rows, cachedRow{rowKey{network, origin}, row.version, row.attending, row.records})
		}
	}
	return c
}

// remember takes over from the cache where nodes were.
func (c *contacts) remember(nodes []cachedNode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range nodes {
		if n.id != c.self && n.id != "" {
			k := c.get(n.id)
			k.name, k.heard, k.port, k.met = n.name, n.gossip, n.port, netip.AddrPortFrom(n.gossip.Addr(), n.port)
		}
	}
}

// remembered is where nodes are, for the cache.
func (c *contacts) remembered() []cachedNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []cachedNode
	for _, n := range c.all {
		gossip, port := n.heard, n.port
		if n.met.IsValid() {
			gossip, port = netip.AddrPortFrom(n.met.Addr(), gossip.Port()), n.met.Port()
		}
		if gossip.IsValid() && !n.fact.Forgotten {
			nodes = append(nodes, cachedNode{n.id, n.name, gossip, port})
		}
	}
	return slices.Clip(nodes)
}

// cacheRate bounds what is written to disk while records change all the time, in bytes/s: ten thousand of them are written
// every two seconds, a hundred thousand every twenty. What a cache lacks after a crash is pulled within a second.
const cacheRate = 256 << 10

// marksEvery is how often the marks of other nodes are written, if nothing else is: they change with every container anywhere.
const marksEvery = time.Minute

// keepCache writes the cache when it has changed, at most once a second.
func (g *gossip) keepCache(ctx context.Context) {
	if g.cfg.forgetful {
		return
	}
	wait := time.Second
	marks := time.NewTicker(marksEvery)
	defer marks.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-g.unsaved:
			poke(g.unsaved)
		case <-marks.C:
		}
		if len(g.unsaved) == 0 && !g.recall.unsaved() {
			continue
		}
		pause(ctx, wait) // shorter when ctx ends meanwhile: the next life begins with what this one knew last
		for len(g.unsaved) > 0 {
			<-g.unsaved
		}
		g.mu.Lock()
		c := g.table.remembered()
		g.mu.Unlock()
		c.nodes, c.marks = g.contacts.remembered(), g.recall.save()
		raw := c.encode()
		wait = max(time.Second, time.Duration(len(raw))*time.Second/cacheRate)
		if err := saveCache(g.cfg.dir, raw); err != nil {
			g.log.WithError(err).Warn("what the other nodes say is not remembered for the next start")
		}
	}
}
