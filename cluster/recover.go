package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Loss is what Recover would go on without.
type Loss struct {
	Voters []Node    `json:"voters"`      // that do not answer
	Others []Node    `json:"others"`      // that do not answer either
	Index  uint64    `json:"index"`       // of the newest entry of this node's copy
	At     time.Time `json:"at,omitzero"` // when it was made
}

// Loss says what Recover would do, or why it will not: the cluster has a quorum or can have one again, or another node has a
// newer copy.
func (c *Cluster) Loss(ctx context.Context) (Loss, error) {
	n := c.running()
	if state, reason := c.stateNow(); n == nil || state != Member {
		return Loss{}, fmt.Errorf("recover: %w: %s: %s", ErrNotMember, state, reason)
	}
	view := c.View()
	if leader := c.leader(); leader != "" {
		return Loss{}, fmt.Errorf("recover: the cluster has a quorum, and %s leads it: there is nothing to recover", view.nameOf(leader))
	}
	term, last, at, err := lastEntry(c.store, c.snapshots)
	if err != nil {
		return Loss{}, fmt.Errorf("recover: %w", err)
	}
	answers := c.survey(ctx)
	loss := Loss{Voters: []Node{}, Others: []Node{}, Index: last, At: at}
	voters := map[string]bool{}
	for _, s := range n.servers() {
		voters[string(s.ID)] = s.Suffrage == raft.Voter
	}
	var there []string // voters that answer
	silent := 0        // those that answer and do not vote
	for _, node := range c.Nodes() {
		a, answered := answers[node.ID]
		switch {
		case node.Lost:
		case answered && a.Leader != "":
			return Loss{}, fmt.Errorf("recover: the cluster has a quorum: %s (%s) follows %s", node.Name, node.Addr, a.Leader)
		case answered && (a.Term > term || a.Term == term && a.Last > last):
			return Loss{}, fmt.Errorf("recover: %s (%s) has a newer copy (entry %d, here %d): run `carrick recover` there", node.Name, node.Addr, a.Last, last)
		case voters[node.ID] && a.WentBack:
			silent++
		case voters[node.ID] && (answered || node.ID == c.id):
			there = append(there, node.Name)
		case voters[node.ID]:
			loss.Voters = append(loss.Voters, node)
		case !answered && node.ID != c.id:
			loss.Others = append(loss.Others, node)
		}
	}
	if all := len(there) + len(loss.Voters) + silent; len(there) > all/2 {
		return Loss{}, fmt.Errorf("recover: %d of %d voters answer (%s): they are enough for a quorum, wait for them to agree",
			len(there), all, strings.Join(there, ", "))
	}
	return loss, nil
}

