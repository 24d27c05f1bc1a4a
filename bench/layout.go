package main

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/carricknet/carrick/lab"
)

// rebuildScript lays out one endpoint of Docker's overlay as libnetwork does (drivers/overlay of moby 28): a bridge in a
// sandbox of its own, a VXLAN device made in the host's namespace and moved there, which learns, answers ARP itself and
// tells of what it misses; one static entry for the remote endpoint. An endpoint is a namespace with a veth of MTU 1450, and
// the NAT rules of Docker's name service, for which conntrack sees all that a container does.
//
// Arguments: our address in the network, our MAC, the other's, its MAC, the other host's address.
const rebuildScript = `
ip netns add bench-sandbox
ip netns add bench-endpoint
ip link add name bench-vx type vxlan id 7777 dstport 4789 proxy l2miss l3miss
ip link set bench-vx netns bench-sandbox
ip link add name bench-host type veth peer name bench-end
ip link set bench-host netns bench-sandbox
ip link set bench-end netns bench-endpoint
ip -n bench-sandbox -batch - <<END
link add br0 type bridge
link set br0 up
link set bench-vx mtu 1450 master br0 up
link set bench-host mtu 1450 master br0 up
neigh add $3 lladdr $4 dev bench-vx nud permanent
END
bridge -n bench-sandbox fdb add $4 dev bench-vx dst $5 self permanent
ip -n bench-endpoint -batch - <<END
link set bench-end name eth0 address $2 mtu 1450 up
addr add $1/24 dev eth0
link set lo up
END
for proto in tcp udp; do
	nsenter --net=/run/netns/bench-endpoint iptables -t nat -A OUTPUT -d 127.0.0.11 -p $proto --dport 53 -j DNAT --to 127.0.0.11:4053
	nsenter --net=/run/netns/bench-endpoint iptables -t nat -A POSTROUTING -s 127.0.0.11 -p $proto --sport 4053 -j SNAT --to :53
done`

// rebuild makes a path over Docker's layout between two hosts, without Docker.
func rebuild(ctx context.Context, hosts [2]*lab.Host) (path, error) {
	var at [2]place
	mac := func(i int) string { return fmt.Sprintf("02:42:0a:50:63:%02x", 11+i) }
	for i, h := range hosts {
		at[i] = place{h, []string{"nsenter", "--net=/run/netns/bench-endpoint", "--"}, netip.AddrFrom4([4]byte{10, 80, 99, byte(11 + i)})}
	}
	for i, h := range hosts {
		if _, err := h.Run(ctx, "sh", "-euc", rebuildScript, "rebuild",
			at[i].addr.String(), mac(i), at[1-i].addr.String(), mac(1-i), hosts[1-i].IPv4); err != nil {
			return path{}, err
		}
	}
	return path{at[0], at[1]}, nil
}
