package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/store"
)

// recordVersion is the version of the records this package stores. A newer one is left alone and said, not guessed at.
const recordVersion = 1

// undoLimit bounds the way back from a call that failed, whose own time may be over. The server answers 2 s after a call
// has been told to stop; what is not undone by then goes on without the caller, and Run tries what failed again.
const undoLimit = 5 * time.Second

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
	// Guard is what the kernel of this host needs for the sake of the other nodes of the cluster; nil: nothing.
	Guard   func() kernel.State
	Store   Store
	Damaged bool           // the store was found damaged and begins empty, or old: nothing in the kernel is an orphan for that
	Unsure  bool           // whether it is the newest is not known yet: what seems to be an orphan is left for the next start
	Logger  *logrus.Logger // nil discards
}

// Driver answers Docker's calls about networks and endpoints. Every call may be repeated, may come half-made and may
// come for something unknown.
type Driver struct {
	Config

	mu       sync.Mutex          // protects the following; never held over a call to the outside
	networks map[string]*network // Docker's id -> network
	claims   map[string]claim    // Docker's id -> what no other network of this host may have
	members  map[string]turn     // the cluster's id -> whose turn it is to join or leave that network

	credulous bool // a seam for tests: the facts are not asked whose an address is

	guard  guard
	left   chan struct{} // wakes Run: there is a network that the cluster has not heard has left
	unread bool          // a network has a record that this version cannot read; written by Restore only
}

// network is one network with what belongs to it.
type network struct {
	// turn is taken by whoever works on the network, and kept over calls to the kernel, the store and the cluster. The
	// rest is written with the turn and Driver.mu, so that either is enough to read it: who only looks never waits.
	turn turn
	content
	plan Plan // nil if it could not be opened
	// doomed are endpoints of which a call says that they are to go; written with Driver.mu, with or without the turn.
	doomed map[string]bool
	gone   bool // removed from the driver while somebody waited for the turn
	// unheard: the other hosts have not said yet, after a start, what they have. What is there in the kernel stays.
	unheard bool

	said bool  // what was refused is in the log
	from basis // of what the kernel was last told; zero: it must be told again

	// What Run remembers.
	adopted  map[string]bool // endpoints from before the start, of which the kernel has not been told since
	missed   bool            // something changed, and there was no turn to be had
	suspects map[string]int  // endpoint -> looks at which it seemed dead, one after the other
}

// content is what a network is, has and lacks.
type content struct {
	Network
	endpoints map[string]Endpoint
	problem   error                 // why the kernel is not as it should be; nil: it is
	refused   string                // what other hosts said and was not believed
	macs      map[kernel.MAC]holder // who had which MAC when it was looked at last
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
	return &Driver{
		Config: c, networks: map[string]*network{}, claims: map[string]claim{}, members: map[string]turn{}, left: make(chan struct{}, 1),
		guard: guard{turn: newTurn()},
	}
}

func newNetwork(n Network) *network {
	return &network{turn: newTurn(), content: content{Network: n, endpoints: map[string]Endpoint{}}, doomed: map[string]bool{},
		suspects: map[string]int{}, adopted: map[string]bool{}}
}

// get returns a network, with its turn.
func (d *Driver) get(ctx context.Context, id string) (*network, error) {
	d.mu.Lock()
	nw := d.networks[id]
	d.mu.Unlock()
	if nw == nil {
		return nil, fmt.Errorf("network %s: %w", short(id), ErrNotFound)
	}
	if err := nw.take(ctx); err != nil {
		return nil, err
	}
	if nw.gone {
		nw.turn.give()
		return nil, fmt.Errorf("network %s: %w", short(id), ErrNotFound)
	}
	return nw, nil
}

func (nw *network) take(ctx context.Context) error {
	if err := nw.turn.take(ctx); err != nil {
		return fmt.Errorf("network %s: waiting for another call about it: %w", short(nw.ID), err)
	}
	return nil
}

// usable says why nothing can be attached to a network; nil: it can.
func (nw *network) usable() error {
	switch {
	case nw.Half:
		return fmt.Errorf("network %s is being made or removed: %w", short(nw.ID), ErrNotFound)
	case nw.plan == nil:
		return fmt.Errorf("network %s: %w", short(nw.ID), nw.problem)
	}
	return nil
}

