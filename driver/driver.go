package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// recordVersion is the version of the records this package stores. A newer one is left alone and said, not guessed at.
const recordVersion = 1

// Config is what a Driver is made of.
type Config struct {
	Modes   map[string]Mode
	Default string // the mode of a network that names none
	Name    string // the driver's name as the user types it, for sentences that say what to type
	Kernel  Kernel
	Facts   Facts   // nil without a cluster
	Records Records // nil without a cluster
	Pools   Pools
	Leases  Leases
	Store   Store
	Damaged bool           // the store was found damaged and begins empty: nothing in the kernel is an orphan for that
	Logger  *logrus.Logger // nil discards
}

// Driver answers Docker's calls about networks and endpoints. Every call may be repeated, may come half-made and may
// come for something unknown.
type Driver struct {
	Config

	mu       sync.Mutex          // protects the following; never held over a call to the outside
	networks map[string]*network // Docker's id -> network
	claims   map[string]claim    // Docker's id -> what no other network of this host may have

	leaving sync.Mutex // held while a network of the cluster is joined or left; taken after a network's own mutex
}

// network is one network with what belongs to it. Its mutex is held over calls to the kernel and the store.
type network struct {
	mu sync.Mutex
	Network
	plan      Plan  // nil if it could not be opened
	problem   error // why the kernel is not as it should be; nil: it is
	endpoints map[string]Endpoint
	suspects  map[string]suspect
	gone      bool // removed from the driver while somebody waited for the mutex
}

// claim is what a network takes away from the others of this host.
type claim struct {
	shared  string
	subnets []netip.Prefix
}

// New makes a driver that knows nothing yet; Restore reads what it must not have forgotten.
func New(c Config) *Driver {
	if c.Logger == nil {
		c.Logger = logrus.New()
		c.Logger.SetOutput(io.Discard)
	}
	return &Driver{Config: c, networks: map[string]*network{}, claims: map[string]claim{}}
}

// Restore reads the records, undoes what was begun and never answered, removes what the kernel holds for owners that
// nobody knows, and brings the rest in step. A network that cannot be opened keeps its record and its traffic and is
// tried again by Run; only a store that cannot be written is an error.
func (d *Driver) Restore(ctx context.Context) error {
	for _, raw := range d.Store.Prefix("network/") {
		var n Network
		if err := decode(raw, &n, &n.Version); err != nil {
			d.Logger.WithError(err).Error("a network's record cannot be read; the network is left as it is")
			continue
		}
		d.networks[n.ID] = &network{Network: n, endpoints: map[string]Endpoint{}}
		d.claims[n.ID] = claim{shared: n.Shared, subnets: prefixesOf(n)}
	}
	for _, raw := range d.Store.Prefix("endpoint/") {
		var e Endpoint
		if err := decode(raw, &e, &e.Version); err != nil {
			d.Logger.WithError(err).Error("an endpoint's record cannot be read; the endpoint is left as it is")
			continue
		}
		if nw := d.networks[e.Network]; nw != nil {
			nw.endpoints[e.ID] = e
		}
	}
	for id, nw := range d.networks {
		if !nw.Making {
			continue
		}
		if err := d.unmake(ctx, nw); err != nil {
			return fmt.Errorf("undo network %s, which was begun and never answered: %w", short(id), err)
		}
		delete(d.networks, id)
		delete(d.claims, id)
	}
	d.removeOrphans(ctx)
	for _, nw := range d.all() {
		nw.mu.Lock()
		d.open(ctx, nw)
		d.announce(nw)
		d.keep(ctx, nw)
		nw.mu.Unlock()
	}
	return nil
}

// open asks the mode for the network's plan.
func (d *Driver) open(ctx context.Context, nw *network) {
	mode, ok := d.Modes[nw.Mode]
	switch {
	case !ok:
		nw.problem = fmt.Errorf("mode %q is unknown to this version", nw.Mode)
	case mode.Shared && d.Records == nil:
		nw.problem = errors.New("its hosts cannot be found without a cluster: SECRET is not set")
	default:
		nw.plan, nw.problem = mode.Open(ctx, &nw.Network)
	}
	if nw.problem != nil {
		nw.plan = nil
		d.log(nw.ID).WithError(nw.problem).Error("network cannot be opened; its traffic is left as it is")
	}
}

// announce tells the other hosts of the endpoints here.
func (d *Driver) announce(nw *network) {
	if nw.Shared == "" || d.Records == nil || len(nw.endpoints) == 0 {
		return
	}
	d.Records.Attend(nw.Shared, true)
	for _, e := range nw.endpoints {
		d.Records.Publish(nw.Shared, e.ID, encodeRecord(e))
	}
}

