// Package ledger decides what this host may hand out, and remembers it: a state machine without goroutines, clock, disk,
// network or chance. Whoever runs it tells each step what time it is and what the cluster's facts are (Moment), and does what
// the step asks for (Move): package ipam on a host, package sim with five hosts in a history that can be played again.
//
// A pool is a subnet as Docker asked for it. Until CreateNetwork it is provisional: Docker's calls about pools carry neither
// the network nor its mode. Bind ties it to a network, of this host or of the cluster.
//
// In a network of this host, and in a pool that another driver uses, all addresses are this host's. In a network of the
// cluster they are divided into blocks (cluster/block.go), and an address is handed out only by the host that owns its
// block, and only after the lease is on disk. Blocks are claimed ahead, so nobody has to be asked when a container starts.
//
// What follows from that one rule:
//   - A released address may be given again at once if nothing else is left: nobody else can have it. As long as there is
//     a choice it rests (cooldown), for others may still have it in their neighbour tables.
//   - A name that a container had (names.go) brings its address back as long as nobody else has it. It reserves nothing.
//   - An address inside another host's block is asked for with a fact (carve.go). The owner first notes on disk that it
//     will not give it, then writes who has it. An address carved out that way stays with the host that asked until it
//     gives it back.
//   - A block stays a host's own until it removes the network, is forgotten, or gives the block up (handback.go), which it notes on
//     disk before it says so. So the host keeps a receipt of each, and hands out of them although the facts it has after a restart
//     are old and nobody is there to ask. Facts that are older than
//     the moment at which the network was bound are not believed.
//   - If the store was damaged, what was handed out of a block is unknown. The blocks that a network already had when it is
//     bound again are frozen: nothing is given out of them but what is seen to be in use (Use, and Docker's replay). New
//     blocks are claimed instead. A frozen block is free again when the network is removed from this host. In a network of
//     this host nothing is frozen: the driver refuses an address that another endpoint of the host has.
package ledger
