package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// helloTimeout bounds one greeting: longer than two lost packets (RFC 6298 section 2.1), shorter than patience.
const helloTimeout = 4 * time.Second

// greeting is what two nodes tell each other first.
type greeting struct {
	Cluster string     `json:"cluster,omitempty"` // empty: knows none
	Node    registered `json:"node"`
	// Generation is that of its log, and Recovered says how its facts came there.
	Generation string     `json:"generation,omitempty"`
	Recovered  []recovery `json:"recovered,omitempty"`
	Founder    bool       `json:"founder,omitempty"`  // its own address stands first in its JOIN, and it is in no cluster
	Fenced     string     `json:"fenced,omitempty"`   // how the node that asks was taken out of the cluster: fencedByLeave or other
	Recalled   []byte     `json:"recalled,omitempty"` // the mark of the node that asks, as far as is known
}

// reply is what became of one greeting.
type reply struct {
	target string // as in JOIN, or the address
	addr   netip.AddrPort
	err    error
	greeting
}

func (c *Cluster) greeting() greeting {
	return greeting{
		Cluster: c.cluster(), Node: c.registration(), Founder: c.founder.Load(),
		Generation: c.generationNow(), Recovered: c.View().recoveries(),
	}
}

// hello greets the node at an address.
func (c *Cluster) hello(ctx context.Context, to netip.AddrPort) (greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var g greeting
	id, err := c.call(ctx, to, opHello, c.greeting(), &g)
	if err != nil {
		return greeting{}, err
	}
	if g.Node.ID != id {
		return greeting{}, fmt.Errorf("%s: says that it is node %s and is %s", to, g.Node.ID, id)
	}
	c.compare(to.Addr(), g)
	c.recalled(id, g.Recalled)
	return g, nil
}

// greeted answers a greeting.
func (c *Cluster) greeted(conn *tls.Conn, peerID string, in greeting) greeting {
	out := c.greeting()
	out.Fenced, _ = c.View().Fenced(peerID)
	out.Recalled = c.gossip.recall.of(peerID)
	if in.Node.ID == peerID {
		c.compare(remoteAddr(conn), in)
	}
	return out
}

// compare raises the alarm about another cluster, and remembers where the node is while this one has no facts, or others
// than the node says: its address has changed, and without a leader that knows it cannot say so in the facts.
func (c *Cluster) compare(addr netip.Addr, g greeting) {
	own := c.cluster()
	if own != "" && g.Cluster != "" && own != g.Cluster {
		c.alarms.raise("cluster "+addr.String(), fmt.Sprintf(
			"%s (%s) is in another cluster, %s; this one is %s: clusters never merge", addr, g.Node.Name, g.Cluster, own))
		return
	}
	if own != "" && own == g.Cluster && g.Generation != c.generationNow() {
		c.meetGeneration(addr, g)
		return
	}
	if g.Node.ID == c.id || !g.Node.Addr.IsValid() || g.Node.RaftPort == 0 {
		return
	}
	view := c.View()
	have, registered := view.registration(g.Node.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if view.Index() > 0 && (!registered || have.at() == g.Node.at()) {
		delete(c.met, g.Node.ID)
	} else {
		c.met[g.Node.ID] = g
	}
}

// ask greets all that are listed in JOIN or were found out otherwise, at once, and returns the answers in a fixed order.
// This node itself is not among them.
func (c *Cluster) ask(ctx context.Context) []reply {
	var asked []reply
	for _, t := range c.targets {
		addr, err := t.resolve(ctx, c.cfg.Advertise)
		if addr != c.transport.local {
			asked = append(asked, reply{target: t.String(), addr: addr, err: err})
		}
	}
	for _, addr := range c.foundOut() {
		if !slices.ContainsFunc(asked, func(r reply) bool { return r.addr == addr }) {
			asked = append(asked, reply{target: addr.Addr().String(), addr: addr})
		}
	}
	c.greetAll(ctx, asked)
	return slices.DeleteFunc(asked, func(r reply) bool { return errors.Is(r.err, errSelf) })
}

// foundOut is where other nodes are that JOIN need not list: those that the gossip has as alive, and those that have said
// that they know a cluster, since another host's JOIN lists this one.
func (c *Cluster) foundOut() []netip.AddrPort {
	var all []netip.AddrPort
	for _, m := range c.gossip.members() {
		if m.Alive && m.Addr.IsValid() && m.RaftPort != 0 && m.ID != c.id {
			all = append(all, netip.AddrPortFrom(m.Addr, m.RaftPort))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.met {
		if g.Cluster != "" {
			all = append(all, g.Node.at())
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// greetAll fills in the answers.
func (c *Cluster) greetAll(ctx context.Context, asked []reply) {
	var wg sync.WaitGroup
	for i := range asked {
		if asked[i].err == nil {
			wg.Go(func() { asked[i].greeting, asked[i].err = c.hello(ctx, asked[i].addr) })
		}
	}
	wg.Wait()
}

// keepContact asks the others for as long as this node takes part: the listed ones whether they are in the same
// cluster, and when there is no leader, or somebody has a newer generation of the log, the registered ones whether this node
// is still wanted.
func (c *Cluster) keepContact(ctx context.Context, fenced func(how string)) error {
	wait := c.timing.contact / 8 // at first: hosts that start together are not there at the same moment
	for woken := false; ; {
		var asked []reply
		for _, t := range c.targets {
			if addr, err := t.resolve(ctx, c.cfg.Advertise); err == nil && !c.isRegistered(addr) {
				asked = append(asked, reply{target: t.String(), addr: addr})
			}
		}
		if c.leader() == "" || woken {
			for _, r := range c.known() {
				if !r.Forgotten && r.ID != c.id {
					asked = append(asked, reply{target: r.Name, addr: r.at()})
				}
			}
		}
		c.greetAll(ctx, asked)
		for _, r := range asked {
			if r.err == nil && r.Fenced != "" && r.Cluster == c.cluster() {
				fenced(r.Fenced)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.asks:
			woken = true
		case <-time.After(wait):
			woken, wait = false, min(2*wait, c.timing.contact)
		}
	}
}

func (c *Cluster) isRegistered(addr netip.AddrPort) bool {
	return addr == c.transport.local ||
		slices.ContainsFunc(c.View().registered(), func(r registered) bool { return r.at() == addr })
}

// names of the targets, for a sentence.
func names(replies []reply) string {
	var all []string
	for _, r := range replies {
		all = append(all, r.target)
	}
	return strings.Join(slices.Compact(all), ", ")
}
