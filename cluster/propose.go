package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// maxEntry bounds a transaction, in the log and within a frame.
const maxEntry = 512 << 10

// retryPause is how long a write waits before it is tried again, unless the leadership changes meanwhile.
const retryPause = 100 * time.Millisecond

// ErrNotMember: the node is not in a cluster, or no longer. It is wrapped with what it waits for.
var ErrNotMember = errors.New("this node is not a member of a cluster")

// Propose makes txn a fact of the cluster, or returns ErrConflict. It is tried for 8 s unless ctx ends before, then
// ErrNoQuorum says who did not answer; the write may still happen then. ErrConflict alone says for certain that nothing was
// written and will not be: after any other error only a view can tell. The view returned contains the result, and is the one
// to retry from.
func (c *Cluster) Propose(ctx context.Context, txn Txn) (View, error) {
	limited, cancel := context.WithTimeout(ctx, c.timing.propose)
	defer cancel()
	for {
		r, err := c.propose(limited, txn)
		if err != nil {
			return c.View(), c.explain(ctx, err)
		}
		if !r.Failed {
			return c.View(), nil
		}
		_, fenced := c.View().Fenced(c.id)
		if r.Conflict == belowFenced+c.id && !fenced {
			continue // something else was deleted meanwhile: see Cond
		}
		return c.View(), fmt.Errorf("%s: %w", r.Conflict, ErrConflict)
	}
}

// propose is one entry of the log, and returns when this node has it.
func (c *Cluster) propose(ctx context.Context, txn Txn) (result, error) {
	r, err := c.decide(ctx, txn)
	if err != nil {
		return result{}, err
	}
	return r, c.reach(ctx, r.Index)
}

// decide is one entry of the log. It has no effect once this node is forgotten, whoever forwards it and however late.
func (c *Cluster) decide(ctx context.Context, txn Txn) (result, error) {
	view := c.View()
	if how, fenced := view.Fenced(c.id); fenced {
		return result{}, fmt.Errorf("%w: it was %s", ErrNotMember, how)
	}
	random := make([]byte, 16)
	rand.Read(random) // never fails (crypto/rand since Go 1.24)
	data, err := encodeEntry(entry{ID: hex.EncodeToString(random), Txn: txn.By(c.id, view)})
	if err != nil {
		return result{}, fmt.Errorf("propose: %w", err)
	}
	if len(data) > maxEntry {
		return result{}, fmt.Errorf("propose: %d bytes, at most %d are allowed", len(data), maxEntry)
	}
	return c.submit(ctx, data)
}

// submit gets the entry into the log. It is the same entry at each try, so that it has one result.
func (c *Cluster) submit(ctx context.Context, data []byte) (result, error) {
	wake, stop := c.own.watch()
	defer stop()
	for {
		if err := c.outside(); err != nil {
			return result{}, err
		}
		r, err := c.try(ctx, data)
		if code := codeOf(err); err == nil || code != "" && code != codeRetry {
			return r, err
		}
		if !waitFor(ctx, wake, retryPause) {
			return result{}, err
		}
	}
}

// try gives the entry to the leader, here or elsewhere.
func (c *Cluster) try(ctx context.Context, data []byte) (result, error) {
	if n := c.running(); n != nil && n.leads() {
		return c.applyHere(ctx, data)
	}
	leader := c.leader()
	if leader == "" || leader == c.id {
		return result{}, refusal(codeRetry, "there is no leader")
	}
	to, ok := c.address(leader)
	if !ok {
		return result{}, refusal(codeRetry, "the leader %s has no address", leader)
	}
	// A leader that takes this long has lost its majority or its connection; the next one knows the entry by its id.
	limited, cancel := context.WithTimeout(ctx, c.timing.propose/2)
	defer cancel()
	var r result
	_, err := c.call(limited, to, opPropose, rawBody(data), &r)
	return r, err
}

// rawBody is JSON already.
type rawBody []byte

// MarshalJSON is of json.Marshaler.
func (b rawBody) MarshalJSON() ([]byte, error) { return b, nil }

// applyHere puts the entry into the log as the leader. It looks at it first: an entry that this version does not
// understand would stop it.
func (c *Cluster) applyHere(ctx context.Context, data []byte) (result, error) {
	n := c.running()
	if n == nil || !n.leads() {
		return result{}, refusal(codeRetry, "node %s is not the leader", c.cfg.Name)
	}
	if _, err := decodeEntry(data); err != nil {
		return result{}, refusal(codeRefused, "node %s leads the cluster and does not understand this: %v; install the same version everywhere", c.cfg.Name, err)
	}
	f := n.Apply(data, c.timing.propose)
	if err := await(ctx, f); err != nil {
		return result{}, refusal(codeRetry, "%s: %v", c.cfg.Name, err)
	}
	switch r := f.Response().(type) {
	case result:
		return r, nil
	case haltedError:
		return result{}, refusal(codeRetry, "%s: %s", c.cfg.Name, r.why)
	}
	return result{}, refusal(codeRetry, "%s: no answer", c.cfg.Name)
}

// reach returns when the view of this node has the entry.
func (c *Cluster) reach(ctx context.Context, index uint64) error {
	for {
		next := c.fsm.next()
		if c.View().Index() >= index {
			return nil
		}
		if why := c.fsm.halted(); why != "" {
			return haltedError{why}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("entry %d was decided, but has not come here: %w", index, ctx.Err())
		}
	}
}

// waitFor waits for a wake, d, or the end of ctx, and tells whether ctx is still going on.
func waitFor(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// leader is the id of the leader, or empty.
func (c *Cluster) leader() string {
	n := c.running()
	if n == nil {
		return ""
	}
	_, id := n.LeaderWithID()
	return string(id)
}

// outside is the reason why there is no use in waiting for the cluster, if there is one.
func (c *Cluster) outside() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Left || c.state == Refused || c.state == Quarantined {
		return fmt.Errorf("%w: %s: %s", ErrNotMember, c.state, c.reason)
	}
	return nil
}

// explain turns the failure of a write into what the operator can use. The caller's own wish to stop stays that.
func (c *Cluster) explain(ctx context.Context, err error) error {
	var halted haltedError
	switch code := codeOf(err); {
	case errors.Is(err, ErrNotMember), errors.As(err, &halted):
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case code == codeFenced:
		return fmt.Errorf("%w: it was %w", ErrNotMember, err)
	case code != "" && code != codeRetry:
		return err
	}
	if state, reason := c.stateNow(); state != Member {
		return fmt.Errorf("%w yet: %s: %s", ErrNotMember, state, reason)
	}
	return fmt.Errorf("%w: %s (%w)", ErrNoQuorum, c.missing(), err)
}

// missing says which voters do not answer now.
func (c *Cluster) missing() string {
	n := c.running()
	if n == nil {
		return "this node takes no part"
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // dockerd waits for us
	defer cancel()
	voters := 0
	var asked []reply
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if addr, ok := c.address(string(s.ID)); ok && string(s.ID) != c.id {
			r, _ := c.View().registration(string(s.ID))
			asked = append(asked, reply{target: fmt.Sprintf("%s (%s)", r.Name, addr.Addr()), addr: addr})
		}
	}
	c.greetAll(ctx, asked)
	silent := unanswered(asked)
	if len(silent) == 0 {
		return fmt.Sprintf("all %d voters answer, but they have not agreed in time", voters)
	}
	return fmt.Sprintf("%d of %d voters do not answer: %s", len(silent), voters, strings.TrimSpace(names(silent)))
}
