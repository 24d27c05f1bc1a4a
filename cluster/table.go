package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

const (
	// maxKey is the longest key of a record: an endpoint's id has 64 characters, and a prefix of ours goes before it.
	maxKey = 255
	// maxValue is the largest value of a record. It and its key fit one frame (maxPullFrame).
	maxValue = 32 << 10
	// maxRecords is how many records one node may have in one network: a bridge has 1,024 ports (BR_MAX_PORTS), and a
	// hundred hosts' endpoints have been seen in one network of Docker's (moby#52661).
	maxRecords = 1 << 17
	// maxRowBytes is how large the records of one node in one network may be together: maxRecords of 512 bytes.
	maxRowBytes = 64 << 20
	// maxNetworks is how many networks one node may attend: a host has 2^14 links long after it has stopped to be useful.
	maxNetworks = 1 << 14
	// minTombstones is how many deleted keys of a row are remembered at least. Beyond as many as there are records, sending
	// the row whole costs no more than sending what was deleted.
	minTombstones = 1024
)

// Errors of the table.
var (
	errNotAttended = errors.New("is not attended by this node")
	errGap         = errors.New("changes since a version that is not known here")
	errHuge        = fmt.Errorf("more than %d records or %d bytes, which is all that a node may say", maxRecords, maxRowBytes)
)

// version orders everything that one node says. The epoch is raised whenever the node starts; the sequence grows with
// every change that the node makes in any network, so that "I do not attend this network" can be ordered as well, without
// remembering every network that ever was.
type version struct{ epoch, seq uint64 }

func (v version) compare(w version) int {
	return cmp.Or(cmp.Compare(v.epoch, w.epoch), cmp.Compare(v.seq, w.seq))
}

func (v version) newer(w version) bool { return v.compare(w) > 0 }

// rowKey names what one node says about one network.
type rowKey struct{ network, origin string }

// hint tells that a row has a version; whoever has an older one asks the origin for the difference.
type hint struct {
	rowKey
	version
}

// table is what all nodes say about networks. It does nothing by itself: no goroutine, no clock, no I/O, no lock.
type table struct {
	self   string
	epoch  uint64
	seq    uint64 // of the newest change of ours
	own    map[string]*ownRow
	remote map[string]map[string]*remoteRow // network, origin
	epochs map[string]uint64                // the newest that each node has told us itself
}

// remoteRow is what another node says about a network. A row that is not attending is kept, so that an older one cannot
// come back.
type remoteRow struct {
	version
	attending bool
	records   map[string][]byte
	bytes     int  // of their values
	shared    bool // records was handed out and may not be changed any more
}

func newTable(self string) *table {
	return &table{self: self, own: map[string]*ownRow{}, remote: map[string]map[string]*remoteRow{}, epochs: map[string]uint64{}}
}

// setEpoch begins a new life of this node: everything it said is now said in that epoch.
func (t *table) setEpoch(epoch uint64) []hint {
	t.epoch = epoch
	var hints []hint
	for network, row := range t.own {
		hints = append(hints, hint{rowKey{network, t.self}, version{epoch, row.seq}})
	}
	return hints
}

// attend makes the row of this node in a network, or takes it away. It tells whether that changed anything.
func (t *table) attend(network string, on bool) (hint, bool, error) {
	_, is := t.own[network]
	if is == on {
		return hint{}, false, nil
	}
	if network == "" || len(network) > maxKey || network == everyNetwork {
		return hint{}, false, fmt.Errorf("network %.40q: a name has 1 to %d bytes and is not %q", network, maxKey, everyNetwork)
	}
	if on && len(t.own) >= maxNetworks {
		return hint{}, false, fmt.Errorf("network %s: this node attends %d networks, which is all it may", network, maxNetworks)
	}
	t.seq++
	if on {
		t.own[network] = &ownRow{seq: t.seq, floor: t.seq, records: map[string]ownRecord{}}
	} else {
		delete(t.own, network)
		delete(t.remote, network)
	}
	return t.hint(network), true, nil
}

// put writes a record of this node, or deletes it when value is nil. It tells whether that changed anything.
func (t *table) put(network, key string, value []byte) (hint, bool, error) {
	row, ok := t.own[network]
	if !ok {
		return hint{}, false, fmt.Errorf("network %s: %w", network, errNotAttended)
	}
	if key == "" || len(key) > maxKey {
		return hint{}, false, fmt.Errorf("network %s: record %.40q: a key has 1 to %d bytes", network, key, maxKey)
	}
	if len(value) > maxValue {
		return hint{}, false, fmt.Errorf("network %s: record %s has %d bytes, %d are allowed", network, key, len(value), maxValue)
	}
	if value != nil && row.live >= maxRecords && row.records[key].value == nil {
		return hint{}, false, fmt.Errorf("network %s: record %s: this node has %d records there, which is all it may", network, key, maxRecords)
	}
	if more := len(value) - len(row.records[key].value); more > 0 && row.bytes+more > maxRowBytes {
		return hint{}, false, fmt.Errorf("network %s: record %s: this node has %d bytes there, %d are allowed", network, key, row.bytes, maxRowBytes)
	}
	if !row.put(key, value, t.seq+1) {
		return hint{}, false, nil
	}
	t.seq++
	return t.hint(network), true, nil
}

