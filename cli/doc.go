// Package cli is the command line: `carrick status` and the like. It speaks to the plugin of this host over the socket
// that Docker calls it on, where only root may look, and decides nothing itself.
package cli
