package cluster

import (
	"iter"
	"net/netip"

	"github.com/sirupsen/logrus"
)

// KV is where the node keeps raft's log and what it promised: a checksummed map on disk.
type KV interface {
	Get(key string) ([]byte, bool)
	Prefix(prefix string) iter.Seq2[string, []byte] // in the order of the keys
	Apply(writes ...Write) error                    // all or none; on disk when it returns nil
}

// Write sets Key to Value, or deletes Key when Value is nil.
type Write struct {
	Key   string
	Value []byte
}

// Config says who this node is and where the others may be found.
type Config struct {
	Secret     []byte         // as CheckSecret wants it
	Join       []string       // addresses or host names, optionally with a port (RaftPort if not)
	Advertise  netip.Addr     // the address of this host that others reach, also its VTEP
	Name       string         // unique in the cluster
	GossipPort uint16         // TCP and UDP
	RaftPort   uint16         // TCP: raft, requests and pulls
	Dir        string         // the node's key, raft's snapshots, the cache of the remote records
	Log        KV             // raft's log and stable store
	Logger     *logrus.Logger // nil: discard
}

// registered is a node that the gossip should know: it has a fact, or has answered while this node was not yet a member.
type registered struct {
	ID         string
	Name       string
	Addr       netip.Addr
	GossipPort uint16
	RaftPort   uint16
	Forgotten  bool // its messages and records are refused; only ID and Name are set
}

// member is what the gossip knows about another node.
type member struct {
	ID        string
	Name      string
	Addr      netip.Addr
	RaftPort  uint16
	Alive     bool
	Suspended bool
}

// Node is one member of the cluster.
type Node struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Addr      netip.Addr `json:"addr"` // its VTEP: from the gossip while it is alive, else from the facts
	Alive     bool       `json:"alive"`
	Suspended bool       `json:"suspended,omitempty"`
	Voter     bool       `json:"voter,omitempty"`
	Version   string     `json:"version,omitempty"`
}

// Row is what one other node has published in a network.
type Row struct {
	Node    Node
	Records map[string][]byte
}