// Recover makes this node the only voter of the cluster, which goes on with its copy of the facts and without the nodes that
// do not answer. Run returns ErrAgain then, and the rest follows at the next start.
func (c *Cluster) Recover(ctx context.Context) error {
	loss, err := c.Loss(ctx)
	if err != nil {
		return err
	}
	random := make([]byte, 4) // two recoveries from one state differ
	rand.Read(random)         // never fails (crypto/rand since Go 1.24)
	parent := c.generationNow()
	r := recovery{
		Version: recoveryVersion, ID: fmt.Sprintf("%d-%s", generationNumber(parent)+1, hex.EncodeToString(random)),
		Parent: parent, By: c.cfg.Name, At: time.Now().UTC().Truncate(time.Second), Lost: map[string]string{},
	}
	for _, node := range slices.Concat(loss.Voters, loss.Others) {
		r.Lost[node.ID] = node.Name
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := c.cfg.Log.Apply(Write{Key: keyRecover, Value: raw}); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	c.beginAgain()
	return nil
}

// survey asks all registered nodes how far they are. One that refuses the question answers as well; one at whose address
// another node lives does not.
func (c *Cluster) survey(ctx context.Context) map[string]progress {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[string]progress{}
	generation := c.generationNow()
	for _, r := range c.View().wanted() {
		to, ok := c.address(r.ID)
		if !ok || r.ID == c.id {
			continue
		}
		wg.Go(func() {
			var p progress
			who, err := c.call(ctx, to, opIndex, struct{}{}, &p)
			if who != r.ID || err != nil && codeOf(err) == "" || err == nil && p.Generation != generation {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[r.ID] = p
		})
	}
	wg.Wait()
	return answers
}

// wanted are the registered nodes but for those that were left behind.
func (v View) wanted() []registered {
	all := v.registered()
	if lost := v.leftBehindAll(); len(lost) > 0 {
		all = slices.DeleteFunc(all, func(r registered) bool { return slices.Contains(lost, r.ID) })
	}
	return all
}

func (c *Cluster) generationNow() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}

// verdict is what this node has heard about the end of its generation.
type verdict struct {
	follow string // the generation to take over; "": none
	refuse string // why this node cannot
}

// meetGeneration: another node of this cluster has a copy of another generation of the log. Whoever has the older one
// follows, if the newer one has all that it has, and if it was not left behind.
func (c *Cluster) meetGeneration(addr netip.Addr, g greeting) {
	own := c.generationNow()
	if generationNumber(g.Generation) < generationNumber(own) {
		if r, lost := c.View().leftBehind(g.Node.ID); lost {
			c.alarms.raise("lost "+g.Node.ID, fmt.Sprintf(
				"%s (%s) is back, and the cluster was recovered without it on %s: run `carrick leave` there, then `carrick forget %s` here",
				g.Node.Name, addr, r.By, g.Node.Name))
		}
		return
	}
	if len(g.Recovered) == 0 {
		return // it has no facts yet; who has them is asked next
	}
	v := c.judgeGeneration(own, g)
	c.mu.Lock()
	c.outdated = v
	c.mu.Unlock()
	c.own.wake()
}

// judgeGeneration says what this node is to do about a generation that is not older than its own.
func (c *Cluster) judgeGeneration(own string, g greeting) verdict {
	const leave = ": run `carrick leave` here, then `carrick forget %s` there, and this host joins as a new node"
	refuse := func(format string, args ...any) verdict {
		return verdict{refuse: fmt.Sprintf(format+leave, append(args, c.cfg.Name)...)}
	}
	i := slices.IndexFunc(g.Recovered, func(r recovery) bool { return r.Parent == own })
	if i < 0 {
		return refuse("the cluster was recovered on two sides, here and on %s (%s), and they never merge", g.Node.Name, g.Node.Addr)
	}
	for _, r := range g.Recovered[i:] {
		if _, lost := r.Lost[c.id]; lost {
			return refuse("the cluster was recovered on %s, at %s, without this node, which did not answer", r.By, r.At.Format(time.RFC3339))
		}
	}
	r := g.Recovered[i]
	term, last, _, err := lastEntry(c.store, c.snapshots)
	if err == nil && (term > r.Term || term == r.Term && last > r.Last) {
		return refuse("the cluster was recovered on %s, at %s, from a copy that ends at entry %d, and this node has entry %d",
			r.By, r.At.Format(time.RFC3339), r.Last, last)
	}
	return verdict{follow: g.Generation}
}

// overtaken does what the verdict says, and tells whether this node's part in its generation is over.
func (c *Cluster) overtaken() bool {
	c.mu.Lock()
	v := c.outdated
	c.mu.Unlock()
	switch {
	case v.refuse != "":
		c.setState(Refused, v.refuse)
		return true
	case v.follow != "":
		if err := c.cfg.Log.Apply(Write{Key: keyFollow, Value: []byte(v.follow)}); err != nil {
			c.alarms.hold("disk", "the cluster's log cannot be written: "+err.Error())
			return false
		}
		c.beginAgain()
		return true
	}
	return false
}

// recoveredAlarms say, for as long as there are such nodes, without whom the cluster goes on.
func (v View) recoveredAlarms() []string {
	var all []string
	for _, r := range v.recoveries() {
		maps.DeleteFunc(r.Lost, func(id, _ string) bool { _, ok := v.registration(id); return !ok })
		if len(r.Lost) > 0 {
			all = append(all, fmt.Sprintf("the cluster was recovered on %s, at %s, without %s: run `carrick forget` for each that is gone for good, "+
				"and `carrick leave` on each that comes back; until then their addresses stay theirs", r.By, r.At.Format(time.RFC3339), r.lost()))
		}
	}
	return all
}
