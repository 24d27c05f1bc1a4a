package ipam

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
)

// nameServers are those of the host: a container's network that hides one takes DNS away from the host.
func nameServers(path string) []netip.Prefix {
	f, err := os.Open(path)
	if err != nil {
		return nil // a host without the file has no name servers
	}
	defer f.Close()
	var all []netip.Prefix
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			addr = addr.Unmap().WithZone("")
			all = append(all, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return all
}
