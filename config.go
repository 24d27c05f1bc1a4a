package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster"
)

// version is stamped by the linker: see scripts/rootfs.
var version = "dev"

// Config is what the operator has set, parsed.
type Config struct {
	Secret     string         // "": no cluster, no socket but Docker's
	Join       []string       // addresses or host names, without ports; the first founds
	Advertise  string         // "" (the default route's address), an address, or the name of an interface
	Node       string         // name among the nodes
	GossipPort uint16         // TCP and UDP
	RaftPort   uint16         // TCP
	VXLANPort  uint16         // UDP
	Pools      []netip.Prefix // where subnets are taken from; they do not overlap
	LogLevel   logrus.Level
}

// maxNode is that of package cluster, in bytes: what fits a DNS label (RFC 1035 section 2.3.4).
const maxNode = 63

// setting is one row of the table. config.json, README.md and docs/options.md are checked against it.
type setting struct {
	name  string
	value string // the default. It stands here and not in config.json: `docker plugin upgrade` brings no new values
	unit  string // what a value looks like
	doc   string // one sentence, for the operator
	parse func(c *Config, value string) error
}

// settings is the only place that knows their names and defaults.
var settings = []setting{
	{
		name: "SECRET",
		unit: "at least 128 random bits, as `carrick secret` makes them",
		doc:  "What the nodes of a cluster share. Empty: this host is on its own.",
		parse: func(c *Config, v string) error {
			c.Secret = v
			if v == "" {
				return nil
			}
			return cluster.CheckSecret(v)
		},
	},
	{
		name:  "JOIN",
		unit:  "addresses or host names, separated by commas, without ports",
		doc:   "The nodes to join, the same line on every host. The node whose own address stands first may found the cluster.",
		parse: func(c *Config, v string) error { return each(v, &c.Join, parseMember) },
	},
	{
		name: "ADVERTISE",
		unit: "an address of this host, or the name of an interface",
		doc:  "Where the other nodes reach this one. Empty: the address of the default route's interface.",
		parse: func(c *Config, v string) (err error) {
			c.Advertise, err = parseAdvertise(v)
			return err
		},
	},
	{
		name: "NODE",
		unit: "letters, digits, '.', '-' and '_', at most 63",
		doc:  "The name of this node, unlike any other's. Empty: the name of the host.",
		parse: func(c *Config, v string) (err error) {
			if v == "" {
				if v, err = os.Hostname(); err != nil {
					return err
				}
			}
			if len(v) > maxNode {
				return fmt.Errorf("%q is longer than %d bytes", v, maxNode)
			}
			c.Node = v
			return checkName(v)
		},
	},
	{
		name:  "GOSSIP_PORT",
		value: "7947", // Swarm has 7946 on the same hosts
		unit:  "a port, 1 to 65535, TCP and UDP",
		doc:   "Where nodes tell each other who is alive. The same on every node.",
		parse: func(c *Config, v string) error { return parsePort(&c.GossipPort, v) },
	},
	{
		name:  "RAFT_PORT",
		value: "7948",
		unit:  "a port, 1 to 65535, TCP",
		doc:   "Where nodes agree on networks and addresses, and fetch each other's endpoints. The same on every node.",
		parse: func(c *Config, v string) error { return parsePort(&c.RaftPort, v) },
	},
	{
		name:  "VXLAN_PORT",
		value: "4789", // IANA, RFC 7348 section 5
		unit:  "a port, 1 to 65535, UDP",
		doc:   "Where the frames of overlay networks arrive. The same on every node.",
		parse: func(c *Config, v string) error { return parsePort(&c.VXLANPort, v) },
	},
	{
		name: "POOLS",
		// The top quarter of 10.0.0.0/8 (RFC 1918), which neither Docker's pools nor Swarm's, counting up from
		// 10.0.0.0, nor the usual Kubernetes ranges reach first; and a prefix of RFC 4193 drawn at random, once, so
		// that every host has the same.
		value: "10.192.0.0/10,fd50:3b64:49f::/48",
		unit:  "prefixes, separated by commas; IPv4 up to /24, IPv6 up to /64",
		doc:   "Where networks created without --subnet get theirs from. The same on every node.",
		parse: func(c *Config, v string) error {
			if err := each(v, &c.Pools, parsePool); err != nil {
				return err
			}
			return checkOverlap(c.Pools)
		},
	},
	{
		name:  "LOG_LEVEL",
		value: "info",
		unit:  "error, warn, info, debug or trace",
		doc:   "How much is written to the engine's log.",
		parse: func(c *Config, v string) error { return parseLevel(&c.LogLevel, v) },
	},
}

