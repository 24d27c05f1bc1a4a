package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// target is one entry of JOIN.
type target struct {
	host string // address or name
	port uint16
}

func (t target) String() string { return t.host }

// maxName is what fits a DNS label (RFC 1035 section 2.3.4).
const maxName = 63

// checkConfig refuses what cannot work, and parses JOIN.
func checkConfig(cfg Config) ([]target, error) {
	if err := CheckSecret(string(cfg.Secret)); err != nil {
		return nil, err
	}
	switch a := cfg.Advertise; {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6():
		return nil, fmt.Errorf("ADVERTISE %v: an address of this host is needed, without a zone", a)
	case cfg.GossipPort == 0 || cfg.RaftPort == 0:
		return nil, errors.New("GOSSIP_PORT and RAFT_PORT: 1 to 65535")
	case cfg.GossipPort == cfg.RaftPort:
		return nil, fmt.Errorf("GOSSIP_PORT and RAFT_PORT are both %d, they must differ: both use TCP", cfg.RaftPort)
	case cfg.Dir == "" || cfg.Log == nil:
		return nil, errors.New("cluster: no place to keep its state")
	}
	if err := checkName(cfg.Name); err != nil {
		return nil, err
	}
	targets := make([]target, 0, len(cfg.Join))
	for _, entry := range cfg.Join {
		t, err := parseTarget(entry, cfg.RaftPort)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("NODE %q: 1 to %d characters are needed", name, maxName)
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return fmt.Errorf("NODE %q: %q is not allowed, only letters, digits, '-', '_' and '.'", name, r)
		}
	}
	return nil
}

// parseTarget understands address, address:port, [address]:port, name and name:port.
func parseTarget(entry string, port uint16) (target, error) {
	if addr, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return target{host: addr.Unmap().String(), port: port}, nil
	}
	host := entry
	if h, p, err := net.SplitHostPort(entry); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return target{}, fmt.Errorf("JOIN %q: port %q, 1 to 65535 are allowed", entry, p)
		}
		host, port = h, uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return target{host: addr.Unmap().String(), port: port}, nil
	}
	// RFC 1123 section 2.1, and the underscores that people use.
	for _, r := range host {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return target{}, fmt.Errorf("JOIN %q: %q is in no address and no host name", entry, r)
		}
	}
	if host == "" || len(host) > 253 {
		return target{}, fmt.Errorf("JOIN %q: an address or a host name is needed", entry)
	}
	return target{host: host, port: port}, nil
}

// resolve asks for the address each time: DNS may know later what it does not know now.
func (t target) resolve(ctx context.Context, like netip.Addr) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(t.host); err == nil {
		return netip.AddrPortFrom(addr, t.port), nil
	}
	network := "ip6"
	if like.Is4() {
		network = "ip4"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, t.host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("JOIN: %w", err)
	}
	return netip.AddrPortFrom(addrs[0].Unmap(), t.port), nil
}
