package main

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/cluster"
)

// env is a getenv of NAME=VALUE words.
func env(words ...string) func(string) string {
	return func(name string) string {
		for _, w := range words {
			if k, v, _ := strings.Cut(w, "="); k == name {
				return v
			}
		}
		return ""
	}
}

func TestDefaults(t *testing.T) {
	got, err := parseConfig(env("NODE=one"))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Node: "one", GossipPort: 7947, RaftPort: 7948, VXLANPort: 4789, LogLevel: logrus.InfoLevel,
		Pools: []netip.Prefix{netip.MustParsePrefix("10.192.0.0/10"), netip.MustParsePrefix("fd50:3b64:49f::/48")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestNodeIsTheHost(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseConfig(env())
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != host {
		t.Errorf("node %q on host %q", c.Node, host)
	}
}

func TestGoodSettings(t *testing.T) {
	secret := cluster.GenerateSecret()
	for _, tc := range []struct {
		env  string // beside SECRET
		got  func(Config) any
		want any
	}{
		{"", func(c Config) any { return c.Secret }, secret},
		{"JOIN=192.0.2.10", func(c Config) any { return c.Join }, []string{"192.0.2.10"}},
		{"JOIN= 192.0.2.10 , node-b.example_1,2001:db8::1 ", func(c Config) any { return c.Join }, []string{"192.0.2.10", "node-b.example_1", "2001:db8::1"}},
		{"JOIN=::ffff:192.0.2.10", func(c Config) any { return c.Join }, []string{"192.0.2.10"}},
		{"ADVERTISE=192.0.2.10", func(c Config) any { return c.Advertise }, "192.0.2.10"},
		{"ADVERTISE=2001:DB8::1", func(c Config) any { return c.Advertise }, "2001:db8::1"},
		{"ADVERTISE=eth0.30", func(c Config) any { return c.Advertise }, "eth0.30"},
		{"NODE=db-1.example", func(c Config) any { return c.Node }, "db-1.example"},
		{"NODE=42", func(c Config) any { return c.Node }, "42"},
		{"GOSSIP_PORT=1", func(c Config) any { return c.GossipPort }, uint16(1)},
		{"RAFT_PORT=65535", func(c Config) any { return c.RaftPort }, uint16(65535)},
		{"RAFT_PORT=4789", func(c Config) any { return c.RaftPort }, uint16(4789)}, // TCP beside VXLAN's UDP
		{"VXLAN_PORT=8472", func(c Config) any { return c.VXLANPort }, uint16(8472)},
		{"POOLS=198.51.100.0/24", func(c Config) any { return c.Pools }, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
		{"POOLS=10.0.0.0/8,2001:db8:1::/64", func(c Config) any { return len(c.Pools) }, 2},
		{"LOG_LEVEL=error", func(c Config) any { return c.LogLevel }, logrus.ErrorLevel},
		{"LOG_LEVEL=DEBUG", func(c Config) any { return c.LogLevel }, logrus.DebugLevel},
	} {
		t.Run(tc.env, func(t *testing.T) {
			c, err := parseConfig(env("SECRET="+secret, tc.env))
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.got(c); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestBadSettings(t *testing.T) {
	secret := "SECRET=" + cluster.GenerateSecret()
	for _, tc := range []struct {
		env  []string
		says string // beside the names and values
	}{
		{[]string{"JOIN=192.0.2.10"}, "needs SECRET"},
		{[]string{secret, "JOIN=192.0.2.10,,192.0.2.11"}, "an empty name"},
		{[]string{secret, "JOIN=192.0.2.10:7947"}, "without ports"},
		{[]string{secret, "JOIN=192.0.2.300"}, "neither an address nor a host name"},
		{[]string{secret, "JOIN=node b"}, "' ' is not allowed"},
		{[]string{secret, "JOIN=-b"}, "is not a host name"},
		{[]string{secret, "JOIN=a..b"}, "is not a host name"},
		{[]string{secret, "JOIN=fe80::1%eth0"}, "has a zone"},
		{[]string{secret, "JOIN=0.0.0.0"}, "not an address other hosts can reach"},
		{[]string{secret, "JOIN=" + strings.Repeat("a.", 127)}, "longer than 253"},
		{[]string{"ADVERTISE=127.0.0.1"}, "not an address other hosts can reach"},
		{[]string{"ADVERTISE=ff02::1"}, "not an address other hosts can reach"},
		{[]string{"ADVERTISE=an-interface-name-that-is-too-long"}, "nor the name of an interface"},
		{[]string{"ADVERTISE=192.0.2.0/24"}, "nor the name of an interface"},
		{[]string{"NODE=" + strings.Repeat("a", 64)}, "longer than 63 bytes"},
		{[]string{"NODE=süd"}, "is not allowed in it"},
		{[]string{"NODE=a " + "b"}, "is not allowed in it"},
		{[]string{"GOSSIP_PORT=0"}, "not a port"},
		{[]string{"RAFT_PORT=65536"}, "1 to 65535"},
		{[]string{"VXLAN_PORT=vxlan"}, "1 to 65535"},
		{[]string{"RAFT_PORT=7947"}, "is GOSSIP_PORT as well"},
		{[]string{"VXLAN_PORT=7947"}, "is GOSSIP_PORT as well"},
		{[]string{"POOLS=10.0.0.0"}, "is not a prefix"},
		{[]string{"POOLS=10.0.0.1/8"}, "10.0.0.0/8 is meant"},
		{[]string{"POOLS=10.0.0.0/25"}, "too small"},
		{[]string{"POOLS=2001:db8::/65"}, "too small"},
		{[]string{"POOLS=10.0.0.0/8,10.9.0.0/16"}, "overlaps"},
		{[]string{"POOLS=::ffff:10.0.0.0/104"}, "written as IPv6"},
		{[]string{"POOLS=127.0.0.0/8"}, "cannot be given to containers"},
		{[]string{"POOLS=::/0"}, "cannot be given to containers"},
		{[]string{"LOG_LEVEL=loud"}, "error, warn, info, debug or trace"},
		{[]string{"LOG_LEVEL=panic"}, "not a level"},
	} {
		name := tc.env[len(tc.env)-1]
		t.Run(name, func(t *testing.T) {
			c, err := parseConfig(env(tc.env...))
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if !reflect.DeepEqual(c, Config{}) {
				t.Errorf("an error and a half-made Config: %+v", c)
			}
			for _, want := range []string{name, tc.says} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not say %q", err, want)
				}
			}
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	_, err := parseConfig(env("SECRET=hunter2", "JOIN=192.0.2.1:1", "LOG_LEVEL=loud", "VXLAN_PORT=0"))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"SECRET has 7 characters", "JOIN=192.0.2.1:1: ", "LOG_LEVEL=loud: ", "VXLAN_PORT=0: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("the secret is said, or there is more than one line: %v", err)
	}
}

// TestDefaultsAreGood: what stands in the table passes its own check, and nothing is listed twice.
func TestDefaultsAreGood(t *testing.T) {
	var names []string
	for _, s := range settings {
		if slices.Contains(names, s.name) {
			t.Errorf("%s is there twice", s.name)
		}
		names = append(names, s.name)
		if s.doc == "" || s.unit == "" {
			t.Errorf("%s has no words", s.name)
		}
		if err := s.parse(new(Config), s.value); err != nil {
			t.Errorf("%s=%s: %v", s.name, s.value, err)
		}
	}
	// One field for each row, so that none is parsed into nothing.
	if n := reflect.TypeFor[Config]().NumField(); n != len(names) {
		t.Errorf("%d settings for the %d fields of Config: %s", len(names), n, fmt.Sprint(names))
	}
}
