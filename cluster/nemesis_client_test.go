//go:build nemesis

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// contendedNetwork is a network that clients make, join and leave.
type contendedNetwork struct {
	subnets []netip.Prefix // one for each node to propose
	blocks  int            // that there are
}

// contended by name: one whose blocks can be carved, one of single addresses that are soon all taken.
var contended = map[string]contendedNetwork{
	"red": {subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}, blocks: 16},
	"blue": {subnets: []netip.Prefix{
		netip.MustParsePrefix("10.2.0.0/29"), netip.MustParsePrefix("10.2.0.8/29"), netip.MustParsePrefix("10.2.0.16/29"),
	}, blocks: 6},
}

// client makes one request after the other at one host.
type client struct {
	round  *round
	number int
	host   *testNode
	random *rand.Rand
	count  int
}

// errAsked makes Decide confirm what was read: it is a refusal that rests on all of it.
var errAsked = errors.New("asked")

// run works until the round is over.
func (c *client) run(ctx context.Context) {
	names := []string{"red", "blue"}
	for ctx.Err() == nil {
		c.round.lock.RLock()
		node := c.host.c
		c.round.lock.RUnlock()
		c.one(ctx, node, names[c.random.IntN(2)])
		pause(ctx, time.Duration(c.random.IntN(20))*time.Millisecond)
	}
}

// one request of a kind that makes sense mostly.
func (c *client) one(ctx context.Context, node *Cluster, name string) {
	id := NetworkID(name, nil)
	v := node.View()
	if _, attends := v.Get(attendKey(id, node.ID())); !attends {
		if c.random.IntN(2) == 0 {
			c.reserve(ctx, node, name)
		}
		c.join(ctx, node, name)
		return
	}
	switch k := c.random.IntN(100); {
	case k < 20:
		c.read(ctx, node, name)
	case k < 45:
		c.claim(ctx, node, name)
	case k < 60:
		c.ask(ctx, node, name)
	case k < 85:
		c.answer(ctx, node, name)
	case k < 90:
		c.withdraw(ctx, node, name)
	case k < 97:
		c.leave(ctx, node, name)
	default:
		c.reserve(ctx, node, name)
	}
}

// do makes plans facts and puts what came out into the history. plan says what its transaction means.
func (c *client) do(ctx context.Context, node *Cluster, plan func(View) (act, Txn, error)) {
	limited, cancel := context.WithTimeout(ctx, time.Duration(100+c.random.IntN(900))*time.Millisecond)
	defer cancel()
	c.count++
	r := &marker{Cluster: node, bug: c.round.bug, mark: fmt.Sprintf("mark/%d-%d", c.number, c.count)}
	var last act
	var plannedOn View
	h := happened{client: c.number, call: c.round.history.now()}
	_, view, err := Decide(limited, r, "nemesis", func(v View) (struct{}, Txn, error) {
		var txn Txn
		var refusal error
		plannedOn = v
		last, txn, refusal = plan(v)
		r.tried = nil
		return struct{}{}, txn, refusal
	})
	h.returned, h.act, h.mark = c.round.history.now(), last, r.marked()
	h.by = node.ID()
	switch {
	case h.kind == "" || r.tried == nil: // there was nothing to do
	case h.kind == "read" || h.kind == "no block":
		if *r.tried == nil { // confirmed
			h.view = plannedOn
			c.round.history.add(h)
		}
	case err == nil:
		h.view = view
		c.round.history.add(h)
	case !errors.Is(err, ErrConflict):
		h.returned = math.MaxInt64
		c.round.history.add(h)
	}
}

// marker is a Cluster that leaves a mark with each transaction, by which one without an answer is known later.
type marker struct {
	*Cluster
	bug   *bug
	mark  string
	tries int
	tried *error // what became of the last one; nil: there was none for this plan
}

func (r *marker) marked() string { return fmt.Sprintf("%s-%d", r.mark, r.tries) }

// Propose is of proposer.
func (r *marker) Propose(ctx context.Context, txn Txn) (View, error) {
	if len(txn.Then) > 0 {
		r.tries++
		txn.Then = append(slices.Clone(txn.Then), Op{r.marked(), []byte("1")})
	}
	propose := r.Cluster.Propose
	if r.bug != nil && r.bug.propose != nil {
		propose = func(ctx context.Context, txn Txn) (View, error) { return r.bug.propose(ctx, r.Cluster, txn) }
	}
	view, err := propose(ctx, txn)
	r.tried = &err
	return view, err
}

func (c *client) read(ctx context.Context, node *Cluster, name string) {
	id := NetworkID(name, nil)
	c.do(ctx, node, func(v View) (act, Txn, error) {
		txn := Txn{}
		for _, key := range []string{"network/" + id, "attend/" + id, "block/" + id, "want/" + id, "reserve/" + name} {
			txn.If = append(txn.If, Cond{key, v.Index()})
		}
		return act{kind: "read", network: name, read: contentOf(v, name)}, txn, errAsked
	})
}

