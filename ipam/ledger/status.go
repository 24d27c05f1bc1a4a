package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/carricknet/carrick/cluster"
)

// PoolStatus is a pool as the command line shows it. Numbers of addresses end at 2^62.
type PoolStatus struct {
	ID      string        `json:"id"`
	Space   string        `json:"space"`
	Subnet  netip.Prefix  `json:"subnet"`
	Range   netip.Prefix  `json:"range"`
	Gateway netip.Addr    `json:"gateway"`
	Name    string        `json:"name,omitempty"`    // --ipam-opt network=
	Network string        `json:"network,omitempty"` // Docker's id; "": provisional, or another driver's
	Shared  string        `json:"shared,omitempty"`  // the cluster's id
	Used    int           `json:"used"`              // on this host
	Free    uint64        `json:"free"`              // on this host, without asking anybody
	Unowned uint64        `json:"unowned,omitempty"` // in blocks that no host has
	Blocks  []BlockStatus `json:"blocks,omitempty"`
	Leases  []LeaseStatus `json:"leases,omitempty"`
}

// BlockStatus is a block of a network, whoever has it.
type BlockStatus struct {
	Prefix netip.Prefix `json:"prefix"`
	Host   string       `json:"host"`
	Mine   bool         `json:"mine,omitempty"`
	Free   uint64       `json:"free,omitempty"` // only of ours
	Frozen bool         `json:"frozen,omitempty"`
}

// LeaseStatus is an address that this host has handed out.
type LeaseStatus struct {
	Addr     netip.Addr `json:"addr"`
	MAC      string     `json:"mac,omitempty"`
	Name     string     `json:"name,omitempty"`
	Endpoint string     `json:"endpoint,omitempty"`
}

// Status is everything that is handed out on this host.
func (l *Ledger) Status(at Moment) []PoolStatus {
	all := []PoolStatus{}
	for _, p := range l.ordered() {
		p.refresh(at)
		s := PoolStatus{
			ID: p.ID, Space: p.Space, Subnet: p.Prefix, Range: p.rangeOf(), Gateway: p.subnet().Gateway,
			Name: p.Options[OptionNetwork], Network: p.Network, Shared: p.Shared, Used: p.usedHere(),
		}
		_, s.Free = p.space.counts()
		if p.Shared != "" && at.Joined {
			s.Unowned = p.unclaimed()
			s.Blocks = p.blockStatus(at.View)
		}
		for _, had := range p.space.leases {
			s.Leases = append(s.Leases, LeaseStatus{had.Addr, had.MAC, had.Name, had.Endpoint})
		}
		slices.SortFunc(s.Leases, func(a, b LeaseStatus) int { return a.Addr.Compare(b.Addr) })
		all = append(all, s)
	}
	return all
}

func (p *pool) blockStatus(view cluster.View) []BlockStatus {
	var all []BlockStatus
	for _, b := range p.blocks {
		if !p.Prefix.Overlaps(b.Prefix) {
			continue
		}
		s := BlockStatus{Prefix: b.Prefix, Host: view.NodeName(b.Node), Mine: p.ours(b), Frozen: p.ours(b) && p.frozen(b)}
		if s.Mine && !s.Frozen {
			_, s.Free = p.space.count(b.Prefix)
		}
		all = append(all, s)
	}
	return all
}

// Alarms are what an operator should look at.
func (l *Ledger) Alarms(at Moment) []string {
	all := slices.SortedFunc(maps.Values(l.alarms), cmp.Compare[string])
	for _, p := range l.ordered() {
		p.refresh(at)
		if p.stale && p.Since != unsettled {
			all = append(all, p.staleError().Error())
			continue
		}
		if at.Joined {
			all = append(all, p.strayAlarms(at.View)...)
		}
		var frozen []string
		for _, b := range p.blocks {
			if p.ours(b) && p.frozen(b) && p.Prefix.Overlaps(b.Prefix) {
				frozen = append(frozen, b.Prefix.String())
			}
		}
		if len(frozen) > 0 {
			all = append(all, fmt.Sprintf("%s: frozen, since the records of what was handed out of them are lost: %s. They are free "+
				"again when the network is removed from this host", p.label(), strings.Join(frozen, ", ")))
		}
	}
	return all
}

// setAlarm raises an alarm, or ends it where err is nil.
func (l *Ledger) setAlarm(pool, kind string, err error) {
	key := pool + " " + kind
	if err == nil {
		delete(l.alarms, key)
		return
	}
	l.alarms[key] = err.Error()
}

func (l *Ledger) clearAlarms(pool string) {
	maps.DeleteFunc(l.alarms, func(key, _ string) bool { return strings.HasPrefix(key, pool+" ") })
}
