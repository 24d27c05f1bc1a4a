package cluster

import "time"

// goneFor tells which nodes were suspended for so long without a break, as this node has seen it: memberlist has lost them,
// and their hosts do not answer at the port that raft has too. Whom raft reaches is therefore never among them.
func (c *contacts) goneFor(limit time.Duration, now time.Time) func(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	gone := map[string]bool{}
	for id, n := range c.all {
		gone[id] = !n.alive && n.suspended && now.Sub(n.since) >= limit
	}
	return func(id string) bool { return gone[id] }
}