func (c *client) reserve(ctx context.Context, node *Cluster, name string) {
	all := contended[name].subnets
	candidate := all[c.random.IntN(len(all))]
	c.do(ctx, node, func(v View) (act, Txn, error) {
		_, txn, err := PlanReserve(v, name, candidate)
		return act{kind: "reserve", network: name, value: candidate.String()}, txn, err
	})
}

func (c *client) join(ctx context.Context, node *Cluster, name string) {
	all := contended[name].subnets
	c.do(ctx, node, func(v View) (act, Txn, error) {
		want := Network{Name: name, Mode: "overlay", Subnets: []Subnet{{Prefix: all[0]}}}
		if have, ok := v.Network(NetworkID(name, nil)); ok {
			want.Subnets[0].Prefix = have.Subnets[0].Prefix
		} else if p, _, err := PlanReserve(v, name, all[0]); err == nil {
			want.Subnets[0].Prefix = p
		}
		_, made := v.Network(NetworkID(name, nil))
		a := act{kind: "join", network: name}
		if !made {
			a.kind, a.value = "create", want.Subnets[0].Prefix.String()
		}
		_, txn, err := PlanJoin(v, want, Defaults{MTU: 1450}, node.ID())
		return a, txn, err
	})
}

func (c *client) leave(ctx context.Context, node *Cluster, name string) {
	plan := PlanLeave
	if c.round.bug != nil && c.round.bug.leave != nil {
		plan = c.round.bug.leave
	}
	c.do(ctx, node, func(v View) (act, Txn, error) {
		return act{kind: "leave", network: name}, plan(v, NetworkID(name, nil), node.ID()), nil
	})
}

// subnetOf the network in a view.
func subnetOf(v View, name string) (Subnet, bool) {
	n, ok := v.Network(NetworkID(name, nil))
	if !ok {
		return Subnet{}, false
	}
	return n.Subnets[0], true
}

// some address of the first sixteen of a subnet.
func (c *client) some(s Subnet) netip.Addr {
	b := s.Prefix.Addr().As4()
	b[3] += byte(1 + c.random.IntN(min(14, 1<<(32-s.Prefix.Bits())-2)))
	return netip.AddrFrom4(b)
}

func (c *client) claim(ctx context.Context, node *Cluster, name string) {
	pick := c.random.IntN(3)
	c.do(ctx, node, func(v View) (act, Txn, error) {
		s, ok := subnetOf(v, name)
		if !ok {
			return act{}, Txn{}, errAsked
		}
		var b Block
		var txn Txn
		var err error
		if pick == 0 {
			b, txn, err = PlanClaimOf(v, NetworkID(name, nil), s, c.some(s), node.ID())
		} else {
			b, txn, err = PlanClaim(v, NetworkID(name, nil), s, node.ID())
		}
		_, attends := v.Get(attendKey(NetworkID(name, nil), node.ID()))
		switch {
		case err != nil && attends && pick != 0:
			return act{kind: "no block", network: name}, txn, err
		case err != nil:
			return act{}, txn, err
		}
		return act{kind: "claim", network: name, key: b.Prefix.String()}, txn, nil
	})
}

func (c *client) ask(ctx context.Context, node *Cluster, name string) {
	c.do(ctx, node, func(v View) (act, Txn, error) {
		s, ok := subnetOf(v, name)
		if !ok {
			return act{}, Txn{}, errAsked
		}
		addr := c.some(s)
		if owner, ok := v.Owner(NetworkID(name, nil), addr); !ok || owner.Node == node.ID() {
			return act{}, Txn{}, errAsked
		}
		txn, err := PlanAsk(v, NetworkID(name, nil), addr, node.ID())
		return act{kind: "ask", network: name, key: addr.String()}, txn, err
	})
}

// answer says yes or no to one who asks this node.
func (c *client) answer(ctx context.Context, node *Cluster, name string) {
	id := NetworkID(name, nil)
	for _, w := range node.View().Wants(id) {
		if owner, _ := node.View().Owner(id, w.Addr); owner.Node != node.ID() || w.Denied != "" {
			continue
		}
		yes := c.random.IntN(3) > 0
		c.do(ctx, node, func(v View) (act, Txn, error) {
			a := act{kind: "give", network: name, key: w.Addr.String(), node: w.Node}
			plan := PlanGive
			if !yes {
				a.kind = "deny"
				plan = func(v View, network string, w Want, owner string) (Txn, error) {
					return PlanDeny(v, network, w, owner, "in use")
				}
			}
			txn, err := plan(v, id, w, node.ID())
			return a, txn, err
		})
		return
	}
}

func (c *client) withdraw(ctx context.Context, node *Cluster, name string) {
	id := NetworkID(name, nil)
	for _, w := range node.View().Wants(id) {
		if w.Node == node.ID() {
			c.do(ctx, node, func(v View) (act, Txn, error) {
				return act{kind: "withdraw", network: name, key: w.Addr.String()}, PlanWithdraw(v, id, w.Addr, node.ID()), nil
			})
			return
		}
	}
}
