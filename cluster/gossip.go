package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/sirupsen/logrus"
)

// gossipConfig is what the gossip needs of the rest of the cluster. Its functions are called without any lock of the
// gossip or of memberlist.
type gossipConfig struct {
	id, name   string
	advertise  netip.Addr // the only address that is listened on
	gossipPort uint16     // UDP and TCP, of memberlist
	port       uint16     // TCP, of the cluster: where others pull
	key        []byte     // 32 bytes, from which the lives' keys derive
	creds      *credentials
	refuse     func(peerID string) error // nil: nobody is refused
	dir        string
	hold       bool // say nothing until settled is called

	dial      func(ctx context.Context, addr netip.AddrPort, alpn string) (net.Conn, string, error)
	nodes     func() []registered
	clusterID func() string
	disputed  func()                    // another host has this node's identity, or no longer; nil: nobody wants to know
	mark      func() []byte             // how far this node's disk has come, nil if that is not known; nil: nobody is told
	recalled  func(id string, m []byte) // what another node remembers of it; nil: nobody wants to know
	strayed   func(cluster string) bool // looks after a cluster that is not clusterID's, if it can; nil: it cannot
	onChange  func()                    // something about other nodes or their records has changed; must not block
	alarms    *alarms
	logger    *logrus.Logger

	// Seams for tests.
	transport   func() (memberlist.NodeAwareTransport, error) // nil: sockets
	probe       probe                                         // nil: hostLives
	antiEntropy time.Duration                                 // 0: antiEntropyEvery; < 0: never
	forgetful   bool                                          // nothing of the others is written to disk
}

// gossip is membership and the fast facts: it tells others what this node has to say about networks, and learns what
// they say. Hints of new versions travel by memberlist; the records are pulled from their origin.
type gossip struct {
	cfg      gossipConfig
	log      *logrus.Entry
	contacts *contacts
	pulls    *pulls
	served   served
	told     told
	recall   recall
	life     life
	probe    probe
	sealer   *sealer
	list     atomic.Pointer[memberlist.Memberlist] // nil: not yet listening

	advertised atomic.Pointer[meta] // what memberlist tells of this node

	work    chan struct{} // there are hints, or nodes that have joined
	news    chan struct{} // onChange is to be called
	died    chan struct{} // a node is no longer alive
	said    chan struct{} // this node has something new to say about itself
	twins   chan struct{} // an id was seen at two places
	looked  chan struct{} // closed when it is known, after the start, whether another host has this node's identity
	unsaved chan struct{} // the cache is older than the table
	met     chan struct{} // closed when all registered nodes were tried, or one has answered

	epochMu sync.Mutex // one raise at a time; held over fsync

	mu    sync.Mutex // held for computations only
	table *table
	seen  passed

	revisions revisions
	settled   bool
	cluster   string // as of the last look at the facts

	queueMu sync.Mutex // the same; taken by memberlist's callbacks, so nothing waits under it. Order: mu, queueMu
	queue   *hintQueue
	inbox   map[rowKey]version
}

// maxSeen bounds the hints that wait to be looked at, and half of those that are remembered: a hundred nodes with six
// hundred networks each. What is dropped is found by comparing digests.
const maxSeen = 1 << 16

