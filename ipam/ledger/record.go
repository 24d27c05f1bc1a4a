package ledger

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/store"
)

// recordVersion is the version of the records this package stores. A newer one is not guessed at: New refuses.
const recordVersion = 1

// KeyDamaged is the key of the record that the store was found damaged once, so that what was in it before is not known.
const KeyDamaged = "damaged"

// Keys of the store.
const (
	belowPool  = "pool/"
	belowLease = "lease/"
	belowRest  = "rest/"
	belowName  = "name/"
	belowNext  = "next/"
	belowCarve = "carve/"
	belowBlock = "block/"
	belowGiven = "given/"
)

// poolRecord is a pool on disk, below belowPool.
type poolRecord struct {
	Version int               `json:"v"`
	ID      string            `json:"id"`
	Space   string            `json:"space"`
	Prefix  netip.Prefix      `json:"prefix"`
	Range   netip.Prefix      `json:"range"` // --ip-range; zero: none
	Options map[string]string `json:"options,omitempty"`
	Gateway netip.Addr        `json:"gateway"`           // what Docker was told; zero: it did not ask
	Chosen  bool              `json:"chosen,omitempty"`  // the gateway, by us
	Aux     []netip.Addr      `json:"aux,omitempty"`     // addresses asked for without an endpoint
	Network string            `json:"network,omitempty"` // Docker's id; "": provisional, or another driver's
	Shared  string            `json:"shared,omitempty"`  // the cluster's id of the network; "": all addresses are ours
	Subnet  cluster.Subnet    `json:"subnet"`            // as bound
	Since   uint64            `json:"since,omitempty"`   // facts older than this log entry are not to be used
	Frozen  uint64            `json:"frozen,omitempty"`  // blocks given up to this log entry are frozen
}

// leaseRecord is an address that was handed out.
type leaseRecord struct {
	Version  int        `json:"v"`
	Pool     string     `json:"pool"`
	Addr     netip.Addr `json:"addr"`
	MAC      string     `json:"mac,omitempty"`      // of the request
	Explicit bool       `json:"explicit,omitempty"` // asked for by --ip
	Name     string     `json:"name,omitempty"`     // of the container, from engines since 29
	Endpoint string     `json:"endpoint,omitempty"` // that uses it; "": none does, yet or any more
	Gone     bool       `json:"gone,omitempty"`     // an endpoint used it, and does not any more
	Given    time.Time  `json:"given,omitzero"`     // when, by the clock on the wall: for people, nothing is decided by it
}

// nextRecord says which addresses of a part were never given: those from Next on. Zero: all were given.
type nextRecord struct {
	Version int          `json:"v"`
	Pool    string       `json:"pool"`
	Part    netip.Prefix `json:"part"`
	Next    netip.Addr   `json:"next"`
}

// restRecord is an address that was released, and that no nextRecord shows to have been given: it had been asked for by name.
type restRecord struct {
	Version int        `json:"v"`
	Pool    string     `json:"pool"`
	Addr    netip.Addr `json:"addr"`
}

// carveRecord is an address in a block of ours that another host has asked for.
type carveRecord struct {
	Version int        `json:"v"`
	Pool    string     `json:"pool"`
	Addr    netip.Addr `json:"addr"`
	Want    uint64     `json:"want"` // log entry of the want
	Seen    uint64     `json:"seen"` // newest log entry we knew when we noted this
}

// blockRecord is the receipt of a block of ours. It stays ours until the network is removed from this host or the block is given
// up (givenRecord), so it is good when the facts on this host are older than it: after a restart that reaches nobody.
type blockRecord struct {
	Version int          `json:"v"`
	Pool    string       `json:"pool"`
	Prefix  netip.Prefix `json:"prefix"`
	Node    string       `json:"node,omitempty"`   // to whom: this host may have another identity now
	Index   uint64       `json:"index"`            // log entry that gave it
	Carved  []netip.Addr `json:"carved,omitempty"` // addresses in it that were another host's already
}

// givenRecord is a block that this host has given up, to give it back: its grants up to Index count no more, whatever the facts
// on this host show.
type givenRecord struct {
	Version int          `json:"v"`
	Pool    string       `json:"pool"`
	Prefix  netip.Prefix `json:"prefix"`
	Index   uint64       `json:"index"` // log entry that gave it
}

type damagedRecord struct {
	Version int `json:"v"`
}

