package cluster

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
)

// labelBytes of a hash tell the packets of two clusters on one wire apart.
const labelBytes = 8

// makeGossip makes the part that carries membership and the fast facts.
func (c *Cluster) makeGossip() error {
	key, err := derive(c.cfg.Secret, labelGossipKey, 32)
	if err != nil {
		return err
	}
	label, err := derive(c.cfg.Secret, labelGossip, labelBytes)
	if err != nil {
		return err
	}
	c.gossip, err = newGossip(gossipConfig{
		id: c.id, name: c.cfg.Name, advertise: c.cfg.Advertise, gossipPort: c.cfg.GossipPort, port: c.cfg.RaftPort,
		key: key, label: hex.EncodeToString(label), dir: c.cfg.Dir,
		dial: func(ctx context.Context, to netip.AddrPort, alpn string) (net.Conn, string, error) {
			conn, id, err := c.transport.dial(ctx, to, alpn)
			if err != nil {
				return nil, "", err // not a nil *tls.Conn in an interface
			}
			return conn, id, nil
		},
		nodes: c.known, clusterID: c.cluster, onChange: c.membersChanged, alarms: c.alarms, logger: c.log,
	})
	return err
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

// Sync waits until every live node has said what it has in a network that this node attends.
func (c *Cluster) Sync(ctx context.Context, network string) error { return c.gossip.sync(ctx, network) }