// newGossip reads what is remembered of the others. It starts nothing.
func newGossip(cfg gossipConfig) (*gossip, error) {
	switch {
	case len(cfg.key) != 32:
		return nil, fmt.Errorf("gossip: a key of %d bytes, 32 are needed: there is no gossip without encryption", len(cfg.key))
	case cfg.id == "" || len(cfg.id) > maxKey:
		return nil, fmt.Errorf("gossip: node id %q: 1 to %d bytes are allowed", cfg.id, maxKey)
	case len(cfg.name) > maxKey:
		return nil, fmt.Errorf("gossip: node name %q: at most %d bytes are allowed", cfg.name, maxKey)
	case !cfg.advertise.IsValid() || cfg.advertise.IsUnspecified():
		return nil, fmt.Errorf("gossip: address %s: the address of one interface is needed", cfg.advertise)
	}
	if cfg.logger == nil {
		cfg.logger = logrus.New()
		cfg.logger.SetOutput(io.Discard)
	}
	if cfg.alarms == nil {
		cfg.alarms = &alarms{}
	}
	g := &gossip{
		cfg: cfg, log: cfg.logger.WithField("part", "gossip"), contacts: newContacts(cfg.id), probe: cfg.probe,
		work: make(chan struct{}, 1), news: make(chan struct{}, 1), died: make(chan struct{}, 1), said: make(chan struct{}, 1), twins: make(chan struct{}, 1), unsaved: make(chan struct{}, 1),
		met: make(chan struct{}), looked: make(chan struct{}), table: newTable(cfg.id), settled: !cfg.hold,
		queue: newHintQueue(cfg.id), inbox: map[rowKey]version{},
	}
	var err error
	if g.sealer, err = newSealer(cfg.key); err != nil {
		return nil, err
	}
	g.pulls = newPulls(g)
	if g.probe == nil {
		g.probe = hostLives(cfg.advertise)
	}
	known, err := loadCache(cfg.dir)
	if err != nil {
		g.log.WithError(err).Warn("what the other nodes have said before is not remembered")
	}
	g.table.remember(known)
	g.contacts.remember(known.nodes)
	g.recall.marks = known.marks
	return g, nil
}

// run takes part until ctx ends. It does not say goodbye: a process that has ended is not a host that has died. After it
// returns, nothing of this package runs; memberlist may still be waiting for the end of a probe, deaf and mute.
func (g *gossip) run(ctx context.Context) error {
	if !g.life.begin(ctx) {
		return errors.New("gossip: was run before")
	}
	g.follow()
	for _, f := range []func(context.Context){
		g.beginEpoch, g.listen, g.doWork, g.followFacts, g.watchHosts, g.watchTwins, g.compareAll, g.keepCache,
	} {
		g.life.spawn(f)
	}
	<-ctx.Done()
	g.life.end()
	return nil
}

// poke wakes whoever waits on a channel of capacity one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// onChange: what remote returns for these networks may be something else than before; without any, for all.
func (g *gossip) onChange(networks ...string) {
	g.mu.Lock()
	g.revisions.raise(networks)
	g.mu.Unlock()
	if g.cfg.onChange != nil {
		g.cfg.onChange()
	}
}

// attend says whether this node wants to hear of a network; to the others it means "flood to me".
func (g *gossip) attend(network string, on bool) error {
	g.mu.Lock()
	h, changed, err := g.table.attend(network, on)
	if changed {
		g.tell(h)
	}
	g.mu.Unlock()
	if err != nil || !changed {
		return err
	}
	if on {
		for _, id := range g.contacts.allLive(true) {
			g.pulls.ask(id, nil, network)
		}
	}
	poke(g.unsaved)
	g.onChange(network)
	return nil
}

// publish says something in a network, or withdraws it when value is nil.
func (g *gossip) publish(network, key string, value []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	h, changed, err := g.table.put(network, key, value)
	if changed {
		g.tell(h)
	}
	return err
}

// tell queues a hint of our own. The caller holds mu.
func (g *gossip) tell(hints ...hint) {
	if !g.ready() {
		return
	}
	g.pass(hints...)
}

// pass queues hints. The caller holds mu.
func (g *gossip) pass(hints ...hint) {
	g.queueMu.Lock()
	defer g.queueMu.Unlock()
	for _, h := range hints {
		g.queue.add(h)
	}
}

// ready: this node may be asked, since it has an epoch that is on disk, and has said all that it knows after its start.
// The caller holds mu.
func (g *gossip) ready() bool { return g.settled && g.table.epoch != 0 }

// settle says that everything this node knows after its start has been published. What others remember of it is
// replaced only now: a node that restarts must not look as if it had no endpoints.
func (g *gossip) settle() {
	g.mu.Lock()
	if g.settled {
		g.mu.Unlock()
		return
	}
	g.settled = true
	g.table.retain()
	g.tellAll()
	g.mu.Unlock()
	poke(g.said)
	poke(g.unsaved)
}

// tellAll queues hints of all rows of ours. The caller holds mu.
func (g *gossip) tellAll() {
	for _, network := range g.table.networks() {
		g.tell(g.table.hint(network))
	}
}

