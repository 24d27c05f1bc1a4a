package cluster

import (
	"context"
	"fmt"
)

// Undisputed says why this host must not give addresses of the cluster's networks to anybody, whatever it owns: another host
// has its identity, or it is not a node of the cluster any more. nil: it may. After a start it waits until the others had
// their say, at most 4 s, unless there is nobody; or until ctx ends.
func (c *Cluster) Undisputed(ctx context.Context) error {
	if c.cluster() == "" {
		return nil
	}
	for _, known := range []chan struct{}{c.gossip.looked, c.compared} {
		select {
		case <-known:
		case <-ctx.Done():
			return fmt.Errorf("this host does not know yet whether another one has its identity, or a newer disk: %w", ctx.Err())
		}
	}
	if addr, is := c.gossip.contacts.rival(); is {
		return fmt.Errorf("%s has the identity of this host as well, so neither gives out addresses: run `carrick leave` on the one that is a copy", addr)
	}
	if c.wentBack() {
		return fmt.Errorf("%w: the disk of this host went back in time, and the cluster has not taken it back yet: see `carrick status`", ErrNotMember)
	}
	if state, reason := c.stateNow(); state == Refused || state == Left {
		return fmt.Errorf("%w: %s: %s", ErrNotMember, state, reason)
	}
	return nil
}

// quarantined sets the state while another host has this node's identity, and tells whether that is so. Nobody can know
// which of the two is the copy, and a vote that is given twice elects two leaders: neither takes part.
func (c *Cluster) quarantined() bool {
	addr, is := c.gossip.contacts.rival()
	if is {
		c.setState(Quarantined, fmt.Sprintf("%s has the identity of this node as well: run `carrick leave` on the one that is a copy", addr))
	}
	return is
}

// belong takes part in the cluster, but for the times in which this node is quarantined.
func (c *Cluster) belong(ctx context.Context) error {
	wake, stop := c.own.watch()
	defer stop()
	for {
		for c.quarantined() {
			if closed(c.gone) || closed(c.anew) || !waitFor(ctx, wake, c.timing.tend) {
				return nil
			}
		}
		if err := c.takePart(ctx); err != nil {
			return err
		}
		if state, _ := c.stateNow(); state != Quarantined {
			return nil
		}
	}
}
