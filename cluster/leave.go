package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"
)

// Leave takes this node out of the cluster for ever: its facts and what it published go, and its identity is refused
// from then on. Run goes on and does nothing until Rejoin, or the next start, makes this host a new node. Leaving again is no
// error. One that the others do not listen to (forgotten, left behind, or one of two hosts with one identity) takes nothing
// out, for the identity is not its own any more: it gives it up here, and joins as a new node at once.
func (c *Cluster) Leave(ctx context.Context) error {
	if c.hasLeft() {
		return c.departed(ctx)
	}
	c.setLeaving(true)
	state, _ := c.stateNow()
	cast := c.cluster() != "" && (state == Refused || state == Quarantined)
	if !cast && c.cluster() != "" && c.hasOthers() {
		if err := c.takeOut(ctx); err != nil {
			c.setLeaving(false)
			return fmt.Errorf("leave: %w", err)
		}
	}
	c.leave()
	if err := c.departed(ctx); err != nil || !cast {
		return err
	}
	c.beginAgain()
	return nil
}

// Rejoin lets a host that has left join as a new node: Run returns ErrAgain.
func (c *Cluster) Rejoin(context.Context) error {
	if state, reason := c.stateNow(); state != Left {
		return fmt.Errorf("join: this node has not left: it is %s", strings.TrimSuffix(fmt.Sprintf("%s: %s", state, reason), ": "))
	}
	c.beginAgain()
	return nil
}

// hasOthers tells whether anybody stays behind.
func (c *Cluster) hasOthers() bool {
	for _, r := range c.View().registered() {
		if r.ID != c.id {
			return true
		}
	}
	return false
}

// takeOut hands the lead over, and lets the others decide that this node is out. It may not hear of it in the log.
func (c *Cluster) takeOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timing.propose)
	defer cancel()
	for {
		n := c.running()
		if n == nil {
			return c.explain(ctx, fmt.Errorf("%w", ErrNotMember))
		}
		if n.leads() {
			if err := c.handOver(ctx, n); err != nil {
				return err
			}
			continue
		}
		txn, err := outTxn(c.View(), c.id, fencedByLeave)
		if err != nil {
			return err
		}
		r, err := c.decide(ctx, txn)
		if _, fenced := c.View().Fenced(c.id); fenced || codeOf(err) == codeFenced || err == nil && !r.Failed {
			return nil
		}
		if err != nil {
			return c.explain(ctx, err)
		}
		if err := c.reach(ctx, r.Index); err != nil {
			return c.explain(ctx, err)
		}
	}
}

// handOver makes another node the leader, and a voter first if nobody else is.
func (c *Cluster) handOver(ctx context.Context, n *raftNode) error {
	wake, stop := c.own.watch()
	defer stop()
	for n.leads() || c.leader() == "" {
		err := c.secondVoter(ctx, n)
		if err == nil {
			err = await(ctx, n.LeadershipTransfer())
		}
		if !waitFor(ctx, wake, retryPause) {
			return fmt.Errorf("%w: no other node took the lead: %w", ErrNoQuorum, errors.Join(err, ctx.Err()))
		}
	}
	return nil
}

// secondVoter gives another node a vote if this one is alone with its own.
func (c *Cluster) secondVoter(ctx context.Context, n *raftNode) error {
	voters := 0
	var others []string
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			voters++
		} else {
			others = append(others, string(s.ID))
		}
	}
	if voters > 1 {
		return nil
	}
	is := c.ready(ctx, n, others)
	for _, s := range n.servers() {
		if is[string(s.ID)] {
			return await(ctx, n.AddVoter(s.ID, s.Address, 0, c.timing.propose))
		}
	}
	return errors.New("this node alone votes, and no other is there with all facts")
}

// leave ends taking part; the rest follows in live.
func (c *Cluster) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = true
	select {
	case <-c.gone:
	default:
		close(c.gone)
	}
}

func (c *Cluster) hasLeft() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

func (c *Cluster) isLeaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}

func (c *Cluster) setLeaving(is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaving = is
}

