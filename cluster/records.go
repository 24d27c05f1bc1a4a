package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
)

// makeGossip makes the part that carries membership and the fast facts.
func (c *Cluster) makeGossip(creds *credentials) error {
	key, err := derive(c.cfg.Secret, labelGossipKey, 32)
	if err != nil {
		return err
	}
	c.gossip, err = newGossip(gossipConfig{
		id: c.id, name: c.cfg.Name, advertise: c.cfg.Advertise, gossipPort: c.cfg.GossipPort, port: c.cfg.RaftPort,
		key: key, creds: creds, refuse: c.refusePeer, dir: c.cfg.Dir,
		dial: func(ctx context.Context, to netip.AddrPort, alpn string) (net.Conn, string, error) {
			conn, id, err := c.transport.dial(ctx, to, alpn)
			if err != nil {
				return nil, "", err // not a nil *tls.Conn in an interface
			}
			return conn, id, nil
		},
		nodes: c.known, clusterID: c.gossipCluster, strayed: c.strayed, mark: c.mark, recalled: c.recalled, disputed: c.own.wake, onChange: c.membersChanged, alarms: c.alarms, logger: c.log,
		probe: c.cfg.probe,
	})
	return err
}

// gossipCluster tells clusters apart, and generations of one: none believes what is said in another.
func (c *Cluster) gossipCluster() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == "" || c.clusterID == "" {
		return c.clusterID
	}
	return c.clusterID + "/" + c.generation
}

// strayed: the gossip has met another generation of this cluster. If that is not an older one, its nodes are asked what
// happened.
func (c *Cluster) strayed(cluster string) bool {
	id, generation, _ := strings.Cut(cluster, "/")
	if id != c.cluster() {
		return false
	}
	if generationNumber(generation) >= generationNumber(c.generationNow()) {
		poke(c.asks)
	}
	return true
}

// membersChanged: other nodes, or what they have said, are not what they were. What follows the facts alone is not woken:
// records come by the thousand.
func (c *Cluster) membersChanged() { c.all.wake() }

// Attend says whether this node takes part in a network: whether it wants to hear of it, and have its broadcasts.
func (c *Cluster) Attend(network string, on bool) {
	if err := c.gossip.attend(network, on); err != nil {
		c.log.WithError(err).WithField("shared", network).Error("cluster: a network is not known to the others")
	}
}

// Publish tells the others a record of this node's in a network, or withdraws it when value is nil. It waits for nobody.
func (c *Cluster) Publish(network, key string, value []byte) {
	err := c.gossip.publish(network, key, value)
	if value == nil && errors.Is(err, errNotAttended) {
		return // withdrawn with all the rest
	}
	if err != nil {
		c.log.WithError(err).WithField("shared", network).Error("cluster: a record is not known to the others")
	}
}

// Remote returns what the other nodes have published in a network: a row for each that takes part and is not suspended.
// The records must not be changed.
func (c *Cluster) Remote(network string) []Row { return c.gossip.remote(network) }

// Revision is another number whenever Remote, for this network, or Nodes may return something else than before, but for what the
// facts say.
func (c *Cluster) Revision(network string) uint64 { return c.gossip.revision(network) }

// Sync waits until every live node has said what it has in a network that this node attends.
func (c *Cluster) Sync(ctx context.Context, network string) error { return c.gossip.sync(ctx, network) }
