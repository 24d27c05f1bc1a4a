package cluster

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for entry, want := range map[string]target{
		"192.0.2.10":        {"192.0.2.10", 7947},
		"192.0.2.10:99":     {"192.0.2.10", 99},
		"2001:db8::1":       {"2001:db8::1", 7947},
		"[2001:db8::1]":     {"2001:db8::1", 7947},
		"[2001:db8::1]:99":  {"2001:db8::1", 99},
		"::ffff:192.0.2.10": {"192.0.2.10", 7947},
		"host-a.example":    {"host-a.example", 7947},
		"host_a.example:99": {"host_a.example", 99},
	} {
		if got, err := parseTarget(entry, 7947); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", entry, got, err, want)
		}
	}
	for _, entry := range []string{"", ":99", "a b", "host:0", "host:65536", "host:port", "http://host", "a,b", "192.0.2.0/24", strings.Repeat("a", 254)} {
		if got, err := parseTarget(entry, 7947); err == nil || !strings.Contains(err.Error(), "JOIN") {
			t.Errorf("%q: %v, %v", entry, got, err)
		}
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	good := newLab(t).host().cfg
	if _, err := checkConfig(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"SECRET is empty":        func(c *Config) { c.Secret = nil },
		"ADVERTISE":              func(c *Config) { c.Advertise = netip.Addr{} },
		"ADVERTISE 0.0.0.0":      func(c *Config) { c.Advertise = netip.IPv4Unspecified() },
		"ADVERTISE fe80::1%eth0": func(c *Config) { c.Advertise = netip.MustParseAddr("fe80::1%eth0") },
		"RAFT_PORT: 1":           func(c *Config) { c.RaftPort = 0 },
		"must differ":            func(c *Config) { c.GossipPort = c.RaftPort },
		`NODE ""`:                func(c *Config) { c.Name = "" },
		`NODE "a b"`:             func(c *Config) { c.Name = "a b" },
		`NODE "a/b"`:             func(c *Config) { c.Name = "a/b" },
		`JOIN "a b"`:             func(c *Config) { c.Join = []string{"a b"} },
		"keep its state":         func(c *Config) { c.Log = nil },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
