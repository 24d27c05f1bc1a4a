package ipam

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// Address spaces. Docker's engine asks in the local one; a Swarm manager asks in the global one.
const (
	localSpace  = "carrick"
	globalSpace = "carrick-global"
)

const (
	// answerTime bounds what waits for the cluster. The engine waits up to 30 s, and is told sooner.
	answerTime = 8 * time.Second
	// cooldown is how long a released address rests if there is another: as long as a neighbour entry of Linux stays in use
	// without confirmation (base_reachable_time 30 s, at most 1.5 times that) and some more.
	cooldown = 60 * time.Second
)

// Store is what must not be forgotten: what Apply was given is on disk when it returns.
type Store interface {
	Prefix(prefix string) iter.Seq2[string, []byte]
	Apply(writes ...store.Write) error
}

// Facts is what ipam needs of the cluster's facts.
type Facts interface {
	ID() string
	View() cluster.View
	Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error)
}

// Cluster is Facts that say when they change, and whether they are this host's alone.
type Cluster interface {
	Facts
	Watch() (<-chan struct{}, func())
	// Undisputed says why this host must not hand out addresses, whatever blocks are its own; nil: it may. It may wait.
	Undisputed(ctx context.Context) error
}

// Config is what an IPAM is made of.
type Config struct {
	Store   Store
	Damaged bool                           // the store was found damaged and begins empty
	Cluster Cluster                        // nil without one
	Pools   []netip.Prefix                 // where subnets are chosen from; without any, none is chosen
	InUse   func() ([]netip.Prefix, error) // routes and addresses of the host; nil: none
	Logger  *logrus.Logger                 // nil discards
}

// IPAM answers Docker's calls about pools and addresses, and the driver's.
type IPAM struct {
	config Config
	now    func() time.Time
	// resolvConf is the file with the host's name servers, which no chosen subnet may hide.
	resolvConf string
	damaged    bool

	used chan struct{} // wakes Run: an address of a block was handed out

	mu     sync.Mutex // held over writes to the store, never over a call to the cluster
	pools  map[string]*pool
	serial uint64            // of RequestPool, so that the newest of two provisional pools is known
	alarms map[string]string // pool id and kind -> sentence
	asking map[string]int    // key of a want -> requests that wait for its answer
}

// pool is one pool with what is handed out of it.
type pool struct {
	poolRecord
	space  *space
	serial uint64
	asked  int           // times that a chosen subnet was asked for again
	claims chan struct{} // holds a token while a block is being claimed

	// What the facts say of a network of the cluster, as of the view with this index.
	viewed uint64
	stale  bool // the view is older than the binding
	known  bool // there was a view
	self   string
	blocks []cluster.Block
	// excluded are addresses of ours that are given, or being given, to other hosts: index of the want.
	excluded map[netip.Addr]carveRecord
	receipts map[netip.Prefix]blockRecord
	fullAt   time.Time // when no block could be claimed ahead
}

// New reads what the store has. It fails only if that was written by a newer version, or cannot be written.
func New(c Config) (*IPAM, error) { return build(c, time.Now, "/etc/resolv.conf") }

func build(c Config, now func() time.Time, resolvConf string) (*IPAM, error) {
	if c.Logger == nil {
		c.Logger = logrus.New()
		c.Logger.SetOutput(io.Discard)
	}
	if c.InUse == nil {
		c.InUse = func() ([]netip.Prefix, error) { return nil, nil }
	}
	i := &IPAM{
		config: c, now: now, resolvConf: resolvConf, pools: map[string]*pool{}, alarms: map[string]string{},
		asking: map[string]int{}, used: make(chan struct{}, 1),
	}
	if c.Damaged {
		// The store tells of its damage until something has been written; from here on this record tells.
		write, err := put(keyDamaged, damagedRecord{Version: recordVersion})
		if err != nil {
			return nil, err
		}
		if err := c.Store.Apply(write); err != nil {
			return nil, err
		}
	}
	if err := i.load(); err != nil {
		return nil, fmt.Errorf("leases: %w", err)
	}
	return i, nil
}