// parseConfig reads every setting and reports all that are wrong in one error. An empty value is the default's, since
// that is what the engine passes for a setting nobody touched.
func parseConfig(getenv func(string) string) (Config, error) {
	var c Config
	var wrong []string
	for _, s := range settings {
		v := strings.TrimSpace(getenv(s.name))
		if v == "" {
			v = s.value
		}
		if err := s.parse(&c, v); err != nil {
			said := fmt.Sprintf("%s=%s: %v (allowed: %s)", s.name, v, err, s.unit)
			if s.name == "SECRET" {
				said = err.Error() // the value never gets into a log
			}
			wrong = append(wrong, said)
		}
	}
	wrong = append(wrong, c.contradictions()...)
	if len(wrong) > 0 {
		return Config{}, errors.New("settings: " + strings.Join(wrong, "; "))
	}
	return c, nil
}

// contradictions says which settings, each right by itself, cannot stand together.
func (c Config) contradictions() []string {
	var wrong []string
	if len(c.Join) > 0 && c.Secret == "" {
		wrong = append(wrong, fmt.Sprintf("JOIN=%s: needs SECRET, the same on every node; `carrick secret` makes one", strings.Join(c.Join, ",")))
	}
	// Of the three, only raft (TCP) and VXLAN (UDP) could share a number; gossip is on both.
	if c.GossipPort != 0 && c.GossipPort == c.RaftPort {
		wrong = append(wrong, fmt.Sprintf("RAFT_PORT=%d: is GOSSIP_PORT as well; each needs its own", c.RaftPort))
	}
	if c.GossipPort != 0 && c.GossipPort == c.VXLANPort {
		wrong = append(wrong, fmt.Sprintf("VXLAN_PORT=%d: is GOSSIP_PORT as well; each needs its own", c.VXLANPort))
	}
	return wrong
}

// each parses a list separated by commas. The empty list is allowed, an empty entry is not.
func each[T any](list string, into *[]T, parse func(string) (T, error)) error {
	if list == "" {
		return nil
	}
	for item := range strings.SplitSeq(list, ",") {
		v, err := parse(strings.TrimSpace(item))
		if err != nil {
			return err
		}
		*into = append(*into, v)
	}
	return nil
}

// parseMember takes an address or a name.
func parseMember(v string) (string, error) {
	if a, err := netip.ParseAddr(v); err == nil {
		a = a.Unmap()
		return a.String(), checkUnicast(a)
	}
	// A name whose last label is a number would be taken for an address, RFC 1123 section 2.1.
	last := v[strings.LastIndexByte(v, '.')+1:]
	if _, err := strconv.ParseUint(last, 10, 64); err == nil {
		return "", fmt.Errorf("%q is neither an address nor a host name", v)
	}
	return v, checkName(v)
}

// parseAdvertise takes nothing, an address, or the name of an interface.
func parseAdvertise(v string) (string, error) {
	if v == "" {
		return "", nil
	}
	if a, err := netip.ParseAddr(v); err == nil {
		a = a.Unmap()
		return a.String(), checkUnicast(a)
	}
	// dev_valid_name() of the kernel: IFNAMSIZ-1 bytes, and none of these.
	if len(v) > 15 || v == "." || v == ".." || strings.ContainsAny(v, "/: \t\n") {
		return "", fmt.Errorf("%q is neither an address nor the name of an interface", v)
	}
	return v, nil
}

// checkUnicast refuses addresses that other hosts cannot reach this way.
func checkUnicast(a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone, which means something on one host only", a)
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is not an address other hosts can reach", a)
	}
	return nil
}

// checkName takes host names as they are in use: RFC 1123 section 2.1, and the underscore.
func checkName(v string) error {
	if v == "" {
		return errors.New("an empty name")
	}
	if len(v) > 253 { // RFC 1035 section 2.3.4, without the length bytes of the first label and the root
		return fmt.Errorf("%q is longer than 253 bytes", v)
	}
	for label := range strings.SplitSeq(v, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q is not a host name", v)
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return fmt.Errorf("%q is not a host name: %q is not allowed in it", v, r)
			}
		}
	}
	return nil
}

func parsePort(into *uint16, v string) error {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || n == 0 {
		return errors.New("not a port")
	}
	*into = uint16(n)
	return nil
}

// parsePool takes a prefix that at least one network fits into.
func parsePool(v string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a prefix", v)
	}
	longest := 24
	if p.Addr().Is6() {
		longest = 64
	}
	a := p.Addr()
	switch {
	case a.Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s is an IPv4 prefix written as IPv6", v)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s has host bits set: %s is meant", v, p.Masked())
	case p.Bits() > longest:
		return netip.Prefix{}, fmt.Errorf("%s is too small for a network", v)
	case p.Bits() == 0, a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
		return netip.Prefix{}, fmt.Errorf("%s cannot be given to containers", v)
	}
	return p, nil
}

func checkOverlap(pools []netip.Prefix) error {
	for i, p := range pools {
		for _, q := range pools[:i] {
			if p.Overlaps(q) {
				return fmt.Errorf("%s overlaps %s", p, q)
			}
		}
	}
	return nil
}

// parseLevel takes the levels of logrus at which the plugin goes on: fatal and panic would hide every error.
func parseLevel(into *logrus.Level, v string) error {
	level, err := logrus.ParseLevel(v)
	if err != nil || level < logrus.ErrorLevel {
		return errors.New("not a level")
	}
	*into = level
	return nil
}
