package plugin

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

// TestSequences sends what engines send (docs: the sequences of 20.10, 28 and 29) over a socket and compares with what
// the backend was asked and the engine was told.
func TestSequences(t *testing.T) {
	files, err := filepath.Glob("testdata/engine-*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var sequence []struct {
				Call string
				Body json.RawMessage
			}
			if err := json.Unmarshal(raw, &sequence); err != nil {
				t.Fatal(err)
			}
			s, r := startReady(t)
			r.attachment = driver.Attachment{Link: "ckcc0ffee012345", Prefix: "eth"}
			var got strings.Builder
			for _, c := range sequence {
				status, answer := s.post(t, c.Call, string(c.Body))
				fmt.Fprintf(&got, "> %s\n", c.Call)
				for _, call := range r.taken() {
					fmt.Fprintf(&got, "  %s\n", call)
				}
				fmt.Fprintf(&got, "< %d %s\n", status, answer)
			}
			golden(t, strings.TrimSuffix(file, ".json")+".golden", got.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s", file, got)
	}
}

func TestJoinAnswers(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for _, tt := range []struct {
		name       string
		attachment driver.Attachment
		want       string
	}{
		{"no interface", driver.Attachment{NoGatewayService: true}, `{"DisableGatewayService":true}`},
		{
			"docker_gwbridge gives the gateway",
			driver.Attachment{Link: "ckc1", Prefix: "eth"},
			`{"InterfaceName":{"SrcName":"ckc1","DstPrefix":"eth"}}`,
		},
		{
			"gateways of ours",
			driver.Attachment{Link: "ckc1", Prefix: "lan", Gateway4: addr("10.0.0.1"), Gateway6: addr("fd00::1")},
			`{"InterfaceName":{"SrcName":"ckc1","DstPrefix":"lan"},"Gateway":"10.0.0.1","GatewayIPv6":"fd00::1"}`,
		},
		{
			"routes",
			driver.Attachment{Link: "ckc1", Prefix: "eth", Routes: []kernel.Route{
				{Dst: prefix("0.0.0.0/0")}, {Dst: prefix("10.9.0.0/16"), Via: addr("10.0.0.3")},
			}},
			`{"InterfaceName":{"SrcName":"ckc1","DstPrefix":"eth"},"StaticRoutes":[` +
				`{"Destination":"0.0.0.0/0","RouteType":1,"NextHop":""},{"Destination":"10.9.0.0/16","RouteType":0,"NextHop":"10.0.0.3"}]}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, r := startReady(t)
			r.attachment = tt.attachment
			status, answer := s.post(t, "NetworkDriver.Join", `{"NetworkID":"`+anID+`","EndpointID":"`+anEndpoint+`","SandboxKey":"/run/docker/netns/1"}`)
			if status != 200 || answer != tt.want {
				t.Errorf("%d %s\nwant %s", status, answer, tt.want)
			}
		})
	}
}

func TestAdministration(t *testing.T) {
	s, r := startReady(t)
	for _, tt := range []struct{ method, body, asked, want string }{
		{"Carrick.Networks", `{}`, "Networks", `[{"id":"` + anID + `","mode":"overlay","local":0,"remote":0}]`},
		{"Carrick.Endpoints", `{}`, "Endpoints", `[]`},
		{"Carrick.Pools", `{}`, `Pools ""`, `[]`},
		{"Carrick.Pools", `{"pool":"10.1.0.0/24"}`, `Pools "10.1.0.0/24"`, `[]`},
		{"Carrick.Blocks", `{"pool":"blue"}`, `Blocks "blue"`, `[]`},
		{"Carrick.Leases", `{}`, `Leases ""`, `[]`},
		{"Carrick.Who", `{"address":"10.1.0.3"}`, "Who 10.1.0.3", `[]`},
		{"Carrick.Who", `{"address":"fd00:1::3/64"}`, "Who fd00:1::3", `[]`},
		{"Carrick.Metrics", `{}`, "Metrics", `["metric"]`},
		{"Carrick.Leave", `{}`, "leave the cluster", `{}`},
		{"Carrick.Forget", `{"node":"host-b"}`, "forget host-b", `{}`},
		{"Carrick.Join", `{}`, "join again", `{}`},
		{"Carrick.Loss", `{}`, "loss", `{"index":7}`},
		{"Carrick.Recover", `{}`, "recover", `{}`},
		{"Carrick.RemoveNetwork", `{"network":"blue"}`, "remove network blue", `{}`},
	} {
		status, answer := s.post(t, tt.method, tt.body)
		if asked := strings.Join(r.taken(), "; "); status != 200 || answer != tt.want || asked != tt.asked {
			t.Errorf("%s: %d %s, asked %q", tt.method, status, answer, asked)
		}
	}
}