// change writes what others may be reading. The network's turn is held.
func (d *Driver) change(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
}

// attend tells the other hosts that this one takes part in a network, or does not any more.
func (d *Driver) attend(nw *network, on bool) {
	if nw.Shared != "" && d.Records != nil {
		d.Records.Attend(nw.Shared, on)
	}
}

// publish tells them of an endpoint.
func (d *Driver) publish(nw *network, e Endpoint) {
	if nw.Shared != "" && d.Records != nil {
		d.Records.Publish(nw.Shared, e.ID, encodeRecord(e))
	}
}

// withdraw tells them that it is gone.
func (d *Driver) withdraw(nw *network, e Endpoint) {
	if nw.Shared != "" && d.Records != nil {
		d.Records.Publish(nw.Shared, e.ID, nil)
	}
}

// all returns the networks there are.
func (d *Driver) all() []*network {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.networks))
}

// open asks the mode for the network's plan.
func (d *Driver) open(ctx context.Context, nw *network) error {
	mode, ok := d.Modes[nw.Mode]
	switch {
	case !ok:
		return fmt.Errorf("mode %q is unknown to this version", nw.Mode)
	case mode.Shared && d.Records == nil:
		return errors.New("its hosts cannot be found without a cluster: SECRET is not set")
	}
	n := nw.Network
	plan, err := mode.Open(ctx, &n)
	if err == nil {
		d.change(func() { nw.Network, nw.plan = n, plan })
	}
	return err
}

// set makes the kernel as the network's plan says, now.
func (d *Driver) set(ctx context.Context, nw *network) error {
	from := d.basis(nw.Shared)
	b := d.remote(nw.content)
	if b.refused != nw.refused {
		nw.said = false
	} else if b.refused != "" && !nw.said {
		// Not at the first look: a record may be here before the fact that it rests on, by some milliseconds.
		d.log(nw.ID).Error(b.refused)
		nw.said = true
	}
	err := d.Kernel.Set(ctx, networkOwner(nw.ID), nw.plan.Network(b.Remote))
	if err != nil || b.refused != "" && !nw.said { // it is looked at once more
		from = basis{}
	}
	d.change(func() { nw.refused, nw.macs, nw.from = b.refused, b.macs, from })
	return err
}

// keep brings a network in step for nobody who waits: it opens it if that has not been possible, or removes it if it has been
// left half-made. A failure is logged when it is new, and Run tries again.
func (d *Driver) keep(ctx context.Context, nw *network) {
	var err error
	switch {
	case nw.gone:
		return
	case nw.Half:
		if err = d.remove(ctx, nw); err == nil {
			select {
			case d.left <- struct{}{}:
			default:
			}
		}
	case nw.plan == nil:
		err = d.open(ctx, nw)
	}
	if err == nil && !nw.gone && !nw.unheard {
		err = d.set(ctx, nw)
	}
	switch was := nw.problem; {
	case err != nil && (was == nil || was.Error() != err.Error()):
		d.log(nw.ID).WithError(err).Error("the network is not as it should be; its traffic is left as it is; trying again")
	case err == nil && was != nil && !nw.gone:
		d.log(nw.ID).Info("the network is as it should be again")
	}
	d.change(func() { nw.problem = err })
}

func (d *Driver) log(network string) *logrus.Entry {
	return d.Logger.WithField("network", short(network))
}

// What the kernel knows networks and endpoints by.
func networkOwner(id string) string  { return "network/" + id }
func endpointOwner(id string) string { return "endpoint/" + id }

// belowEndpoint is where the records of endpoints begin.
const belowEndpoint = "endpoint/"

// The keys of the store: records, and owners whose records are lost.
func networkKey(id string) string           { return "network/" + id }
func endpointKey(network, id string) string { return belowEndpoint + network + "/" + id }
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

// Prefixes are those of the network's subnets.
func (n Network) Prefixes() []netip.Prefix {
	all := make([]netip.Prefix, 0, len(n.Subnets))
	for _, s := range n.Subnets {
		all = append(all, s.Prefix)
	}
	return all
}

// list is how a sentence names what is allowed.
func list(words []string) string { return strings.Join(words, ", ") }