// hint of this node's own row. Of a network that it does not attend, everything it ever said is older.
func (t *table) hint(network string) hint {
	return hint{rowKey{network, t.self}, t.ownVersion(network)}
}

func (t *table) ownVersion(network string) version {
	if row, ok := t.own[network]; ok {
		return version{t.epoch, row.seq}
	}
	return version{t.epoch, t.seq}
}

// version of a row as it is known here; the zero version if it is not.
func (t *table) version(key rowKey) version {
	if key.origin == t.self {
		return t.ownVersion(key.network)
	}
	if row, ok := t.remote[key.network][key.origin]; ok {
		return row.version
	}
	return version{}
}

// attends tells whether this node attends a network.
func (t *table) attends(network string) bool {
	_, ok := t.own[network]
	return ok
}

// networks that this node attends, sorted.
func (t *table) networks() []string {
	all := make([]string, 0, len(t.own))
	for network := range t.own {
		all = append(all, network)
	}
	slices.Sort(all)
	return all
}

// since answers what this node has changed in a network after a version.
func (t *table) since(network string, have version) delta {
	row, ok := t.own[network]
	if !ok {
		return delta{network: network, kind: deltaAbsent, to: version{t.epoch, t.seq}}
	}
	d := delta{network: network, to: version{t.epoch, row.seq}}
	switch {
	case have == d.to:
		d.kind = deltaSame
	case have.epoch == t.epoch && have.seq >= row.floor && have.seq < row.seq:
		d.kind, d.from, d.changes = deltaChanges, have.seq, row.since(have.seq)
	default:
		d.kind, d.changes = deltaFull, row.since(0)
	}
	return d
}

// merge takes over what origin says. The caller has had origin prove that it is origin. It tells whether the row is
// different now; a version that is not newer changes nothing. Of a row that is too large nothing is kept, until it is
// another.
func (t *table) merge(origin string, d delta) (bool, error) {
	if origin == t.self {
		return false, nil
	}
	t.epochs[origin] = max(t.epochs[origin], d.to.epoch)
	row := t.remote[d.network][origin]
	if row == nil {
		row = &remoteRow{}
	}
	if !d.to.newer(row.version) {
		return false, nil
	}
	switch d.kind {
	case deltaSame: // of a version that we do not have: it has lost ours, or we have
		return false, fmt.Errorf("network %s: %w", d.network, errGap)
	case deltaAbsent:
		row.attending, row.records, row.shared = false, nil, false
	case deltaFull:
		row.attending, row.records, row.bytes, row.shared = true, make(map[string][]byte, len(d.changes)), 0, false
		row.apply(d.changes)
	case deltaChanges:
		if !row.attending || row.epoch != d.to.epoch || row.seq < d.from {
			return false, fmt.Errorf("network %s: %w", d.network, errGap)
		}
		row.unshare()
		row.apply(d.changes)
	}
	row.version = d.to
	var err error
	if row.bytes > maxRowBytes || len(row.records) > maxRecords {
		row.attending, row.records, row.bytes = false, nil, 0
		err = fmt.Errorf("network %s: %w", d.network, errHuge)
	}
	t.set(rowKey{d.network, origin}, row)
	return true, err
}

func (t *table) set(key rowKey, row *remoteRow) {
	if t.remote[key.network] == nil {
		t.remote[key.network] = map[string]*remoteRow{}
	}
	t.remote[key.network][key.origin] = row
	t.epochs[key.origin] = max(t.epochs[key.origin], row.epoch)
}

// share hands out the records of a row. They will not change any more.
func (t *table) share(key rowKey) (map[string][]byte, bool) {
	row, ok := t.remote[key.network][key.origin]
	if !ok || !row.attending {
		return nil, false
	}
	row.shared = true
	return row.records, true
}

// forget drops everything a node has said, except up to which epoch it has.
func (t *table) forget(origin string) bool {
	found := false
	for network, rows := range t.remote {
		if _, ok := rows[origin]; ok {
			found = true
			delete(rows, origin)
		}
		if len(rows) == 0 {
			delete(t.remote, network)
		}
	}
	return found
}

// retain drops the rows of networks that this node does not attend.
func (t *table) retain() {
	for network := range t.remote {
		if !t.attends(network) {
			delete(t.remote, network)
		}
	}
}

// hints of all rows of a network, this node's own first.
func (t *table) hints(network string) []hint {
	var all []hint
	if t.attends(network) {
		all = append(all, t.hint(network))
	}
	for origin, row := range t.remote[network] {
		all = append(all, hint{rowKey{network, origin}, row.version})
	}
	return all
}

// digest is equal on nodes that know the same versions of a network, and hardly ever otherwise: FNV-1a over each row,
// combined by xor, since rows have no order. Whoever could forge a collision knows SECRET anyway.
func (t *table) digest(network string) uint64 {
	var sum uint64
	for _, h := range t.hints(network) {
		sum ^= h.hash()
	}
	return sum
}

func (h hint) hash() uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bits
	sum := uint64(offset)
	for i := range len(h.origin) {
		sum = (sum ^ uint64(h.origin[i])) * prime
	}
	for _, n := range [2]uint64{h.epoch, h.seq} {
		for range 8 {
			sum = (sum ^ n&0xff) * prime
			n >>= 8
		}
	}
	return sum
}
