package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

const (
	// wantVersion is the version of the facts below "want/".
	wantVersion = 1
	// lookEvery is how often a waiting request looks by itself.
	lookEvery = 100 * time.Millisecond
	// withdrawTime bounds the withdrawal of a question that had no answer, after answerTime is over.
	withdrawTime = 2 * time.Second
)

// wantFact asks the owner of a block for one address of it. The owner writes a block of that one address and removes the
// want, or answers why not.
type wantFact struct {
	Version int    `json:"v"`
	Node    string `json:"node"`
	Denied  string `json:"denied,omitempty"`
}

func wantKey(shared string, addr netip.Addr) string { return "want/" + shared + "/" + addr.String() }

func wantOp(key string, w wantFact) (cluster.Op, error) {
	w.Version = wantVersion
	value, err := json.Marshal(w)
	return cluster.Op{Key: key, Value: value}, err
}

func decodeWant(f cluster.Fact) (wantFact, error) {
	var w wantFact
	if err := json.Unmarshal(f.Value, &w); err != nil {
		return wantFact{}, fmt.Errorf("%s: %w", f.Key, err)
	}
	if w.Version != wantVersion {
		return wantFact{}, fmt.Errorf("%s: format version %d, this node knows %d", f.Key, w.Version, wantVersion)
	}
	return w, nil
}

// carve asks the host that has an address in its block for it, and returns when it is ours.
func (i *IPAM) carve(ctx context.Context, p poolRecord, addr netip.Addr) error {
	c := i.config.Cluster
	key := wantKey(p.Shared, addr)
	defer i.wait(key)()
	wake, stop := c.Watch()
	defer stop()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	view, err := askFor(ctx, c, p.Shared, key)
	for err == nil {
		var done bool
		if done, err = answered(view, c.ID(), p.Shared, key, addr); done {
			break
		}
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			owner, _ := view.Owner(p.Shared, addr)
			err = fmt.Errorf("it is in block %s of host %s, which did not answer within %s", owner.Prefix, view.NodeName(owner.Node), answerTime)
		}
		view = c.View()
	}
	if err == nil {
		return nil
	}
	clear, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
	defer cancel()
	i.withdraw(clear, key)
	return err
}

// wait says that a request waits for the answer to a want, until the function it returns is called.
func (i *IPAM) wait(key string) func() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asking[key]++
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.asking[key]--; i.asking[key] == 0 {
			delete(i.asking, key)
		}
	}
}

// askFor writes the want, anew if an old one of ours is there.
func askFor(ctx context.Context, c Facts, shared, key string) (cluster.View, error) {
	op, err := wantOp(key, wantFact{Node: c.ID()})
	if err != nil {
		return cluster.View{}, err
	}
	view := c.View()
	for {
		if f, ok := view.Get(key); ok {
			if w, err := decodeWant(f); err != nil || w.Node != c.ID() {
				return view, errors.Join(fmt.Errorf("host %s is asking for it at the moment", view.NodeName(w.Node)), err)
			}
		}
		next, err := c.Propose(ctx, cluster.Txn{
			If:   []cluster.Cond{{Key: key, Index: view.Index()}, {Key: "attend/" + shared + "/" + c.ID(), Index: view.Index()}},
			Then: []cluster.Op{op},
		})
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, cluster.ErrConflict) || ctx.Err() != nil {
			return view, fmt.Errorf("ask the host that has it in its block: %w", err)
		}
		view = next
	}
}

// answered says whether a want has got its answer: a yes is no error.
func answered(v cluster.View, self, shared, key string, addr netip.Addr) (bool, error) {
	owner, found := v.Owner(shared, addr)
	if !found || owner.Node == self {
		return true, nil // ours, or free to be claimed
	}
	f, ok := v.Get(key)
	if !ok {
		return true, fmt.Errorf("it was given to host %s", v.NodeName(owner.Node))
	}
	w, err := decodeWant(f)
	switch {
	case err != nil:
		return true, err
	case w.Node != self:
		return true, fmt.Errorf("host %s is asking for it at the moment", v.NodeName(w.Node))
	case w.Denied != "":
		return true, fmt.Errorf("host %s has it in its block %s: %s", v.NodeName(owner.Node), owner.Prefix, w.Denied)
	}
	return false, nil
}

// withdraw removes a want of ours. If that fails it stays until Run removes it.
func (i *IPAM) withdraw(ctx context.Context, key string) {
	c := i.config.Cluster
	f, ok := c.View().Get(key)
	if !ok {
		return
	}
	if w, err := decodeWant(f); err != nil || w.Node != c.ID() {
		return
	}
	_, err := c.Propose(ctx, cluster.Txn{If: []cluster.Cond{{Key: key, Index: f.Index}}, Then: []cluster.Op{{Key: key}}})
	if err != nil && !errors.Is(err, cluster.ErrConflict) {
		i.config.Logger.WithError(err).WithField("want", key).Debug("a question to another host is not withdrawn yet")
	}
}

