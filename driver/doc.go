// Package driver keeps Docker's networks and endpoints, and keeps the kernel in step with them.
//
// Docker and the cluster supply records; the plan of a network's mode, which is pure, turns records into a kernel.State;
// Kernel.Set makes the kernel so. A request, its repetition, a restart, a change learned from another host and the repair
// of drift are the same path, so there is no code that restores, and rollback is written once.
//
// A mode stands above this package: driver defines the contract (Mode, Plan), the packages bridge and overlay fulfil it,
// and main puts them in a table.
package driver
