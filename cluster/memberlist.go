package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/sirupsen/logrus"
)

const (
	// gossipInterval and gossipFanout are for hints: measured in virtual time, 10,000 entries reach all of 100 nodes in 0.25 s
	// with these, and in 1.0 s with memberlist's own 200 ms and 3.
	gossipInterval = 50 * time.Millisecond
	gossipFanout   = 4
	// reclaimTime: memberlist gives the id of a dead node to another address only if it was dead for longer than this, and
	// never if it is 0. A node is known by its key, so a new address is a host that has moved.
	reclaimTime = time.Millisecond
	// reconnectEvery is how often one node that is registered and not alive is asked to join. memberlist never does, and
	// stays split for ever after a partition.
	reconnectEvery = time.Second
	// maxJoins at a time: each may wait dialTimeout for a dead host.
	maxJoins = 8
	// gossipPacket is how long a datagram may be on the wire, without its headers; memberlist's own choice for any network.
	gossipPacket = 1400
	// dialTimeout is for streams of memberlist; a lost SYN is sent again after 1 s (RFC 6298 section 2.1).
	dialTimeout = 3 * time.Second
)

// listen keeps memberlist running. An address that is not there yet (DHCP at boot) or still taken is tried again.
func (g *gossip) listen(ctx context.Context) {
	list, tr, err := g.createList(ctx)
	for err != nil {
		g.cfg.alarms.raise("gossip", "this node cannot talk to the others: "+err.Error())
		if !pause(ctx, time.Second) {
			return
		}
		list, tr, err = g.createList(ctx)
	}
	g.list.Store(list)
	poke(g.said)
	g.reconnect(ctx, list)
	<-ctx.Done()
	// Not Leave: a dead process is not a dead host, and the others keep what they know.
	if err := list.Shutdown(); err != nil {
		g.log.WithError(err).Warn("gossip: shutdown")
	}
	tr.wait()
}

func (g *gossip) createList(ctx context.Context) (*memberlist.Memberlist, *tracked, error) {
	logger := log.New(quiet{g.log}, "", 0)
	open := g.cfg.transport
	if open == nil {
		open = func() (memberlist.NodeAwareTransport, error) {
			t := newTransport(netip.AddrPortFrom(g.cfg.advertise, g.cfg.gossipPort), g.cfg.creds, g.cfg.alarms, g.cfg.logger)
			t.name, t.refuse, t.twin, t.friend = "gossip port", g.cfg.refuse, g.twinAt, g.contacts.isPlace
			return openSockets(ctx, t)
		}
	}
	inner, err := open()
	if err != nil {
		return nil, nil, err
	}
	tr := newTracked(ctx, newSealed(inner, g.sealer, g.contacts, g.log))
	list, err := memberlist.Create(g.listConfig(tr, logger))
	if err != nil {
		err = errors.Join(err, tr.Shutdown())
		tr.wait()
		return nil, nil, err
	}
	return list, tr, nil
}

// listConfig: failure detection is memberlist's own for a LAN. Its encryption is not used, see docs/adr/0014-sealed-gossip.md.
func (g *gossip) listConfig(tr memberlist.Transport, logger *log.Logger) *memberlist.Config {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = g.cfg.id
	cfg.Transport, cfg.Logger, cfg.LogOutput = tr, logger, nil
	cfg.BindAddr, cfg.BindPort = g.cfg.advertise.String(), int(g.cfg.gossipPort)
	cfg.AdvertiseAddr, cfg.AdvertisePort = g.cfg.advertise.String(), int(g.cfg.gossipPort)
	cfg.UDPBufferSize = gossipPacket - packetOverhead
	cfg.EnableCompression = false // hints are compact, and checkPacket lets nothing compressed through
	cfg.GossipInterval, cfg.GossipNodes = gossipInterval, gossipFanout
	cfg.DeadNodeReclaimTime = reclaimTime
	cfg.Delegate, cfg.Events, cfg.Alive, cfg.Conflict = g.delegate(), g.delegate(), g.delegate(), g.delegate()
	return cfg
}

// reconnect joins all registered nodes at once, and from then on one of those that are not alive every second.
func (g *gossip) reconnect(ctx context.Context, list *memberlist.Memberlist) {
	free := make(chan struct{}, maxJoins)
	join := func(targets []netip.AddrPort, done func(answered bool)) {
		free <- struct{}{}
		if !g.life.spawn(func(context.Context) {
			defer func() { <-free }()
			answered := false
			for _, to := range targets {
				n, err := list.Join([]string{to.String()})
				answered = answered || n > 0 && err == nil
			}
			done(answered)
		}) {
			<-free
			done(false)
		}
	}
	g.joinAll(ctx, join)
	for pause(ctx, reconnectEvery*3/4+rand.N(reconnectEvery/2)) {
		if len(free) == maxJoins {
			continue
		}
		if targets := g.contacts.unreachable(time.Now()); len(targets) > 0 {
			join(targets, func(bool) {})
		}
	}
}

