// Package bridge is the plan of a network within one host: one bridge, and a veth pair for each container.
//
// The bridge stands in the namespace of ours rather than in the host's, where docker_gwbridge switches
// bridge-nf-call-iptables on and every frame between two containers would cross Docker's FORWARD chain and conntrack.
package bridge