// removeOrphans removes what owners have that no record knows: a plugin killed between the kernel and its answer leaves
// such things. A failure leaves them for the next start. When the records are lost nobody can say what is an orphan:
// then everything is kept, and marked, until the engine removes it.
func (d *Driver) removeOrphans(ctx context.Context) {
	owned, err := d.Kernel.Owners(ctx)
	if err != nil {
		d.Logger.WithError(err).Error("what the kernel holds of ours cannot be listed; orphans are left for the next start")
		return
	}
	known := map[string]bool{}
	for _, nw := range d.networks {
		known[networkOwner(nw.ID)] = true
		for id := range nw.endpoints {
			known[endpointOwner(id)] = true
		}
	}
	for _, o := range owned {
		switch {
		case known[o.Owner] || d.isKept(o.Owner):
		case d.Damaged:
			if err := d.Store.Apply(store.Write{Key: keptKey(o.Owner), Value: []byte("{}")}); err != nil {
				d.Logger.WithError(err).WithField("owner", o.Owner).Error("what is in the kernel cannot be marked as kept")
			}
		default:
			if err := d.Kernel.Set(ctx, o.Owner, kernel.State{}); err != nil {
				d.Logger.WithError(err).WithField("owner", o.Owner).Error("an orphan cannot be removed")
				continue
			}
			d.Logger.WithField("owner", o.Owner).Warn("removed what nobody owns any more")
		}
	}
}

// removeKept removes what an owner has in the kernel whose record is lost, if there is such a thing.
func (d *Driver) removeKept(ctx context.Context, owner string) error {
	if !d.isKept(owner) {
		return nil
	}
	if err := d.Kernel.Set(ctx, owner, kernel.State{}); err != nil {
		return err
	}
	return d.Store.Apply(store.Write{Key: keptKey(owner)})
}

func (d *Driver) isKept(owner string) bool { return d.has(keptKey(owner)) }

// has says whether the store has a key; keys of one kind have one length, so none begins with another.
func (d *Driver) has(key string) bool {
	for range d.Store.Prefix(key) {
		return true
	}
	return false
}

// get returns a network, locked.
func (d *Driver) get(id string) (*network, error) {
	d.mu.Lock()
	nw := d.networks[id]
	d.mu.Unlock()
	if nw == nil {
		return nil, fmt.Errorf("network %s: %w", short(id), ErrNotFound)
	}
	nw.mu.Lock()
	if nw.gone {
		nw.mu.Unlock()
		return nil, fmt.Errorf("network %s: %w", short(id), ErrNotFound)
	}
	return nw, nil
}

// all returns the networks there are, unlocked.
func (d *Driver) all() []*network {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*network, 0, len(d.networks))
	for _, nw := range d.networks {
		all = append(all, nw)
	}
	return all
}

// set makes the kernel as the network's plan says, now.
func (d *Driver) set(ctx context.Context, nw *network) error {
	if nw.plan == nil {
		return fmt.Errorf("network %s: %w", short(nw.ID), nw.problem)
	}
	return d.Kernel.Set(ctx, networkOwner(nw.ID), nw.plan.Network(d.remote(nw)))
}

// keep is set for nobody who waits: a failure is logged when it is new, and whoever calls keep again tries again.
func (d *Driver) keep(ctx context.Context, nw *network) {
	if nw.plan == nil {
		return
	}
	err := d.set(ctx, nw)
	switch {
	case err != nil && (nw.problem == nil || nw.problem.Error() != err.Error()):
		d.log(nw.ID).WithError(err).Error("the kernel does not take what the network needs; trying again")
	case err == nil && nw.problem != nil:
		d.log(nw.ID).Info("the kernel has what the network needs again")
	}
	nw.problem = err
}

func (d *Driver) log(network string) *logrus.Entry {
	return d.Logger.WithField("network", short(network))
}

func networkOwner(id string) string  { return "network/" + id }
func endpointOwner(id string) string { return "endpoint/" + id }

// The keys of the store: records, networks that the cluster still has to hear have left, owners whose records are lost.
func networkKey(id string) string           { return "network/" + id }
func endpointKey(network, id string) string { return "endpoint/" + network + "/" + id }
func leavingKey(shared string) string       { return "leaving/" + shared }
func keptKey(owner string) string           { return "kept/" + owner }

// short is how Docker's command line prints an identifier.
func short(id string) string { return id[:min(12, len(id))] }

func decode(raw []byte, v any, version *int) error {
	if err := json.Unmarshal(raw, v); err != nil {
		return err
	}
	if *version != recordVersion {
		return fmt.Errorf("format version %d, this plugin knows %d", *version, recordVersion)
	}
	return nil
}

func put(key string, v any) (store.Write, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return store.Write{}, fmt.Errorf("%s: %w", key, err)
	}
	return store.Write{Key: key, Value: raw}, nil
}

func prefixesOf(n Network) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(n.Subnets))
	for _, s := range n.Subnets {
		all = append(all, s.Prefix)
	}
	return all
}

// list is how a sentence names what is allowed.
func list(words []string) string { return strings.Join(words, ", ") }
