package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// garbled are bodies that no call may take for a request.
var garbled = []struct{ name, body, want string }{
	{"empty", "", "the request is empty"},
	{"white", " \n", "the request is empty"},
	{"null", "null", `the request is not a JSON object: it begins with 'n'`},
	{"list", "[]", `the request is not a JSON object: it begins with '['`},
	{"text", `"{}"`, `the request is not a JSON object: it begins with '"'`},
	{"garbled", "{\x00\xff}", "the request is not JSON: byte 2: invalid character '\\x00'"},
	{"truncated", `{"NetworkID":"7f3c`, "the request is not whole: it ends after 18 bytes"},
	{"two", `{} {}`, "the request does not end after its JSON object: 2 more bytes"},
	{"deep", `{"Options":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 41), "the request is nested deeper than the 32 levels allowed"},
	{"deep lists", `{"Options":` + strings.Repeat(`[`, 500_000), "the request is nested deeper than the 32 levels allowed"},
	{"large", `{"Options":"` + strings.Repeat("a", 2<<20) + `"}`, "the request is larger than the 1048576 bytes allowed"},
}

// TestNoCallTakesAGarbledBody: above all not the empty one, which engines send when they repeat a call.
func TestNoCallTakesAGarbledBody(t *testing.T) {
	s, r := startReady(t)
	for _, method := range methods(true) {
		for _, tt := range garbled {
			status, answer, err := s.try(method, tt.body)
			if err != nil {
				t.Fatalf("%s, %s: %v", method, tt.name, err)
			}
			if got := errorOf(t, answer); status != 400 || !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s, %s: %d %s", method, tt.name, status, got)
			}
		}
	}
	if calls := r.taken(); len(calls) > 0 {
		t.Errorf("the backend was asked: %q", calls)
	}
}

// TestRegistrationNeedsNoBody: engines send none there, and must never be refused.
func TestRegistrationNeedsNoBody(t *testing.T) {
	s := start(t, Config{})
	for _, method := range []string{
		"Plugin.Activate", "NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces", "Carrick.Status",
	} {
		for _, tt := range garbled[:6] {
			if status, answer := s.post(t, method, tt.body); status != 200 {
				t.Errorf("%s, %s: %d %s", method, tt.name, status, answer)
			}
		}
	}
}

// with builds a request out of a valid one with one field replaced.
func with(t *testing.T, valid, field string, value any) string {
	t.Helper()
	var request map[string]any
	if err := json.Unmarshal([]byte(valid), &request); err != nil {
		t.Fatal(err)
	}
	at := request
	path := strings.Split(field, "/")
	for _, step := range path[:len(path)-1] {
		next, ok := at[step].(map[string]any)
		if list, isList := at[step].([]any); isList {
			next, ok = list[0].(map[string]any)
		}
		if !ok {
			t.Fatalf("%s has no %s", valid, field)
		}
		at = next
	}
	at[path[len(path)-1]] = value
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	validNetwork = `{"NetworkID":"` + anID + `","Options":{"com.docker.network.generic":{"mode":"overlay"}},
		"IPv4Data":[{"AddressSpace":"local","Pool":"10.0.0.0/24","Gateway":"10.0.0.1/24","AuxAddresses":{"r":"10.0.0.9/24"}}],
		"IPv6Data":[{"AddressSpace":"local","Pool":"fd00::/64","Gateway":"fd00::1/64"}]}`
	validEndpoint = `{"NetworkID":"` + anID + `","EndpointID":"` + anEndpoint + `","Options":{},
		"Interface":{"Address":"10.0.0.2/24","AddressIPv6":"fd00::2/64","MacAddress":"02:42:0a:00:00:02"}}`
	validPool    = `{"AddressSpace":"local","Pool":"10.0.0.0/24","SubPool":"","Options":{},"V6":false}`
	validAddress = `{"PoolID":"local|10.0.0.0/24","Address":"10.0.0.2","Options":{}}`
)

// TestWrongValues: a clear sentence that names the field, the value and what is allowed, and nothing is done.
func TestWrongValues(t *testing.T) {
	s, r := startReady(t)
	for _, tt := range []struct {
		method, valid, field string
		value                any
		want                 string
	}{
		{"NetworkDriver.CreateNetwork", validNetwork, "NetworkID", 7, "NetworkID: a number where text is expected"},
		{"NetworkDriver.CreateNetwork", validNetwork, "NetworkID", "", `NetworkID "" is not an identifier of Docker's: 12 to 64 of 0-9 and a-z`},
		{"NetworkDriver.CreateNetwork", validNetwork, "NetworkID", "../../etc/passwd", `NetworkID "../../etc/passwd" is not an identifier of Docker's: 12 to 64 of 0-9 and a-z`},
		{"NetworkDriver.CreateNetwork", validNetwork, "NetworkID", strings.Repeat("a", 65), `NetworkID "` + strings.Repeat("a", 65) + `" is not an identifier of Docker's: 12 to 64 of 0-9 and a-z`},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options", []int{1}, "Options: a list where an object is expected"},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.generic", "mode=overlay", `option com.docker.network.generic: "mode=overlay" is not an object`},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.generic", map[string]any{"mode": nil}, `com.docker.network.generic["mode"]: null is not text`},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.generic", map[string]any{"mode": []int{}}, `com.docker.network.generic["mode"]: a list is not text`},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.internal", 1, "option com.docker.network.internal: 1 is neither true nor false"},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.enable_ipv6", "perhaps", `option com.docker.network.enable_ipv6: "perhaps" is neither true nor false`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data", []any{nil}, "IPv4Data[0]: null is not an address pool"},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data", "10.0.0.0/24", "IPv4Data: text where a list is expected"},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/Pool", "10.0.0/24", `IPv4Data[0].Pool "10.0.0/24" is not an address with the length of its subnet, as in 10.1.0.3/24`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/Pool", "fd00::/64", `IPv4Data[0].Pool "fd00::/64" is not of IPv4`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/Pool", "010.0.0.0/24", `IPv4Data[0].Pool "010.0.0.0/24" is not an address with the length of its subnet, as in 10.1.0.3/24`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv6Data/Pool", "::ffff:10.0.0.0/104", `IPv6Data[0].Pool "::ffff:10.0.0.0/104" is not of IPv6`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv6Data/Pool", "fe80::%eth0/64", `IPv6Data[0].Pool "fe80::%eth0/64" is not an address with the length of its subnet, as in fd00::3/64`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv6Data/Gateway", "fd00::1", `IPv6Data[0].Gateway "fd00::1" is not an address with the length of its subnet, as in fd00::3/64`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/AuxAddresses", map[string]any{"r": 9}, `IPv4Data[0].AuxAddresses["r"] "9" is not an address with the length of its subnet, as in 10.1.0.3/24`},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/AuxAddresses", map[string]any{"r": nil}, `IPv4Data[0].AuxAddresses["r"]: null is not text`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "EndpointID", "ABCDEFABCDEF", `EndpointID "ABCDEFABCDEF" is not an identifier of Docker's: 12 to 64 of 0-9 and a-z`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface", "eth0", "Interface: text where an object is expected"},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/Address", true, "Interface.Address: true or false where text is expected"},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/Address", "10.0.0.256/24", `Interface.Address "10.0.0.256/24" is not an address with the length of its subnet, as in 10.1.0.3/24`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/AddressIPv6", "10.0.0.2/24", `Interface.AddressIPv6 "10.0.0.2/24" is not of IPv6`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/MacAddress", "02:42:0a", `Interface.MacAddress "02:42:0a" is not a MAC address, as in 02:42:0a:01:00:03`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/MacAddress", "01:00:5e:00:00:01", `Interface.MacAddress "01:00:5e:00:00:01" cannot be the address of one device: it is zero or a group's`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface/MacAddress", "00:00:00:00:00:00", `Interface.MacAddress "00:00:00:00:00:00" cannot be the address of one device: it is zero or a group's`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Options", map[string]any{"attach": map[string]any{}}, `Options["attach"]: an object is not text`},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Options", map[string]any{"a\x1b[2J" + strings.Repeat("b", 200): nil}, `Options["a\x1b[2J` + strings.Repeat("b", 115) + `"…]: null is not text`},
		{"NetworkDriver.Join", validEndpoint, "SandboxKey", "/run/docker/netns/../../../etc", `SandboxKey "/run/docker/netns/../../../etc" is not an absolute path in its shortest form`},
		{"NetworkDriver.Join", validEndpoint, "SandboxKey", "netns/1", `SandboxKey "netns/1" is not an absolute path in its shortest form`},
		{"NetworkDriver.Leave", validEndpoint, "NetworkID", nil, `NetworkID "" is not an identifier of Docker's: 12 to 64 of 0-9 and a-z`},
		{"NetworkDriver.DeleteNetwork", validNetwork, "NetworkID", []string{anID}, "NetworkID: a list where text is expected"},
		{"NetworkDriver.GwAllocCheck", validNetwork, "Options/com.docker.network.generic", 12, "option com.docker.network.generic: 12 is not an object"},
		{"IpamDriver.RequestPool", validPool, "AddressSpace", "", "AddressSpace is missing"},
		{"IpamDriver.RequestPool", validPool, "V6", "false", "V6: text where true or false is expected"},
		{"IpamDriver.RequestPool", validPool, "Options", map[string]any{"a": 1}, "Options: a number where text is expected"},
		{"IpamDriver.ReleasePool", validAddress, "PoolID", "", "PoolID is missing"},
		{"IpamDriver.RequestAddress", validAddress, "PoolID", nil, "PoolID is missing"},
		{"IpamDriver.ReleaseAddress", validAddress, "Address", "", "Address is missing"},
		{"Carrick.RemoveNetwork", `{}`, "network", "", `network "" is not a network's name or identifier`},
		{"Carrick.Forget", `{}`, "node", "", `node "" is not a node's name or identifier`},
		{"Carrick.Pools", `{}`, "pool", 3, "pool: a number where text is expected"},
		{"Carrick.Leases", `{}`, "pool", strings.Repeat("b", 256), `pool "` + strings.Repeat("b", 120) + `"… is not a subnet, or the name or identifier of a network`},
		{"Carrick.Who", `{}`, "address", "", `"" is not an IPv4 or IPv6 address, as in 10.1.0.3 or fd00:1::3`},
		{"Carrick.Who", `{}`, "address", "host-b", `"host-b" is not an IPv4 or IPv6 address, as in 10.1.0.3 or fd00:1::3`},
		{"Carrick.Who", `{}`, "address", "fe80::1%eth0", `"fe80::1%eth0" is not an IPv4 or IPv6 address, as in 10.1.0.3 or fd00:1::3`},
		{"Carrick.Forget", `{}`, "node", 3, "node: a number where text is expected"},
	} {
		status, answer := s.post(t, tt.method, with(t, tt.valid, tt.field, tt.value))
		if got := errorOf(t, answer); status != 400 || got != tt.want {
			t.Errorf("%s with %s %v: %d\n got %s\nwant %s", tt.method, tt.field, tt.value, status, got, tt.want)
		}
	}
	if calls := r.taken(); len(calls) > 0 {
		t.Errorf("the backend was asked: %q", calls)
	}
}

