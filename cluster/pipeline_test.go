package cluster

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

// In raft's pipeline a leader and a follower whose disk has failed for a moment can stand still for ever (see raftInFlight).
func TestEntriesAreNotPipelined(t *testing.T) {
	t.Parallel()
	n := newLab(t).host()
	n.cfg.Join = []string{n.at()}
	n.up()
	oneCluster(t, n)
	id := raft.ServerID(n.c.ID())
	_, err := n.c.running().trans.AppendEntriesPipeline(id, raftAddr(n.c.ID(), n.c.transport.local))
	if !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("a pipeline: %v, want %v", err, raft.ErrPipelineReplicationNotSupported)
	}
}
