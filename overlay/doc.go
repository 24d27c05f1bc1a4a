// Package overlay is the plan of a network across hosts: a bridge, a VXLAN device (RFC 7348) as one of its ports, and
// forwarding and neighbour entries for everything that is behind the other hosts, written ahead.
//
// Nothing is learned from frames. The bridge answers ARP (RFC 826) and neighbour solicitations (RFC 4861) for remote
// endpoints itself, from the neighbour entries; what it does not know, and broadcast and multicast, goes as one copy to
// each host that takes part in the network.
package overlay
