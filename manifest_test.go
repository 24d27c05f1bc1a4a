package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write config.json and the tables of the documentation anew")

// manifest is config.json of a managed plugin: plugin_linux.go of moby reads no more than this.
type manifest struct {
	Description   string   `json:"description"`
	Documentation string   `json:"documentation"`
	Entrypoint    []string `json:"entrypoint"`
	WorkDir       string   `json:"workdir"`
	Interface     struct {
		Types  []string `json:"types"`
		Socket string   `json:"socket"`
	} `json:"interface"`
	Network struct {
		Type string `json:"type"`
	} `json:"network"`
	PropagatedMount string    `json:"propagatedMount"`
	Mounts          []mount   `json:"mounts"`
	Linux           linux     `json:"linux"`
	Env             []envItem `json:"env"`
}

type mount struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Options     []string `json:"options"`
}

type linux struct {
	Capabilities []string `json:"capabilities"`
}

type envItem struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Value       string   `json:"value"`
	Settable    []string `json:"settable"`
}

// wantManifest is config.json as it has to be. What the operator is asked to grant stands here in full, so that nothing
// is added to it in passing.
func wantManifest() manifest {
	var m manifest
	m.Description = "Carrick: container networks across Docker hosts, without a store to run beside them"
	m.Documentation = "https://github.com/carricknet/carrick"
	m.Entrypoint = []string{"/carrick", "plugin"}
	m.WorkDir = "/"
	m.Interface.Types = []string{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"}
	m.Interface.Socket = "carrick.sock"
	m.Network.Type = "host"
	m.PropagatedMount = "/var/lib/carrick"
	m.Mounts = []mount{{
		Name:        "run-docker",
		Description: "Sandboxes of containers, and the namespace of our own that outlives the plugin's process",
		Source:      "/run/docker", // exists wherever dockerd runs: a source that is missing makes it panic at boot
		Destination: "/host/run/docker",
		Type:        "bind",
		Options:     []string{"rbind", "rshared"},
	}}
	m.Linux.Capabilities = []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} // netlink and nft; setns into a sandbox
	for _, s := range settings {
		m.Env = append(m.Env, envItem{Name: s.name, Description: s.doc, Settable: []string{"value"}})
	}
	return m
}

func TestManifest(t *testing.T) {
	want := wantManifest()
	if *update {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(want); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("config.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	var got manifest
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // pidhost, ipchost, devices, args: all are privileges nobody needs
	if err := d.Decode(&got); err != nil {
		t.Fatalf("config.json: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("config.json is not what the table of settings and the list of privileges say:\ngot  %+v\nwant %+v\n(go test -run TestManifest -update . writes it)", got, want)
	}
}

// TestSettingsTables compares the tables of the documentation with the settings.
func TestSettingsTables(t *testing.T) {
	var b strings.Builder
	b.WriteString("| setting | default | what it is | allowed |\n|---|---|---|---|\n")
	for _, s := range settings {
		value := "empty"
		if s.value != "" {
			value = "`" + s.value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, value, s.doc, s.unit)
	}
	for _, file := range []string{"README.md", "docs/options.md"} {
		compareTable(t, file, "settings", b.String())
	}
}

// compareTable compares what stands between two marks in a file, and with -update writes it.
func compareTable(t *testing.T, file, name, want string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(string(raw), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("%s: the table of %s is not that of the program:\n%s\nwant\n%s\n(go test -run Tables -update . writes it)", file, name, got, want)
	}
}

// TestMakefileKnowsTheSettings: `make install NAME=VALUE` hands on exactly the settings there are.
func TestMakefileKnowsTheSettings(t *testing.T) {
	b, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range settings {
		names = append(names, s.name)
	}
	want := "SETTINGS := " + strings.Join(names, " ") + "\n"
	if !strings.Contains(string(b), want) {
		t.Errorf("Makefile has no line %q", want)
	}
}
