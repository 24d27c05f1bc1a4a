package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// PoolStatus is a pool as the command line shows it, or a network of the cluster that this host does not have. Numbers of
// addresses end at 2^62. Usable is the sum of Used, Free, Frozen, Others, Stranded and Unclaimed, but for addresses that were
// asked for outside Range, and those that are on their way to another host.
type PoolStatus struct {
	ID        string       `json:"id,omitempty"`    // Docker's; "": not on this host
	Space     string       `json:"space,omitempty"` // address space
	Subnet    netip.Prefix `json:"subnet"`
	Range     netip.Prefix `json:"range"` // where addresses come from that nobody asked for
	Gateway   netip.Addr   `json:"gateway"`
	Name      string       `json:"name,omitempty"`      // --ipam-opt network=
	Network   string       `json:"network,omitempty"`   // Docker's id; "": provisional, another driver's, or not on this host
	Shared    string       `json:"shared,omitempty"`    // the cluster's id
	Mode      string       `json:"mode,omitempty"`      // of the network
	Stale     bool         `json:"stale,omitempty"`     // who has which block is not known: what this host knows of the cluster is too old, or it has none
	Usable    uint64       `json:"usable"`              // in Range, for endpoints
	Used      int          `json:"used"`                // on this host
	Free      uint64       `json:"free"`                // on this host, without asking anybody
	Frozen    uint64       `json:"frozen,omitempty"`    // on this host, and not given: see Alarms
	Others    uint64       `json:"others,omitempty"`    // in blocks of other hosts that are there
	Told      *int         `json:"told,omitempty"`      // in use on other hosts, as they tell; nil: this host does not listen
	Stranded  uint64       `json:"stranded,omitempty"`  // in blocks of hosts that do not answer, or were left behind
	Unclaimed uint64       `json:"unclaimed,omitempty"` // in blocks that no host has

	Blocks   []BlockStatus `json:"-"`
	Leases   []LeaseStatus `json:"-"`
	subnet   cluster.Subnet
	resting  map[netip.Addr]time.Time   // filled in by Survey: until when
	excluded map[netip.Addr]carveRecord // the same: addresses on their way to other hosts
}

// BlockStatus is a block of a network, whoever has it.
type BlockStatus struct {
	Subnet   netip.Prefix `json:"subnet"`
	Network  string       `json:"network,omitempty"` // Docker's id
	Shared   string       `json:"shared"`            // the cluster's id
	Name     string       `json:"name,omitempty"`
	Prefix   netip.Prefix `json:"prefix"`
	Host     string       `json:"host"`
	State    string       `json:"state,omitempty"`    // of the host, see hosts.state
	Silent   time.Time    `json:"silent,omitzero"`    // since when it does not answer; zero: it does, or since before this start
	Mine     bool         `json:"mine,omitempty"`     // of this host
	Frozen   bool         `json:"frozen,omitempty"`   // of ours: nothing is given out of it
	GivenUp  bool         `json:"given_up,omitempty"` // of ours: on its way back to the cluster
	Stranded bool         `json:"stranded,omitempty"` // nobody is given any of it until its host answers, or is forgotten
	Size     uint64       `json:"size"`               // addresses for endpoints, without those of blocks inside it
	Used     *int         `json:"used,omitempty"`     // on another host: as it tells; nil: this host does not hear of it
	Free     uint64       `json:"free,omitempty"`     // of ours
	Entry    uint64       `json:"entry"`              // the entry of the cluster's log that gave it

	node string // id
}

// LeaseStatus is an address that is not free on this host.
type LeaseStatus struct {
	Subnet   netip.Prefix `json:"subnet"`
	Network  string       `json:"network,omitempty"` // Docker's id
	Addr     netip.Addr   `json:"addr"`
	State    AddressState `json:"state"`
	MAC      string       `json:"mac,omitempty"` // of the request
	Name     string       `json:"name,omitempty"`
	Endpoint string       `json:"endpoint,omitempty"`
	Since    time.Time    `json:"since,omitzero"` // when it was handed out; zero: not known
	Until    time.Time    `json:"until,omitzero"` // resting: it goes after others until then
}

// AddressState is what is the matter with an address.
type AddressState string

// States. A lease has one of the first five.
const (
	StateUsed      AddressState = "in use"    // by an endpoint
	StateIdle      AddressState = "idle"      // handed out, and no endpoint has it, yet or any more
	StateResting   AddressState = "resting"   // released a moment ago: given when nothing else is left
	StateGateway   AddressState = "gateway"   // the same on every host
	StateAuxiliary AddressState = "auxiliary" // --aux-address

	StateUnusable AddressState = "unusable" // the network's, the broadcast or the anycast address
	StateFree     AddressState = "free"     // nobody has it
	StateUnused   AddressState = "not used" // its host tells of no endpoint that has it
	StateUnknown  AddressState = "unknown"  // whether somebody has it cannot be said here
)

// Status is everything that is handed out on this host.
func (l *Ledger) Status(at Moment) []PoolStatus {
	all := []PoolStatus{}
	hosts := at.hosts()
	for _, p := range l.ordered() {
		all = append(all, p.status(at, hosts))
	}
	return all
}

func (p *pool) status(at Moment, hosts hosts) PoolStatus {
	p.refresh(at)
	s := PoolStatus{
		ID: p.ID, Space: p.Space, Subnet: p.Prefix, Range: p.rangeOf(), Gateway: p.subnet().Gateway,
		Name: p.Options[OptionNetwork], Network: p.Network, Shared: p.Shared, Stale: p.Shared != "" && p.stale, Used: p.usedHere(),
		subnet: p.subnet(),
	}
	_, s.Free = p.space.counts()
	for _, had := range p.space.leases {
		s.Leases = append(s.Leases, leaseStatus(p, had))
	}
	slices.SortFunc(s.Leases, func(a, b LeaseStatus) int { return a.Addr.Compare(b.Addr) })
	if p.Shared != "" && at.Joined {
		s.Blocks = blocksOf(s, p.blocks.All(), at.View, hosts)
		for n, b := range s.Blocks {
			switch {
			case !b.Mine:
			case p.frozen(cluster.Block{Index: b.Entry}):
				s.Blocks[n].Frozen = true
			case p.givenUp(cluster.Block{Prefix: b.Prefix, Node: b.node, Index: b.Entry}):
				s.Blocks[n].GivenUp = true
			default:
				_, s.Blocks[n].Free = p.space.count(b.Prefix)
			}
		}
	}
	s.add()
	return s
}

func leaseStatus(p *pool, had *lease) LeaseStatus {
	s := LeaseStatus{
		Subnet: p.Prefix, Network: p.Network, Addr: had.Addr, State: StateIdle, MAC: had.MAC, Name: had.Name, Endpoint: had.Endpoint,
		Since: had.Given,
	}
	if had.Endpoint != "" {
		s.State = StateUsed
	}
	return s
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
		for _, b := range p.blocks.All() {
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
