package ipam

import (
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
	"github.com/carricknet/carrick/store"
)

// OptionNetwork is the `--ipam-opt` that names a network of the cluster.
const OptionNetwork = ledger.OptionNetwork

// PoolRequest is RequestPool.
type PoolRequest = ledger.PoolRequest

// Store is what must not be forgotten: what Apply was given is on disk when it returns.
type Store interface {
	Prefix(prefix string) iter.Seq2[string, []byte]
	Apply(writes ...store.Write) error
}

// Cluster is what ipam needs of the cluster.
type Cluster interface {
	ID() string
	View() cluster.View
	Propose(ctx context.Context, txn cluster.Txn) (cluster.View, error)
	// Watch wakes at each change of the facts.
	Watch() (<-chan struct{}, func())
	// Undisputed says why this host must not hand out addresses, whatever blocks are its own; nil: it may. It may wait.
	Undisputed(ctx context.Context) error
}

// Config is what an IPAM is made of.
type Config struct {
	Store   Store
	Damaged bool // the store was found damaged and begins empty
	// Regressed is an identifier of the last time that the store was found to be an older copy of itself; empty: it is not known to be.
	Regressed string
	Cluster   Cluster                        // nil without one
	Nodes     func() []cluster.Node          // of the cluster, so that it is known who is gone; nil: nobody is
	Pools     []netip.Prefix                 // where subnets are chosen from; without any, none is chosen
	InUse     func() ([]netip.Prefix, error) // routes and addresses of the host; nil: none
	Logger    *logrus.Logger                 // nil discards
}

// IPAM answers Docker's calls about pools and addresses, and the driver's.
type IPAM struct {
	config Config
	now    func() time.Time
	// resolvConf is the file with the host's name servers, which no chosen subnet may hide.
	resolvConf string

	used chan struct{} // wakes Run: an address of a network was handed out
	look time.Time     // when Run looks next at what the host uses

	mu     sync.Mutex // held over writes to the store, never over a call to the cluster
	ledger *ledger.Ledger
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
	i := &IPAM{config: c, now: now, resolvConf: resolvConf, used: make(chan struct{}, 1)}
	if c.Damaged {
		// The store tells of its damage until something has been written; from here on this record tells.
		if err := c.Store.Apply(ledger.Damaged()); err != nil {
			return nil, err
		}
	}
	if c.Regressed != "" {
		writes, err := ledger.Regressed(c.Store.Prefix, c.Regressed)
		if err == nil {
			err = c.Store.Apply(writes...)
		}
		if err != nil {
			return nil, err
		}
	}
	var err error
	i.ledger, err = ledger.New(c.Store.Prefix, c.Pools, ledger.QuietTime, i.moment())
	return i, err
}

// Spaces are the names of the two address spaces.
func (i *IPAM) Spaces() (local, global string) { return ledger.LocalSpace, ledger.GlobalSpace }

// moment is now.
func (i *IPAM) moment() ledger.Moment {
	at := ledger.Moment{Now: i.now(), Seed: rand.Uint64()}
	if i.config.Cluster != nil {
		at.Joined, at.View, at.Self, at.Nodes = true, i.config.Cluster.View(), i.config.Cluster.ID(), i.config.Nodes
	}
	return at
}