// joinAll is the first round. It closes met when one has answered, for that one has told about all others, or when none
// has. Those that were told about meanwhile need not be asked.
func (g *gossip) joinAll(ctx context.Context, join func([]netip.AddrPort, func(answered bool))) {
	var once sync.Once
	meet := func() { once.Do(func() { close(g.met) }) }
	g.life.spawn(func(ctx context.Context) {
		var tries sync.WaitGroup
		now := time.Now()
		for targets := g.contacts.unreachable(now); targets != nil && ctx.Err() == nil; targets = g.contacts.unreachable(now) {
			tries.Add(1)
			join(targets, func(answered bool) {
				if answered {
					meet()
				}
				tries.Done()
			})
		}
		tries.Wait()
		meet()
	})
	select {
	case <-g.met:
	case <-ctx.Done():
	}
}

// delegate is what memberlist calls, often under its own locks: nothing here waits, or calls anything that could.
type delegate struct{ g *gossip }

func (g *gossip) delegate() delegate { return delegate{g} }

func (d delegate) NodeMeta(limit int) []byte {
	m := d.g.says()
	raw := m.encode()
	if len(raw) > limit { // memberlist would panic; names are bounded so that it cannot be
		return nil
	}
	d.g.advertised.Store(&m)
	return raw
}

func (d delegate) NotifyMsg(message []byte) {
	hints, err := decodeHints(message)
	if err != nil {
		d.g.log.WithError(err).Debug("a message was ignored")
		return
	}
	d.g.receive(hints)
}

func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	d.g.queueMu.Lock()
	defer d.g.queueMu.Unlock()
	if d.g.queue.empty() {
		return nil
	}
	if message := d.g.queue.take(limit-overhead, d.g.sends()); message != nil {
		return [][]byte{message}
	}
	return nil
}

// sends is how often a hint is passed on, by the number of nodes; that of memberlist would need its lock.
func (g *gossip) sends() int { return hintSends(1 + g.contacts.count()) }

func (d delegate) LocalState(bool) []byte { return nil }

func (d delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses strangers before memberlist knows them.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.g.cfg.id {
		return nil
	}
	m, err := decodeMeta(n.Meta)
	if err != nil {
		d.g.contacts.misunderstood(nodeAddr(n).Addr(), err)
		return err
	}
	if why := d.g.contacts.refuse(n.Name, m.cluster, nodeAddr(n).Addr()); why != "" {
		return errors.New(why)
	}
	return nil
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	if m, err := decodeMeta(n.Meta); err == nil {
		d.g.contacts.joined(n.Name, m, nodeAddr(n))
		poke(d.g.died) // one that was suspended is probed
		poke(d.g.work)
		poke(d.g.news)
	}
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	if m, err := decodeMeta(n.Meta); err == nil {
		if d.g.contacts.updated(n.Name, m, nodeAddr(n)) {
			poke(d.g.news)
		}
		poke(d.g.work)
	}
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.contacts.left(n.Name)
	poke(d.g.died)
	poke(d.g.news)
}

func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	port := d.g.cfg.port // the same on every node, mostly
	if m, err := decodeMeta(other.Meta); err == nil {
		port = m.port
	}
	d.g.contacts.conflict(existing.Name, netip.AddrPortFrom(nodeAddr(other).Addr(), port), time.Now())
	poke(d.g.twins)
}

func nodeAddr(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// advertise tells memberlist when this node has something new to say about itself.
func (g *gossip) advertise() {
	list := g.list.Load()
	if list == nil || g.says() == *g.advertised.Load() {
		return
	}
	// It waits until the news is on its way to somebody; a second is twenty chances.
	if err := list.UpdateNode(time.Second); err != nil {
		g.log.WithError(err).Debug("gossip: update")
	}
}

// quiet takes what memberlist logs. It is for those who look for it: what an operator must know is said by us.
type quiet struct{ log *logrus.Entry }

func (q quiet) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	if bytes.HasPrefix(text, []byte("[ERR]")) || bytes.HasPrefix(text, []byte("[WARN]")) {
		q.log.Debug(string(text))
	} else {
		q.log.Trace(string(text))
	}
	return len(line), nil
}

var errClosed = fmt.Errorf("gossip: %w", net.ErrClosed)
