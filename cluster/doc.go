// Package cluster lets the hosts that were given the same SECRET agree.
//
// Two libraries carry it, each for what it is good at. The slow facts, a few writes a minute that must never disagree
// (nodes, networks, who owns which address block), are a log of hashicorp/raft: every node has a copy and reads from
// it (View), and a write from any node (Propose) is a transaction that the leader puts into the log. Membership and the
// fast facts, which endpoint is behind which host, are spread by hashicorp/memberlist and pulled from their origin.
//
// Raft, requests between nodes and pulls share one TCP port and are told apart by ALPN. Both ends of every connection
// prove by a certificate, which each node issues to itself from a CA derived from SECRET, that they know SECRET and which
// node they are.
//
// A node is its key: the id is the fingerprint of an Ed25519 key that is made once and lies beside raft's log. A host that
// lost either of them is another node, because a voter that has forgotten what it promised can lose what others were told.
package cluster
