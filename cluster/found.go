package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// founding is what a node without a cluster has found out about the others so far.
type founding struct {
	alone  time.Time            // since when no question was open; zero: one is
	denied map[string]time.Time // since when a target has denied knowing a cluster, without a break
}

// enter returns when this node is in a cluster, joined or founded, or ctx has ended.
func (c *Cluster) enter(ctx context.Context) {
	var f founding
	for ctx.Err() == nil && !c.hasLeft() {
		replies := c.ask(ctx)
		if ctx.Err() != nil {
			break
		}
		c.founder.Store(c.standsFirst(ctx))
		members := slices.DeleteFunc(slices.Clone(replies), func(r reply) bool { return r.err != nil || r.Cluster == "" })
		switch {
		case len(members) > 0:
			f = founding{}
			if c.join(ctx, members) {
				return
			}
		case c.founder.Load():
			if wait := f.wait(replies, time.Now(), c.timing.found); wait != "" {
				c.setState(Founding, wait)
			} else if err := c.found(); err != nil {
				c.setState(Founding, err.Error())
			} else {
				return
			}
		default:
			f = founding{}
			c.setState(Joining, c.whyJoining(replies))
		}
		pause(ctx, c.timing.poll)
	}
}

// standsFirst tells whether the first of JOIN is this node.
func (c *Cluster) standsFirst(ctx context.Context) bool {
	if len(c.targets) == 0 {
		return false
	}
	addr, err := c.targets[0].resolve(ctx, c.cfg.Advertise)
	return err == nil && addr == c.transport.local
}

func (c *Cluster) whyJoining(replies []reply) string {
	switch silent := unanswered(replies); {
	case len(c.targets) == 0 && len(replies) == 0:
		return "waiting to be found: JOIN is empty"
	case len(silent) > 0:
		return fmt.Sprintf("waiting for %s: %v", names(silent), silent[0].err)
	}
	return fmt.Sprintf("waiting for a cluster: %s know none; %s may found one", names(replies), c.firstTarget())
}

func (c *Cluster) firstTarget() string {
	if len(c.targets) == 0 {
		return "only a host whose own address stands first in its JOIN"
	}
	return c.targets[0].String()
}

func unanswered(replies []reply) []reply {
	return slices.DeleteFunc(slices.Clone(replies), func(r reply) bool { return r.err == nil })
}

// wait says what stands against founding a cluster now, or nothing.
func (f *founding) wait(replies []reply, now time.Time, limit time.Duration) string {
	if f.denied == nil {
		f.denied, f.alone = map[string]time.Time{}, now
	}
	since := f.alone
	var rivals []reply
	for _, r := range replies {
		key := r.addr.String()
		if !r.addr.IsValid() {
			key = r.target
		}
		if r.err != nil || r.Founder {
			delete(f.denied, key)
		} else if _, ok := f.denied[key]; !ok {
			f.denied[key] = now
		}
		if r.Founder && r.err == nil {
			rivals = append(rivals, r)
		}
		if t := f.denied[key]; t.After(since) {
			since = t
		}
	}
	silent := unanswered(replies)
	switch {
	case len(silent) > 0:
		return fmt.Sprintf("waiting for %s: %v", names(silent), silent[0].err)
	case len(rivals) > 0:
		return fmt.Sprintf("%s would found one as well: JOIN must be the same line on every host", names(rivals))
	case now.Sub(since) < limit:
		return fmt.Sprintf("nobody knows a cluster; founding one in %v", (limit - now.Sub(since)).Round(time.Second))
	}
	return ""
}

// found makes a cluster of this node alone. Raft's store says which cluster it is in last: until then it is wiped at the
// next start, and nobody has heard of it.
func (c *Cluster) found() error {
	random := make([]byte, 8) // 2^64 ids: two clusters of one operator do not meet
	rand.Read(random)         // never fails (crypto/rand since Go 1.24)
	if err := c.unfound(); err != nil {
		return err
	}
	self := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(c.id), Address: raftAddr(c.id, c.transport.local)}
	err := raft.BootstrapCluster(c.raftConfig(), c.store, c.store, c.snapshots, nil, raft.Configuration{Servers: []raft.Server{self}})
	if err != nil {
		return fmt.Errorf("found a cluster: %w", err)
	}
	return c.enterCluster(hex.EncodeToString(random), "")
}

// unfound removes what an attempt to found has left that was cut short, by a disk that is full for instance.
func (c *Cluster) unfound() error {
	first, err := c.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := c.store.LastIndex()
	if err != nil {
		return err
	}
	return errors.Join(c.store.DeleteRange(first, last), c.wipe(prefixRaft))
}

// enterCluster writes down which cluster this node is in, before it takes part.
func (c *Cluster) enterCluster(id, generation string) error {
	writes := []Write{{Key: keyCluster, Value: []byte(id)}}
	if generation != "" {
		writes = append(writes, Write{Key: keyGeneration, Value: []byte(generation)})
	}
	if err := c.cfg.Log.Apply(writes...); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	c.mu.Lock()
	c.clusterID, c.generation = id, generation
	c.mu.Unlock()
	c.transport.setGeneration(generation)
	c.founder.Store(false)
	c.log.WithField("cluster", id).Info("cluster: this node is in")
	c.all.wake()
	return nil
}
