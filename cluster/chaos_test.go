package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Nodes are stopped and started at random, the leader often, while all count. What was acknowledged is there afterwards, on
// every node, and nothing happened twice: the counter is the number of marks that were written with it.
func TestNothingAcknowledgedIsLostByRestarts(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	nodes := newLab(t).hosts(5)
	allUp(nodes)
	oneCluster(t, nodes...)
	var lock sync.RWMutex // who is up
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	done := make(chan struct{})
	var g errgroup.Group
	acknowledged := make([][]string, len(nodes))
	for i, n := range nodes {
		g.Go(func() error {
			for k := 0; ; k++ {
				select {
				case <-done:
					return nil
				default:
				}
				lock.RLock()
				c := n.c
				lock.RUnlock()
				mark := fmt.Sprintf("mark/%d-%d", i, k)
				ok, err := countOnce(ctx, c, mark)
				if err != nil {
					return fmt.Errorf("%s: %w", n.cfg.Name, err)
				}
				if ok {
					acknowledged[i] = append(acknowledged[i], mark)
				}
			}
		})
	}
	for range 8 {
		victim := nodes[random.IntN(len(nodes))]
		if random.IntN(2) == 0 {
			victim = leader(t, nodes...)
		}
		victim.stop()
		<-time.After(time.Duration(random.IntN(400)) * time.Millisecond)
		lock.Lock()
		victim.up()
		lock.Unlock()
		<-time.After(time.Duration(random.IntN(600)) * time.Millisecond)
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	oneCluster(t, nodes...)
	nodes[0].write(t, "end", "1")
	total := 0
	for _, n := range nodes {
		eventually(t, n.cfg.Name+" is up to date", func() bool { return n.has("end", "1") })
		view, marks := n.c.View(), 0
		for range view.Prefix("mark/") {
			marks++
		}
		if f, _ := view.Get("counter"); string(f.Value) != strconv.Itoa(marks) {
			t.Errorf("%s: the counter is %s with %d marks", n.cfg.Name, f.Value, marks)
		}
		total = 0
		for _, all := range acknowledged {
			for _, mark := range all {
				total++
				if _, ok := view.Get(mark); !ok {
					t.Errorf("%s: %s was acknowledged and is lost", n.cfg.Name, mark)
				}
			}
		}
	}
	t.Logf("%d writes were acknowledged", total)
	if total == 0 {
		t.Error("nothing was written")
	}
}

// countOnce adds one and leaves a mark, and tells whether that was acknowledged. Restarts may make it fail.
func countOnce(ctx context.Context, c *Cluster, mark string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	view := c.View()
	for {
		f, _ := view.Get("counter")
		have, _ := strconv.Atoi(string(f.Value))
		next, err := c.Propose(ctx, Txn{
			If:   []Cond{{"counter", view.Index()}},
			Then: []Op{{"counter", []byte(strconv.Itoa(have + 1))}, {mark, []byte("1")}},
		})
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, ErrConflict):
			view = next
		case errors.Is(err, ErrNoQuorum), errors.Is(err, ErrNotMember):
			return false, nil
		default:
			return false, err
		}
	}
}