// TestTolerated: what differs between engines and is no error.
func TestTolerated(t *testing.T) {
	s, r := startReady(t)
	for _, tt := range []struct {
		method, valid, field string
		value                any
		want                 string // part of what the backend is asked
	}{
		{"NetworkDriver.CreateNetwork", validNetwork, "Options", nil, "Options:map[] Internal:false IPv4:true IPv6:false"},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.generic", nil, "Options:map[]"},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.generic", map[string]any{"mtu": 9000, "encrypted": true}, "Options:map[encrypted:true mtu:9000]"},
		{"NetworkDriver.CreateNetwork", validNetwork, "Options/com.docker.network.enable_ipv6", "true", "IPv6:true"},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv6Data", nil, "Aux:map[r:10.0.0.9]}]}"},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/Pool", "10.0.0.7/24", "Prefix:10.0.0.0/24"},
		{"NetworkDriver.CreateNetwork", validNetwork, "IPv4Data/Pool", "0.0.0.0/0", "Prefix:0.0.0.0/0"},
		{"NetworkDriver.CreateNetwork", validNetwork, "SomethingOfTomorrow", map[string]any{"a": []int{1}}, "CreateNetwork"},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Interface", nil, "Addrs:[] MAC:00:00:00:00:00:00"},
		{"NetworkDriver.CreateEndpoint", validEndpoint, "Options", nil, "Options:map[]"},
		{"NetworkDriver.Join", validEndpoint, "SandboxKey", "", "Join"},
		{"IpamDriver.RequestPool", validPool, "Options", nil, "Options:map[]"},
		{"IpamDriver.RequestAddress", validAddress, "Address", nil, `RequestAddress "local|10.0.0.0/24" ""`},
	} {
		status, answer := s.post(t, tt.method, with(t, tt.valid, tt.field, tt.value))
		if asked := strings.Join(r.taken(), "; "); status != 200 || !strings.Contains(asked, tt.want) {
			t.Errorf("%s with %s %v: %d %s, asked %q, want %q in it", tt.method, tt.field, tt.value, status, answer, asked, tt.want)
		}
	}
}

// FuzzRoutes: whatever comes, each decoder returns a request or a sentence, and a request has valid identifiers.
func FuzzRoutes(f *testing.F) {
	files, err := filepath.Glob("testdata/engine-*.json")
	if err != nil {
		f.Fatal(err)
	}
	names := methods(true)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var sequence []struct{ Body json.RawMessage }
		if err := json.Unmarshal(raw, &sequence); err != nil {
			f.Fatal(err)
		}
		for _, c := range sequence {
			for i := range names {
				f.Add(i, []byte(c.Body))
			}
		}
	}
	for _, tt := range garbled[:9] {
		f.Add(0, []byte(tt.body))
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		method := names[uint(i)%uint(len(names))]
		a, do, err := routes["/"+method].parse(body)
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 4096 {
				t.Errorf("%s: error %q", method, err)
			}
			return
		}
		if do == nil {
			t.Errorf("%s: neither work nor error", method)
		}
		for _, id := range []string{a.network, a.endpoint} {
			if id != "" && checkID("", id) != nil {
				t.Errorf("%s: took identifier %q", method, id)
			}
		}
	})
}
