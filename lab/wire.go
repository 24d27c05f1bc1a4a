package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// The underlay's networks, and the routers in them, which are the switch.
const (
	net4, gateway4 = "198.51.100.0/24", "198.51.100.1"
	net6, gateway6 = "2001:db8::/64", "2001:db8::1"
)

// addressFile holds the addresses of a host that are not those it was born with.
func (p layout) addressFile(of string) string { return p.of(of + ".addr") }

// Readdress gives eth0 other addresses, as a DHCP server does that has lost its leases: the old ones go first, and the
// routes with them. All that runs goes on. A host that is off boots with them. The /etc/hosts of the lab's hosts follow, as a
// DNS does that hears of the lease.
func (h *Host) Readdress(ctx context.Context, v4, v6 string) error {
	if err := h.checkAddresses(v4, v6); err != nil {
		return err
	}
	if err := writeFile(h.lab.layout.addressFile(h.Name), fmt.Appendf(nil, "%s %s\n", v4, v6)); err != nil {
		return err
	}
	h.IPv4, h.IPv6 = v4, v6
	if h.Running() {
		if err := h.ip(ctx, "addr flush dev eth0 scope global\naddr add "+h.prefix4()+" dev eth0\n"+h.restoreScript()); err != nil {
			return fmt.Errorf("readdress: %w", err)
		}
	}
	for _, o := range h.lab.Hosts {
		if !o.Running() {
			continue
		}
		cmd := o.Command(ctx, "sh", "-euc", "cat >/etc/hosts") // in place: containers have the file itself mounted
		cmd.Stdin = strings.NewReader(h.lab.hostsFile())
		if _, err := output(cmd, o.Name, []string{"cat >/etc/hosts"}); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) checkAddresses(v4, v6 string) error {
	for text, network := range map[string]string{v4: net4, v6: net6} {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return h.errorf("address %q: %w", text, err)
		}
		if !netip.MustParsePrefix(network).Contains(addr) || text == gateway4 || text == gateway6 {
			return h.errorf("address %s: want one of %s, and not the router's", text, network)
		}
		for _, o := range h.lab.Hosts {
			if o != h && (o.IPv4 == text || o.IPv6 == text) {
				return h.errorf("address %s is that of %s", text, o.Name)
			}
		}
	}
	return nil
}

// readAddresses takes over what Readdress has noted.
func (h *Host) readAddresses() error {
	data, err := os.ReadFile(h.lab.layout.addressFile(h.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = fmt.Sscanf(string(data), "%s %s\n", &h.IPv4, &h.IPv6)
	return err
}

// LinkDown switches eth0 off. The kernel takes its routes and its IPv6 addresses away.
func (h *Host) LinkDown(ctx context.Context) error { return h.ip(ctx, "link set eth0 down\n") }

// LinkUp switches eth0 on and restores what LinkDown took away, as a network manager does.
func (h *Host) LinkUp(ctx context.Context) error {
	return h.ip(ctx, "link set eth0 up\n"+h.restoreScript())
}

// SetMTU changes the MTU of eth0, in bytes, until the next boot. What the host sends is cut to it, and what is larger does not
// arrive there; the switch and the other hosts stay as they are.
func (h *Host) SetMTU(ctx context.Context, bytes int) error {
	return h.ip(ctx, fmt.Sprintf("link set eth0 mtu %d\n", bytes))
}

// restoreScript is what is lost of a link that was down.
func (h *Host) restoreScript() string {
	return fmt.Sprintf("addr replace %s dev eth0 nodad\nroute replace default via %s\nroute replace default via %s\n",
		h.prefix6(), gateway4, gateway6)
}

func (h *Host) prefix4() string { return h.IPv4 + "/24" }
func (h *Host) prefix6() string { return h.IPv6 + "/64" }

// ip runs lines of ip(8) inside the host.
func (h *Host) ip(ctx context.Context, lines string) error {
	cmd := h.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	_, err := output(cmd, h.Name, []string{"ip", "-batch", strings.ReplaceAll(strings.TrimSpace(lines), "\n", "; ")})
	return err
}

// hostsFile is /etc/hosts of all hosts.
func (l *Lab) hostsFile() string {
	var lines strings.Builder
	lines.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, o := range l.Hosts {
		fmt.Fprintf(&lines, "%s %s\n%s %s\n", o.IPv4, o.Name, o.IPv6, o.Name)
	}
	return lines.String()
}
