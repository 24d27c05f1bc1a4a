package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
)

// errOver ends takePart without ending Run.
var errOver = errors.New("takes no part any more")

// takePart is a node in its cluster. It returns when ctx ends, when the node has left, or when it is refused.
func (c *Cluster) takePart(ctx context.Context) error {
	c.broken = make(chan struct{})
	n, err := c.startRaft()
	if err != nil {
		return err
	}
	c.setNode(n)
	c.judge()
	g, inner := errgroup.WithContext(ctx)
	fenced := make(chan string, 1)
	var fencedHow string
	g.Go(func() error { return c.observe(inner, n) })
	g.Go(func() error { return c.tend(inner, n) })
	g.Go(func() error { return c.keepEntry(inner, n) })
	g.Go(func() error {
		return c.keepContact(inner, func(how string) {
			select {
			case fenced <- how:
			default:
			}
		})
	})
	g.Go(func() error {
		select {
		case fencedHow = <-fenced:
			return errOver
		case <-c.gone:
			return errOver
		case <-c.anew:
			return errOver
		case <-inner.Done():
			return nil
		}
	})
	err = g.Wait()
	if fencedHow != "" {
		c.setFenced(fencedHow) // after the last who says that it is a member
	}
	n.silence()
	close(c.broken)
	stopped := n.stop()
	c.setNode(nil)
	if errors.Is(err, errOver) {
		err = nil
	}
	return errors.Join(err, stopped)
}

func (c *Cluster) setNode(n *raftNode) {
	c.mu.Lock()
	c.node = n
	c.mu.Unlock()
	c.own.wake()
}

// observe wakes whoever waits for a leader.
func (c *Cluster) observe(ctx context.Context, n *raftNode) error {
	changes := make(chan raft.Observation, 16)
	observer := raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		_, state := o.Data.(raft.RaftState)
		return leader || state
	})
	n.RegisterObserver(observer)
	defer n.DeregisterObserver(observer)
	for {
		select {
		case <-changes:
			c.own.wake()
			c.all.wake()
		case <-ctx.Done():
			return nil
		}
	}
}

// tend follows the facts: whether this node is a member, and, when it leads, who is a server of raft and who votes.
func (c *Cluster) tend(ctx context.Context, n *raftNode) error {
	wake, stop := c.own.watch()
	defer stop()
	var term uint64 // in which this node leads and has seen all that was decided before
	for {
		if c.judge() {
			return errOver
		}
		for n.leads() && c.lead(ctx, n, &term) {
		}
		if !waitFor(ctx, wake, c.timing.tend) {
			return nil
		}
	}
}

// judge sets the state by the facts, and tells whether this node has been taken out of the cluster.
func (c *Cluster) judge() bool {
	view := c.View()
	if how, fenced := view.Fenced(c.id); fenced {
		c.setFenced(how)
		return true
	}
	if c.overtaken() || c.quarantined() {
		return true
	}
	if _, ok := view.registration(c.id); ok {
		c.setState(Member, "")
	} else {
		c.setState(Joining, "copying the facts of the cluster")
	}
	return false
}

// setFenced is for a node that finds out that it is no longer wanted. One that left, and was cut short before it had
// cleaned up, does so now.
func (c *Cluster) setFenced(how string) {
	if how == fencedByLeave || c.isLeaving() {
		c.leave()
		return
	}
	c.setState(Refused, fmt.Sprintf(
		"this node was %s by the cluster, and its addresses may belong to others: run `carrick leave` here, then it joins as a new node", how))
}

// lead makes at most one change to the servers of raft, and tells whether there may be another.
func (c *Cluster) lead(ctx context.Context, n *raftNode, term *uint64) bool {
	if c.isLeaving() {
		return false
	}
	if now := n.CurrentTerm(); *term != now {
		// The view of a new leader may lack what was decided under the last one.
		if await(ctx, n.Barrier(c.timing.propose)) != nil {
			return false
		}
		*term = now
	}
	if c.fsm.halted() != "" {
		c.stepDown(ctx, n)
		return false
	}
	view := c.View()
	change, ok := nextChange(serving{
		self: c.id, servers: n.servers(), nodes: view.wanted(),
		fenced: func(id string) bool { _, is := view.Fenced(id); return is },
		gone:   c.gossip.contacts.goneFor(c.timing.gone, time.Now()),
		ready:  func(ids []string) map[string]bool { return c.ready(ctx, n, ids) },
	})
	if !ok {
		return false
	}
	if err := await(ctx, change.apply(n, c.timing.propose)); err != nil {
		c.log.WithError(err).WithField("node", view.nameOf(string(change.id))).Debugf("cluster: %s", change.what)
		return false
	}
	c.log.WithField("node", view.nameOf(string(change.id))).Infof("cluster: %s", change.what)
	c.all.wake()
	return true
}

// stepDown lets another voter lead, if there is one that can.
func (c *Cluster) stepDown(ctx context.Context, n *raftNode) {
	if err := await(ctx, n.LeadershipTransfer()); err != nil {
		c.log.WithError(err).Debug("cluster: hand over the lead")
	}
}

// ready tells which nodes have all that this node, the leader, knows to be decided.
func (c *Cluster) ready(ctx context.Context, n *raftNode, ids []string) map[string]bool {
	decided := n.CommitIndex()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // the next round asks again
	defer cancel()
	answers := make(chan string, len(ids))
	for _, id := range ids {
		go func() {
			var p progress
			if to, ok := c.address(id); ok {
				if who, err := c.call(ctx, to, opIndex, struct{}{}, &p); err == nil && who == id && p.Last >= decided && !p.WentBack {
					answers <- id
					return
				}
			}
			answers <- ""
		}()
	}
	is := map[string]bool{}
	for range ids {
		is[<-answers] = true
	}
	return is
}

// keepEntry writes what the cluster should know about this node, whenever that differs: the first facts of a cluster that
// it has founded, an address or a name that has changed.
func (c *Cluster) keepEntry(ctx context.Context, n *raftNode) error {
	wake, stop := c.own.watch()
	defer stop()
	for {
		var err error
		switch view := c.View(); {
		case view.Index() == 0 && n.leads():
			err = c.writeFirst(ctx)
		case view.Index() > 0 && !c.isLeaving() && c.Undisputed(ctx) == nil:
			err = c.register(ctx, c.registration())
		}
		switch code := codeOf(err); {
		case code == codeRefused:
			c.alarms.hold("entry", err.Error())
		case err != nil:
			c.log.WithError(err).Debug("cluster: entry of this node")
		default:
			c.alarms.clear("entry")
		}
		if !waitFor(ctx, wake, c.timing.tend) {
			return nil
		}
	}
}

// writeFirst writes the first facts. If they are there this node comes to see them.
func (c *Cluster) writeFirst(ctx context.Context) error {
	txn, err := registerTxn(View{}, c.registration())
	if err != nil {
		return err
	}
	txn.If = append(txn.If, Cond{Key: factCluster})
	txn.Then = append(txn.Then, Op{Key: factCluster, Value: []byte(c.cluster())})
	if _, err = c.Propose(ctx, txn); errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}
