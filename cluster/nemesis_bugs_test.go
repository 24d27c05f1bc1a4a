//go:build nemesis

package cluster

import (
	"context"

	"github.com/hashicorp/raft"
)

// bug is a mistake that rounds have to find.
type bug struct {
	name    string
	propose func(ctx context.Context, c *Cluster, txn Txn) (View, error) // nil: Cluster.Propose
	machine func(*fsm) raft.FSM                                          // nil: the fsm
	leave   func(v View, id, node string) Txn                            // nil: PlanLeave
	forget  func(v View, node string) (Txn, error)                       // nil: PlanForget
	lies    bool                                                         // the disks do
}
