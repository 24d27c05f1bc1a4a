package ledger

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"github.com/carricknet/carrick/store"
)

const (
	// maxNames is how many names of containers that are gone are remembered in a pool; who went first is forgotten first.
	maxNames = 256
	// longestName is the length beyond which a name is not remembered: Docker sets no limit.
	longestName = 128
)

// taskName is how Swarm calls the containers of a service: the end is another for each, so none comes back.
var taskName = regexp.MustCompile(`\.[0-9a-z]{25}$`)

// nameRecord is an address that a container of that name had, and nobody has had since. It reserves nothing.
type nameRecord struct {
	Version int        `json:"v"`
	Pool    string     `json:"pool"`
	Addr    netip.Addr `json:"addr"`
	Name    string     `json:"name"`
	Serial  uint64     `json:"serial"` // the larger, the later
}

func (r nameRecord) version() int { return r.Version }

func nameKey(pool string, addr netip.Addr) string { return belowName + pool + "/" + addr.String() }
func putName(rec nameRecord) store.Write          { return put(nameKey(rec.Pool, rec.Addr), rec) }

// names are the records of a pool: each name and each address once.
type names struct {
	by     map[string]nameRecord
	at     map[netip.Addr]string
	serial uint64
}

func newNames() names { return names{by: map[string]nameRecord{}, at: map[netip.Addr]string{}} }

func (n names) clone() names { return names{maps.Clone(n.by), maps.Clone(n.at), n.serial} }

// load takes over a record from disk. Of two that contradict each other, which a crash does not leave, one is as good as the other.
func (n *names) load(rec nameRecord) {
	n.forget(rec.Addr)
	if old, known := n.by[rec.Name]; known {
		n.forget(old.Addr)
	}
	n.by[rec.Name], n.at[rec.Addr] = rec, rec.Name
	n.serial = max(n.serial, rec.Serial)
}

// remember returns the writes that are needed for a lease that ends.
func (n *names) remember(l leaseRecord) []store.Write {
	if l.Name == "" || l.Explicit || len(l.Name) > longestName || taskName.MatchString(l.Name) {
		return nil
	}
	var all []store.Write
	if old, known := n.by[l.Name]; known && old.Addr != l.Addr {
		all = append(all, n.forget(old.Addr)...)
	}
	n.forget(l.Addr) // its record is overwritten
	n.serial++
	rec := nameRecord{recordVersion, l.Pool, l.Addr, l.Name, n.serial}
	n.by[rec.Name], n.at[rec.Addr] = rec, rec.Name
	for len(n.by) > maxNames {
		oldest := slices.MinFunc(slices.Collect(maps.Values(n.by)), func(a, b nameRecord) int {
			if a.Serial < b.Serial {
				return -1
			}
			return 1 // each has its own
		})
		all = append(all, n.forget(oldest.Addr)...)
	}
	return append(all, putName(rec))
}

// forget returns the writes that are needed when an address is somebody's.
func (n *names) forget(addr netip.Addr) []store.Write {
	name, known := n.at[addr]
	if !known {
		return nil
	}
	pool := n.by[name].Pool
	delete(n.at, addr)
	delete(n.by, name)
	return writes(deletion(nameKey(pool, addr)))
}

// pickFor finds any address, for a container of a name the one that this name had, if it is free and still ours to give. That it
// may have been released a moment ago does not matter: it is announced with its new MAC, as one that is asked for by --ip is.
func (p *pool) pickFor(at Moment, name string) (netip.Addr, error) {
	if rec, known := p.names.by[name]; known && !flawed(flawNamesAreForgotten) && (p.space.mine(rec.Addr) || flawed(flawNameTakesWhatIsOthers)) {
		return rec.Addr, nil
	}
	return p.pick(at)
}
