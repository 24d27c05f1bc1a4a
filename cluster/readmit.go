package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// readmitted is the answer to a node whose disk went back: its vote is taken, in that term.
type readmitted struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"` // of the facts that the leader had then
}

// wentBack tells whether this node's disk went back, and it still has the copy of the facts from then: it must not vote.
func (c *Cluster) wentBack() bool {
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	return c.self.regress != nil && !c.self.regress.Back
}

// readmit is what a node does instead of taking part while its disk is known to have gone back. Raft does not run: what this node has
// promised since is not known, and a vote that is given twice elects two leaders. It has the leader take its vote, which is decided by
// the others alone; then its copy of the facts is dropped, and it begins again as one that has none. See docs/adr/0027-old-disk.md.
func (c *Cluster) readmit(ctx context.Context) {
	wake, stop := c.own.watch()
	defer stop()
	for ctx.Err() == nil && !closed(c.gone) && !closed(c.anew) {
		if !c.quarantined() && !c.overtaken() && c.askBack(ctx) {
			return
		}
		if !waitFor(ctx, wake, c.timing.poll) {
			return
		}
	}
}

// askBack is one round. It tells whether there is nothing left to be asked.
func (c *Cluster) askBack(ctx context.Context) bool {
	asked := c.everybody(ctx)
	c.greetAll(ctx, asked)
	var failed []string
	for _, r := range asked {
		switch {
		case r.err != nil:
			failed = append(failed, fmt.Sprintf("%s: %v", r.target, r.err))
			continue
		case r.Cluster != c.cluster() || r.Generation != c.generationNow():
			continue
		case r.Fenced != "":
			c.setFenced(r.Fenced)
			return true
		}
		var a readmitted
		limited, cancel := context.WithTimeout(ctx, c.timing.propose)
		_, err := c.call(limited, r.addr, opReadmit, struct{}{}, &a)
		cancel()
		if err == nil && a.Term > 0 {
			if err = c.note(func(r *regress) { r.Term, r.Index = a.Term, a.Index }); err == nil {
				return true
			}
		}
		failed = append(failed, fmt.Sprintf("%s: %v", r.target, err))
	}
	if c.isOnlyVoter() && c.hasNewest(ctx, asked) {
		if err := c.note(func(r *regress) { r.Back = true }); err == nil {
			c.log.Warn("cluster: this node alone votes, and no other one knows more than it: it leads again")
			return true
		}
	}
	c.setState(Quarantined, "the disk of this host went back in time, and the leader of the cluster has to take its vote: if there is no leader and "+
		"never will be, run `carrick recover` on another host; "+strings.Join(failed, "; "))
	return false
}

// isOnlyVoter tells whether, by this node's own copy, no other one votes: then nobody else can lead, or take its vote.
func (c *Cluster) isOnlyVoter() bool {
	servers, err := lastServers(c.store, c.snapshots)
	if err != nil {
		c.log.WithError(err).Debug("cluster: the newest servers")
		return false
	}
	voters := slices.DeleteFunc(servers, func(s raft.Server) bool { return s.Suffrage != raft.Voter })
	return len(voters) == 1 && string(voters[0].ID) == c.id
}

// hasNewest tells whether all other nodes are there, follow nobody, and have no entry that this one lacks. What it decided alone and
// nobody has heard of is lost with its disk, and nobody rests on it.
func (c *Cluster) hasNewest(ctx context.Context, asked []reply) bool {
	term, last, _, err := lastEntry(c.store, c.snapshots)
	if err != nil {
		return false
	}
	known := map[string]bool{c.id: true}
	answers := c.survey(ctx)
	for _, r := range c.View().wanted() {
		p := answers[r.ID]
		newer := p.Term > term || p.Term == term && p.Last > last
		if known[r.ID] = true; r.ID != c.id && (p.Last == 0 || p.WentBack || p.Leader != "" || newer) {
			return false
		}
	}
	return !slices.ContainsFunc(asked, func(r reply) bool { return r.err == nil && r.Cluster == c.cluster() && !known[r.Node.ID] })
}

// note writes down what becomes of the disk that went back, and begins again.
func (c *Cluster) note(change func(*regress)) error {
	c.self.mu.Lock()
	defer c.self.mu.Unlock()
	r := *c.self.regress
	change(&r)
	if err := c.cfg.Log.Apply(r.write()); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	c.self.regress = &r
	c.beginAgain()
	return nil
}

// makeEmpty drops the copy of the facts of a node whose vote was taken. It has voted in the leader's term, so that it elects nobody else
// in it, and in none before. It comes before the log is looked at; cut short, it is done once more.
func (c *Cluster) makeEmpty() error {
	raw, ok := c.cfg.Log.Get(keyRegress)
	if !ok {
		return nil
	}
	r, err := decodeRegress(raw)
	if err != nil || r.Term == 0 || r.Back {
		return err
	}
	if err := removeAll(filepath.Join(c.cfg.Dir, snapshotDir)); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	r.Back = true
	writes := []Write{r.write(), {Key: keyApplied}, {Key: keyFloor, Value: fmt.Appendf(nil, "%d", r.Index)}}
	for _, below := range []string{prefixLog, prefixRaft} {
		for key := range c.cfg.Log.Prefix(below) {
			writes = append(writes, Write{Key: key})
		}
	}
	term := binary.BigEndian.AppendUint64(nil, r.Term)
	writes = append(writes, // keys of raft (raft.go)
		Write{Key: prefixRaft + termKey, Value: term},
		Write{Key: prefixRaft + "LastVoteTerm", Value: term},
		Write{Key: prefixRaft + "LastVoteCand", Value: []byte("nobody")})
	if err := c.cfg.Log.Apply(writes...); err != nil {
		return fmt.Errorf("cluster: raft's store: %w", err)
	}
	return nil
}

// readmitPeer takes the vote of a node that says itself that its disk went back. When it answers without an error, a majority of the
// others knows that it has none.
func (c *Cluster) readmitPeer(ctx context.Context, id string) (readmitted, error) {
	n := c.running()
	if n == nil || !n.leads() {
		return readmitted{}, refusal(codeRetry, "node %s is not the leader", c.cfg.Name)
	}
	term := n.CurrentTerm()
	for _, s := range n.servers() {
		if string(s.ID) != id || s.Suffrage != raft.Voter {
			continue
		}
		if err := await(ctx, n.DemoteVoter(s.ID, 0, c.timing.propose)); err != nil {
			return readmitted{}, refusal(codeRetry, "%s cannot take the vote: %v", c.cfg.Name, err)
		}
		c.log.WithField("node", c.View().nameOf(id)).Warn("cluster: the disk of a node went back in time: it has no vote until it has all facts")
	}
	if err := await(ctx, n.Barrier(c.timing.propose)); err != nil { // what another leader began before is decided
		return readmitted{}, refusal(codeRetry, "%s: %v", c.cfg.Name, err)
	}
	for _, s := range n.servers() {
		if string(s.ID) == id && s.Suffrage == raft.Voter {
			return readmitted{}, refusal(codeRetry, "%s: the node was given a vote meanwhile", c.cfg.Name)
		}
	}
	if !n.leads() || n.CurrentTerm() != term {
		return readmitted{}, refusal(codeRetry, "node %s does not lead any more", c.cfg.Name)
	}
	return readmitted{Term: term, Index: c.View().Index()}, nil
}