// remote returns the rows of the other nodes in a network, sorted by node. The records must not be changed; they do not
// change either.
func (g *gossip) remote(network string) []Row {
	members := g.contacts.members()
	g.mu.Lock()
	defer g.mu.Unlock()
	var rows []Row
	for _, m := range members {
		if m.Suspended || !m.Addr.IsValid() {
			continue
		}
		if records, ok := g.table.share(rowKey{network, m.ID}); ok {
			rows = append(rows, Row{Node: Node{ID: m.ID, Name: m.Name, Addr: m.Addr, Alive: m.Alive}, Records: records})
		}
	}
	return rows
}

// revision is another number whenever remote may return something else than before, and members too.
func (g *gossip) revision(network string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.revisions.of(network)
}

// members are the other nodes, dead or alive.
func (g *gossip) members() []member { return g.contacts.members() }

// sync returns when every live node has answered what it has to say about a network. Those that fail are asked again
// until ctx ends, they are no longer alive, or their host says that nothing runs there.
func (g *gossip) sync(ctx context.Context, network string) error {
	g.mu.Lock()
	attends := g.table.attends(network)
	g.mu.Unlock()
	if !attends {
		return fmt.Errorf("network %s: %w", network, errNotAttended)
	}
	select {
	case <-g.met:
	case <-ctx.Done():
		return fmt.Errorf("network %s: looking for the other nodes: %w", network, context.Cause(ctx))
	}
	asked := map[string]bool{}
	for {
		var waits []func() error
		for _, id := range g.contacts.allLive(false) {
			if asked[id] {
				continue
			}
			asked[id] = true
			_, gone, ok := g.contacts.live(id)
			if !ok {
				continue
			}
			answered := make(chan struct{})
			g.pulls.ask(id, answered, network)
			waits = append(waits, func() error {
				select {
				case <-answered:
				case <-gone:
				case <-ctx.Done():
					return fmt.Errorf("network %s: node %s has not answered: %w", network, id, context.Cause(ctx))
				}
				return nil
			})
		}
		if len(waits) == 0 {
			return nil
		}
		for _, wait := range waits {
			if err := wait(); err != nil {
				return err
			}
		}
	}
}

// servePull answers the pulls of one connection.
func (g *gossip) servePull(conn *tls.Conn, peerID string) { g.serve(conn, peerID) }

// drop forgets what a node has said.
func (g *gossip) drop(id string) {
	g.recall.forget(id)
	g.mu.Lock()
	found := g.table.forget(id)
	g.mu.Unlock()
	if found {
		poke(g.unsaved)
	}
}

// followFacts looks every second at what the facts say about nodes, and tells memberlist what is new about this one.
func (g *gossip) followFacts(ctx context.Context) {
	for {
		g.follow()
		g.advertise()
		g.told.forget(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-g.said:
		case <-time.After(time.Second):
		}
	}
}

func (g *gossip) follow() {
	cluster := g.cfg.clusterID()
	forgotten, changed := g.contacts.setFacts(cluster, g.cfg.nodes())
	g.mu.Lock()
	g.cluster = cluster
	for _, id := range forgotten {
		g.recall.forget(id)
		changed = g.table.forget(id) || changed
	}
	g.mu.Unlock()
	for id, addr := range g.contacts.foreigners() {
		if g.cfg.strayed != nil && g.cfg.strayed(id) {
			continue
		}
		g.cfg.alarms.raise("cluster "+addr.String(), fmt.Sprintf(
			"%s is in another cluster, %s; this one is %s: clusters never merge", addr, id, cluster))
	}
	for addr, why := range g.contacts.strangers() {
		g.cfg.alarms.raise("strange "+addr.String(), fmt.Sprintf("%s cannot be understood: %s", addr, why))
	}
	if changed {
		poke(g.unsaved)
		g.onChange()
	}
}

// says is what this node tells of itself.
func (g *gossip) says() meta {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := meta{cluster: g.cluster, name: g.cfg.name, port: g.cfg.port, life: g.sealer.life}
	if g.ready() {
		m.epoch = g.table.epoch
	}
	return m
}
