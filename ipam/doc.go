// Package ipam hands out subnets and addresses: never one address twice, whatever happens. What may be handed out is decided
// by package ledger; this one does what a decision asks for, on disk and in the cluster.
package ipam
