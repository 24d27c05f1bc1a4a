package ipam

import "github.com/carricknet/carrick/ipam/ledger"

// What the command line shows of pools.
type (
	PoolStatus  = ledger.PoolStatus
	BlockStatus = ledger.BlockStatus
	LeaseStatus = ledger.LeaseStatus
)