func (r poolRecord) version() int  { return r.Version }
func (r leaseRecord) version() int { return r.Version }
func (r restRecord) version() int  { return r.Version }
func (r nextRecord) version() int  { return r.Version }
func (r carveRecord) version() int { return r.Version }
func (r blockRecord) version() int { return r.Version }
func (r givenRecord) version() int { return r.Version }

func leaseKey(pool string, addr netip.Addr) string { return belowLease + pool + "/" + addr.String() }
func restKey(pool string, addr netip.Addr) string  { return belowRest + pool + "/" + addr.String() }
func carveKey(pool string, addr netip.Addr) string { return belowCarve + pool + "/" + addr.String() }
func blockKey(pool string, block netip.Prefix) string {
	return belowBlock + pool + "/" + block.String()
}
func givenKey(pool string, block netip.Prefix) string {
	return belowGiven + pool + "/" + block.String()
}

func putPool(rec poolRecord) store.Write   { return put(belowPool+rec.ID, rec) }
func putLease(rec leaseRecord) store.Write { return put(leaseKey(rec.Pool, rec.Addr), rec) }
func putRest(rec restRecord) store.Write   { return put(restKey(rec.Pool, rec.Addr), rec) }
func putNext(rec nextRecord) store.Write   { return put(belowNext+rec.Pool+"/"+rec.Part.String(), rec) }
func putCarve(rec carveRecord) store.Write { return put(carveKey(rec.Pool, rec.Addr), rec) }
func putBlock(rec blockRecord) store.Write { return put(blockKey(rec.Pool, rec.Prefix), rec) }
func putGiven(rec givenRecord) store.Write { return put(givenKey(rec.Pool, rec.Prefix), rec) }

func deletion(key string) store.Write { return store.Write{Key: key} }

func writes(all ...store.Write) []store.Write { return all }

// Damaged is the write that says so.
func Damaged() store.Write { return put(KeyDamaged, damagedRecord{recordVersion}) }

func put(key string, record any) store.Write {
	value, err := json.Marshal(record)
	if err != nil {
		panic(err) // records consist of what JSON has
	}
	return store.Write{Key: key, Value: value}
}

// each decodes records. One of another version ends it.
func each[T interface{ version() int }](records iter.Seq2[string, []byte], do func(T)) error {
	for key, raw := range records {
		var rec T
		err := json.Unmarshal(raw, &rec)
		if err != nil || rec.version() != recordVersion {
			var v struct { // of a newer one nothing else may be as it is here
				Version int `json:"v"`
			}
			if err := json.Unmarshal(raw, &v); err == nil && v.Version != recordVersion {
				return fmt.Errorf("%s has format version %d, this program knows %d", key, v.Version, recordVersion)
			}
			return fmt.Errorf("%s: %w", key, err)
		}
		do(rec)
	}
	return nil
}

// poolID is what Docker calls the pool. It says everything that was asked, so that the same request has the same answer
// after any loss of state.
func poolID(space string, prefix netip.Prefix, options map[string]string) string {
	var said []string
	for _, k := range slices.Sorted(maps.Keys(options)) {
		said = append(said, k+"="+options[k])
	}
	return space + "|" + prefix.String() + "|" + strings.Join(said, ",")
}

// rangeOf is where dynamic addresses come from.
func (r *poolRecord) rangeOf() netip.Prefix {
	switch {
	case r.Network != "" && r.Subnet.Range.IsValid():
		return r.Subnet.Range
	case r.Network == "" && r.Range.IsValid():
		return r.Range
	}
	return r.Prefix
}

// subnet is the pool with what may not be an endpoint's.
func (r *poolRecord) subnet() cluster.Subnet {
	if s := r.Subnet; r.Network != "" {
		if r.Gateway.IsValid() && r.Gateway != s.Gateway { // Docker believes so, and tells containers
			s.Aux = maps.Clone(s.Aux)
			if s.Aux == nil {
				s.Aux = map[string]netip.Addr{}
			}
			s.Aux["Docker's gateway"] = r.Gateway
		}
		return s
	}
	return cluster.Subnet{Prefix: r.Prefix, Range: r.rangeOf(), Gateway: r.Gateway, Aux: auxOf(r.Aux)}
}

// auxOf names auxiliary addresses by themselves: Docker tells their names only to the network driver.
func auxOf(addrs []netip.Addr) map[string]netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	aux := map[string]netip.Addr{}
	for _, a := range addrs {
		aux[a.String()] = a
	}
	return aux
}

// label names a pool in sentences.
func (r *poolRecord) label() string { return "subnet " + r.Prefix.String() }
