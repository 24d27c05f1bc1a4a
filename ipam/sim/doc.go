// Package sim plays histories of five hosts that give out addresses: package ledger as it is on a host, and around it a disk,
// a clock, a network, a cluster's log and a Docker engine that are made up, one event after another, from one random seed. Hosts are
// cut off, killed between any two steps, lose power, have slow and failing disks, lag behind the log, never hear what became of
// a proposal, and are forgotten while they live; engines repeat calls, forget calls, and die. After every event the
// promises of package ledger are checked (check.go). The same seed plays the same history.
//
// hashicorp/raft is not in here: the log is linearizable by construction, with lag, lost and late answers. The real one has a
// test of its own in package cluster (nemesis).
package sim