// answerWants answers what other hosts ask of our blocks, and takes back what nobody here waits for any more.
func (i *IPAM) answerWants(ctx context.Context) error {
	for shared, id := range i.shared() {
		view := i.config.Cluster.View()
		for f := range view.Prefix("want/" + shared + "/") {
			w, err := decodeWant(f)
			if err != nil {
				continue // a newer version's: it waits in vain, and is told so
			}
			addr, err := netip.ParseAddr(f.Key[strings.LastIndexByte(f.Key, '/')+1:])
			if err != nil {
				continue
			}
			if w.Node == i.config.Cluster.ID() {
				i.mu.Lock()
				waiting := i.asking[f.Key] > 0
				i.mu.Unlock()
				if !waiting {
					i.withdraw(ctx, f.Key)
				}
				continue
			}
			if w.Denied != "" {
				continue
			}
			txn, err := i.answer(id, addr, w, f)
			if err != nil {
				return err
			}
			if len(txn.Then) == 0 {
				continue
			}
			if _, err := i.config.Cluster.Propose(ctx, txn); err != nil && !errors.Is(err, cluster.ErrConflict) {
				return fmt.Errorf("answer who asks for %s: %w", addr, err)
			}
		}
	}
	return nil
}

// shared are the networks of the cluster on this host, with the pools that hold IPv4 and IPv6 of each.
func (i *IPAM) shared() func(yield func(string, []string) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	networks := map[string][]string{}
	for _, p := range i.ordered() {
		if p.Shared != "" && p.Since != unsettled {
			networks[p.Shared] = append(networks[p.Shared], p.ID)
		}
	}
	return func(yield func(string, []string) bool) {
		for _, shared := range slices.Sorted(maps.Keys(networks)) {
			if !yield(shared, networks[shared]) {
				return
			}
		}
	}
}

// answer decides about one want. A yes is on disk as a no to everybody here before it is said: whatever becomes of the
// proposal, the address is not handed out by us meanwhile.
func (i *IPAM) answer(ids []string, addr netip.Addr, w wantFact, f cluster.Fact) (cluster.Txn, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var p *pool
	for _, id := range ids {
		if q := i.pools[id]; q != nil && q.Prefix.Contains(addr) {
			p = q
		}
	}
	if p == nil {
		return cluster.Txn{}, nil
	}
	i.refresh(p)
	owner, found := p.owner(addr)
	if !found || !p.ours(owner) || p.stale || p.viewed < f.Index {
		return cluster.Txn{}, nil
	}
	asked := cluster.Cond{Key: f.Key, Index: f.Index}
	if reason := p.denial(addr, owner); reason != "" {
		op, err := wantOp(f.Key, wantFact{Node: w.Node, Denied: reason})
		return cluster.Txn{If: []cluster.Cond{asked}, Then: []cluster.Op{op}}, err
	}
	if err := i.exclude(p, carveRecord{recordVersion, p.ID, addr, f.Index, p.viewed}); err != nil {
		return cluster.Txn{}, err
	}
	given, err := cluster.BlockOp(p.Shared, netip.PrefixFrom(addr, addr.BitLen()), w.Node)
	return cluster.Txn{
		If:   []cluster.Cond{asked, {Key: cluster.BlockKey(p.Shared, owner.Prefix), Index: owner.Index}},
		Then: []cluster.Op{given, {Key: f.Key}},
	}, err
}

// denial says why another host cannot have an address of ours.
func (p *pool) denial(addr netip.Addr, owner cluster.Block) string {
	switch l := p.space.leases[addr]; {
	case l != nil:
		return "it is in use"
	case !p.subnet().Usable(addr):
		return "it is not for endpoints"
	case p.frozen(owner):
		return "the block is frozen, since what was handed out of it was lost"
	}
	return ""
}

// exclude notes that an address is given to another host. i.mu is held.
func (i *IPAM) exclude(p *pool, rec carveRecord) error {
	if have, ok := p.excluded[rec.Addr]; ok && have.Want == rec.Want {
		return nil
	}
	write, err := putCarve(rec)
	if err != nil {
		return err
	}
	if err := i.config.Store.Apply(write); err != nil {
		return err
	}
	p.excluded[rec.Addr] = rec
	p.known = false
	i.refresh(p)
	return nil
}

// takeBack ends exclusions of addresses that are ours after all: the view is as new as the question, the address is ours in
// it, and the question is gone, so that no answer to it can come any more.
func (i *IPAM) takeBack() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.ordered() {
		if len(p.excluded) == 0 || i.config.Cluster == nil {
			continue
		}
		i.refresh(p)
		view := i.config.Cluster.View()
		for addr, rec := range maps.Clone(p.excluded) {
			owner, found := view.Owner(p.Shared, addr)
			f, asked := view.Get(wantKey(p.Shared, addr))
			open := asked && f.Index == rec.Want
			if p.stale || view.Index() < rec.Seen || !found || !p.ours(owner) || open {
				continue
			}
			if err := i.config.Store.Apply(store.Write{Key: carveKey(p.ID, addr)}); err != nil {
				return err
			}
			delete(p.excluded, addr)
			p.known = false
		}
		i.refresh(p)
	}
	return nil
}
