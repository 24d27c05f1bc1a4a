package plugin

import (
	"encoding/json"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/carricknet/carrick/kernel"
)

const (
	// minID and maxID bound Docker's identifiers: 64 hex digits, or 25 of base 36 for what Swarm made. Names of devices
	// take the first 12.
	minID = 12
	maxID = 64
	// maxText bounds one value of ours to quote, in bytes, so that a sentence stays one.
	maxText = 120
)

// checkID refuses what is not an identifier of Docker's: they become names of devices and keys of records.
func checkID(field, id string) error {
	if len(id) < minID || len(id) > maxID || strings.ContainsFunc(id, notOfID) {
		return invalid("%s %s is not an identifier of Docker's: %d to %d of 0-9 and a-z", field, quote(id), minID, maxID)
	}
	return nil
}

func notOfID(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'z') }

// checkIDs checks the two identifiers that most calls name.
func checkIDs(network, endpoint string) error {
	if err := checkID("NetworkID", network); err != nil {
		return err
	}
	return checkID("EndpointID", endpoint)
}

// quote makes a foreign value fit for a sentence: control characters escaped, and not longer than one can read.
func quote(s string) string {
	if len(s) > maxText {
		return strconv.Quote(s[:maxText]) + "…"
	}
	return strconv.Quote(s)
}

// parsePrefix parses "10.1.0.3/24" of the wanted family; host bits are kept.
func parsePrefix(field, s string, v6 bool) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, invalid("%s %s is not an address with the length of its subnet, as in %s", field, quote(s), exampleOf(v6))
	}
	if p.Addr().Is4In6() || p.Addr().Is6() != v6 {
		return netip.Prefix{}, invalid("%s %s is not of %s", field, quote(s), familyOf(v6))
	}
	return p, nil
}

func exampleOf(v6 bool) string {
	if v6 {
		return "fd00::3/64"
	}
	return "10.1.0.3/24"
}

func familyOf(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// parseAddress parses an address that Docker sends with the length of its subnet, of which only the address counts.
func parseAddress(field, s string, v6 bool) (netip.Addr, error) {
	p, err := parsePrefix(field, s, v6)
	return p.Addr(), err
}

// parseMAC parses the address of one device.
func parseMAC(field, s string) (kernel.MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(kernel.MAC{}) {
		return kernel.MAC{}, invalid("%s %s is not a MAC address, as in 02:42:0a:01:00:03", field, quote(s))
	}
	mac := kernel.MAC(hw)
	if mac == (kernel.MAC{}) || mac[0]&1 != 0 { // IEEE 802: the lowest bit of the first byte marks a group
		return kernel.MAC{}, invalid("%s %s cannot be the address of one device: it is zero or a group's", field, quote(s))
	}
	return mac, nil
}

// checkSandboxKey refuses a path that leaves the directory it names.
func checkSandboxKey(key string) error {
	if key != "" && (!path.IsAbs(key) || path.Clean(key) != key) {
		return invalid("SandboxKey %s is not an absolute path in its shortest form", quote(key))
	}
	return nil
}

// truth reads an option of the engine's that is true or false; older engines leave it out.
func truth(options map[string]any, key string, missing bool) (bool, error) {
	switch v := options[key].(type) {
	case nil:
		return missing, nil
	case bool:
		return v, nil
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b, nil
		}
	}
	return false, invalid("option %s: %s is neither true nor false", key, describe(options[key]))
}

// texts turns the values of options into text. The command line gives only text, the API and Compose files numbers and
// booleans as well.
func texts(field string, options map[string]any) (map[string]string, error) {
	out := make(map[string]string, len(options))
	for _, key := range slices.Sorted(maps.Keys(options)) { // in order: of two errors always the same one is told
		switch v := options[key].(type) {
		case string:
			out[key] = v
		case bool:
			out[key] = strconv.FormatBool(v)
		case json.Number:
			out[key] = v.String()
		default:
			return nil, invalid("%s[%s]: %s is not text", field, quote(key), describe(v))
		}
	}
	return out, nil
}

// describe shows a value of any type in a sentence.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return quote(v)
	case json.Number:
		return v.String()
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return "the value"
	}
}