// departed waits until nothing of the cluster is left on this node.
func (c *Cluster) departed(ctx context.Context) error {
	wake, stop := c.own.watch()
	defer stop()
	for {
		if s, _ := c.stateNow(); s == Left {
			return nil
		}
		if !waitFor(ctx, wake, c.timing.tend) {
			return fmt.Errorf("leave: the cluster has let this node go, its state is still here: %w", ctx.Err())
		}
	}
}

// Forget takes a node that is gone for good out of the cluster. Its addresses are free for others, and it is refused
// should it come back.
func (c *Cluster) Forget(ctx context.Context, nameOrID string) error {
	view := c.View()
	for {
		node, err := c.find(view, nameOrID)
		if err != nil {
			return err
		}
		if c.answers(ctx, node) {
			return fmt.Errorf("node %s (%s) is alive: run `carrick leave` on it, or stop it first", node.Name, node.Addr)
		}
		txn, err := PlanForget(view, node.ID)
		if err != nil {
			return err
		}
		next, err := c.Propose(ctx, txn)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("forget %s: %w", node.Name, err)
		}
		view = next
	}
}

// find returns the node that the operator means.
func (c *Cluster) find(view View, nameOrID string) (registered, error) {
	var known []string
	for _, r := range view.registered() {
		if r.Name != nameOrID && r.ID != nameOrID {
			known = append(known, r.Name)
			continue
		}
		if r.ID == c.id {
			return registered{}, fmt.Errorf("node %s is this one: `carrick leave` takes it out of the cluster", r.Name)
		}
		return r, nil
	}
	return registered{}, fmt.Errorf("no node is called %q; there are %s", nameOrID, strings.Join(known, ", "))
}

// answers tells whether a node is alive: it answers now, or nothing is heard from its address although the gossip has it as
// alive. A host that refuses the connection runs no node, one where another node answers was installed anew.
func (c *Cluster) answers(ctx context.Context, r registered) bool {
	if to, ok := c.address(r.ID); ok {
		g, err := c.hello(ctx, to)
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return g.Node.ID == r.ID
		}
	}
	return slices.ContainsFunc(c.gossip.members(), func(m member) bool { return m.ID == r.ID && m.Alive })
}

// PlanForget takes a node out of the cluster for ever: all that belongs to it is free, and its identity is fenced. Networks
// that it was the last to have go with it. Nothing is to be done for one that is fenced already.
func PlanForget(v View, node string) (Txn, error) { return outTxn(v, node, fencedByForget) }

func outTxn(v View, id, how string) (Txn, error) {
	if _, fenced := v.Fenced(id); fenced {
		return Txn{}, nil
	}
	r, _ := v.registration(id)
	fence, err := json.Marshal(fencedFact{Version: nodeVersion, Name: r.Name, How: how})
	if err != nil {
		return Txn{}, fmt.Errorf("node %s: %w", r.Name, err)
	}
	txn := Txn{
		// It must not attend, claim or ask for something meanwhile; afterwards the fence sees to it.
		If: []Cond{
			{belowNode + id, v.Index()}, {belowFenced + id, v.Index()},
			{"attend", v.Index()}, {"block", v.Index()}, {"want", v.Index()},
		},
		Then: []Op{{Key: belowNode + id}, {Key: belowFenced + id, Value: fence}, {Key: belowInUse + id}},
	}
	for f := range v.Prefix("attend/") {
		network, node, _ := strings.Cut(strings.TrimPrefix(f.Key, "attend/"), "/")
		if node == id {
			leave := PlanLeave(v, network, id)
			txn.If, txn.Then = append(txn.If, leave.If...), append(txn.Then, leave.Then...)
		}
	}
	for f := range v.Prefix("block/") {
		if b, err := decodeBlock(f); err == nil && b.Node == id {
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	for f := range v.Prefix("want/") {
		if w, ok := decodeWant(f); ok && w.Node == id {
			txn.Then = append(txn.Then, Op{Key: f.Key})
		}
	}
	return txn, nil
}
