package ipam

import (
	"net/netip"

	"github.com/carricknet/carrick/ipam/ledger"
)

// What the command line shows of addresses.
type (
	PoolStatus    = ledger.PoolStatus
	BlockStatus   = ledger.BlockStatus
	LeaseStatus   = ledger.LeaseStatus
	AddressStatus = ledger.AddressStatus
	AddressState  = ledger.AddressState
)

// States of an address.
const (
	StateUsed      = ledger.StateUsed
	StateIdle      = ledger.StateIdle
	StateResting   = ledger.StateResting
	StateGateway   = ledger.StateGateway
	StateAuxiliary = ledger.StateAuxiliary
	StateUnusable  = ledger.StateUnusable
	StateFree      = ledger.StateFree
	StateUnused    = ledger.StateUnused
	StateUnknown   = ledger.StateUnknown
)

// What is known of networks beside their addresses.
type (
	Elsewhere = ledger.Elsewhere
	Told      = ledger.Told
)

// ParseAddress reads an address as people write it, with the length of its subnet or without.
func ParseAddress(s string) (netip.Addr, error) { return ledger.ParseAddress(s) }

// Status is everything that is handed out on this host.
func (i *IPAM) Status() []PoolStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ledger.Status(i.moment())
}

func (i *IPAM) survey() []PoolStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ledger.Survey(i.moment())
}

// Pools are the pools that which means, with what the other hosts tell of them: of this host, and networks of the cluster that it
// does not have. A pool is meant by its subnet, or by the name or the identifier of its network, or how that begins; "" means all.
func (i *IPAM) Pools(which string, e Elsewhere) ([]PoolStatus, error) {
	all, err := ledger.Choose(i.survey(), which)
	for n := range all {
		all[n].Complete(e)
	}
	return all, err
}

// Blocks are those of the pools that which means.
func (i *IPAM) Blocks(which string, e Elsewhere) ([]BlockStatus, error) {
	pools, err := i.Pools(which, e)
	all := []BlockStatus{}
	for _, p := range pools {
		all = append(all, p.Blocks...)
	}
	return all, err
}

// Leases are the addresses of the pools that which means that are not free on this host.
func (i *IPAM) Leases(which string) ([]LeaseStatus, error) {
	pools, err := ledger.Choose(i.survey(), which)
	all := []LeaseStatus{}
	for _, p := range pools {
		if !p.Absent() {
			all = append(all, p.Taken()...)
		}
	}
	return all, err
}

// Who says who has an address: one answer for each pool around it.
func (i *IPAM) Who(addr netip.Addr, e Elsewhere) ([]AddressStatus, error) {
	return ledger.Who(i.survey(), addr, e)
}
