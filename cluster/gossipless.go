package cluster

import (
	"context"
	"crypto/tls"
)

// gossipless knows nobody.
type gossipless struct{}

func (gossipless) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (gossipless) members() []member { return nil }

func (gossipless) servePull(*tls.Conn, string) {}

func (c *Cluster) makeGossip() error {
	c.gossip = gossipless{}
	return nil
}