// Spaces are the names of the two address spaces.
func (i *IPAM) Spaces() (local, global string) { return localSpace, globalSpace }

func (i *IPAM) newPool(rec poolRecord) *pool {
	p := &pool{poolRecord: rec, claims: make(chan struct{}, 1), excluded: map[netip.Addr]carveRecord{}, receipts: map[netip.Prefix]blockRecord{}}
	p.space = newSpace(p.subnet())
	if p.Shared == "" {
		p.refresh(cluster.View{}, "", i.now())
	}
	return p
}

func (i *IPAM) load() error {
	for range i.config.Store.Prefix(keyDamaged) {
		i.damaged = true
	}
	nexts := map[string]map[netip.Prefix]netip.Addr{}
	for _, raw := range i.config.Store.Prefix(belowPool) {
		var rec poolRecord
		if err := decode(raw, &rec, &rec.Version); err != nil {
			return err
		}
		i.pools[rec.ID] = i.newPool(rec)
		nexts[rec.ID] = map[netip.Prefix]netip.Addr{}
	}
	for _, raw := range i.config.Store.Prefix(belowLease) {
		var rec leaseRecord
		if err := decode(raw, &rec, &rec.Version); err != nil {
			return err
		}
		if p := i.pools[rec.Pool]; p != nil {
			p.space.take(rec.Addr, &lease{leaseRecord: rec, idle: i.now()})
		}
	}
	for _, raw := range i.config.Store.Prefix(belowNext) {
		var rec nextRecord
		if err := decode(raw, &rec, &rec.Version); err != nil {
			return err
		}
		if nexts[rec.Pool] != nil {
			nexts[rec.Pool][rec.Part] = rec.Next
		}
	}
	for _, raw := range i.config.Store.Prefix(belowCarve) {
		var rec carveRecord
		if err := decode(raw, &rec, &rec.Version); err != nil {
			return err
		}
		if p := i.pools[rec.Pool]; p != nil {
			p.excluded[rec.Addr] = rec
		}
	}
	for _, raw := range i.config.Store.Prefix(belowBlock) {
		var rec blockRecord
		if err := decode(raw, &rec, &rec.Version); err != nil {
			return err
		}
		if p := i.pools[rec.Pool]; p != nil {
			p.receipts[rec.Prefix] = rec
		}
	}
	for id, p := range i.pools {
		p.space.resume(nexts[id], i.now())
		i.refresh(p)
	}
	return nil
}

// change replaces a pool's record, on disk first. i.mu is held.
func (i *IPAM) change(p *pool, rec poolRecord) error {
	write, err := putPool(rec)
	if err != nil {
		return err
	}
	if err := i.config.Store.Apply(write); err != nil {
		return err
	}
	i.adopt(p, rec)
	return nil
}

// adopt takes over a record that is on disk.
func (i *IPAM) adopt(p *pool, rec poolRecord) {
	p.poolRecord = rec
	p.space.subnet = p.subnet()
	p.known = false
	if p.Shared == "" {
		p.refresh(cluster.View{}, "", i.now())
		return
	}
	i.refresh(p)
}

// refresh brings what a pool knows of its blocks up to the facts. i.mu is held.
func (i *IPAM) refresh(p *pool) {
	if p.Shared == "" {
		return
	}
	if i.config.Cluster == nil {
		p.stale = true // SECRET was taken away: whose addresses are whose is not known
		p.space.setParts(nil, nil, i.now())
		return
	}
	if view := i.config.Cluster.View(); view.Index() != p.viewed || !p.known {
		p.refresh(view, i.config.Cluster.ID(), i.now())
		i.receive(p)
	}
}

var errUnknownPool = errors.New("is not known")

func (i *IPAM) get(id string) (*pool, error) {
	p, ok := i.pools[id]
	if !ok {
		return nil, fmt.Errorf("pool %s: %w", id, errUnknownPool)
	}
	return p, nil
}

// ordered are the pools by their identifiers.
func (i *IPAM) ordered() []*pool {
	var all []*pool
	for _, id := range slices.Sorted(maps.Keys(i.pools)) {
		all = append(all, i.pools[id])
	}
	return all
}
