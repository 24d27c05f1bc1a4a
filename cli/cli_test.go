package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/carricknet/carrick/cluster"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	aPlugin       = "1f2e3d4c5b6a79880f1e2d3c4b5a69788f7e6d5c4b3a2918"
	anotherPlugin = "2f2e3d4c5b6affffffffffffffffffffffffffffffffffff"
)

// fake is a plugin that answers with files of testdata and writes down what it was asked.
type fake struct {
	mu      sync.Mutex
	asked   []string
	answers map[string]string // by method, "Status"; anything else is answered {}
	refuse  map[string]string // by method: the Err
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	method := strings.TrimPrefix(r.URL.Path, "/Carrick.")
	f.asked = append(f.asked, fmt.Sprintf("%s %s %s", r.Method, method, body))
	if why := f.refuse[method]; why != "" {
		answer, err := json.Marshal(map[string]string{"Err": why})
		if err != nil {
			panic(err)
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(answer) // the client sees what is missing
		return
	}
	answer := f.answers[method]
	if answer == "" {
		answer = "{}"
	}
	_, _ = io.WriteString(w, answer)
}

func (f *fake) calls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "; ")
}

// socketDir has a short name, for paths of sockets are bounded.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ck")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func listen(t *testing.T, dir, id string) *net.UnixListener {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, id), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, id, socketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	return l
}

// serve lets a plugin with that ID answer.
func serve(t *testing.T, dir, id string, handler http.Handler) {
	t.Helper()
	l := listen(t, dir, id)
	server := &http.Server{Handler: handler}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

// stale leaves the socket of a plugin that does not run.
func stale(t *testing.T, dir, id string) {
	t.Helper()
	if err := listen(t, dir, id).Close(); err != nil {
		t.Fatal(err)
	}
}

// result is what a command has shown.
type result struct {
	code     int
	out, err string
}

func command(t *testing.T, dir, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := Run(context.Background(), args, Env{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Version: "1.2.3", SocketDir: dir,
	})
	return result{code, out.String(), errs.String()}
}

func (r result) String() string {
	return fmt.Sprintf("%s%sexit code %d\n", r.out, r.err, r.code)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", file), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := read(t, file); got != want {
		t.Errorf("%s differs; got\n%s", file, got)
	}
}

func TestShown(t *testing.T) {
	for _, tt := range []struct{ method, answer, args string }{
		{"Status", "member", "status"},
		{"Status", "member", "status --json"},
		{"Status", "troubled", "status"},
		{"Status", "joining", "status"},
		{"Status", "alone", "status"},
		{"Status", "refusing", "status"},
		{"Status", "starting", "status"},
		{"Status", "member", "peers"},
		{"Status", "member", "peers --json"},
		{"Status", "troubled", "peers"},
		{"Status", "alone", "peers"},
		{"Status", "alone", "peers --json"},
		{"Status", "refusing", "peers"},
		{"Networks", "networks", "networks"},
		{"Networks", "networks", "networks --json"},
		{"Networks", "none", "networks"},
		{"Networks", "null", "networks --json"},
		{"Endpoints", "endpoints", "endpoints"},
		{"Endpoints", "endpoints", "endpoints --json"},
		{"Endpoints", "none", "endpoints"},
		{"Metrics", "metrics", "metrics"},
		{"Metrics", "metrics", "metrics --json"},
		{"Metrics", "none", "metrics"},
		{"Status", "slow", "status"},
		{"", "", "help"},
	} {
		t.Run(tt.args+" "+tt.answer, func(t *testing.T) {
			dir, f := socketDir(t), &fake{}
			if tt.answer != "" {
				f.answers = map[string]string{tt.method: read(t, tt.answer+".json")}
			}
			serve(t, dir, aPlugin, f)
			got := command(t, dir, "", strings.Fields(tt.args)...)
			name := strings.NewReplacer(" ", "-", "--", "").Replace(strings.TrimSpace(tt.args + " " + tt.answer))
			golden(t, name+".golden", got.String())
			if want := "POST " + tt.method + " {}"; tt.method != "" && f.calls() != want {
				t.Errorf("asked %q", f.calls())
			}
		})
	}
}

func TestLeaveAndForgetAsk(t *testing.T) {
	const nothing = "carrick: not confirmed: nothing was done\n"
	const status, left, forgot = "POST Status {}", "POST Status {}; POST Leave {}", `POST Status {}; POST Forget {"node":"host-b"}`
	const leaves = "Node host-a leaves cluster 9c1b5f20d3e4 with its 3 nodes, for ever: its addresses are free for others, its networks reach no other host.\nGo on? [yes/no] "
	const forgets = "Node host-b (bbbbbbbbbbbb, 192.0.2.11, alive) is taken out of cluster 9c1b5f20d3e4, for ever: its addresses are free for others, and it is refused should it come back.\nGo on? [yes/no] "
	const done = "host-a has left. `carrick join` here, or the next start of the plugin, makes it a new node.\n"
	const removes = "Network blue is removed from this host, behind Docker's back. If `docker network ls` still shows it, use `docker network rm` instead.\nGo on? [yes/no] "
	for _, tt := range []struct {
		args, stdin string
		want        result
		asked       string
	}{
		{"leave", "", result{1, "", leaves + nothing}, status},
		{"leave", "no\n", result{1, "", leaves + nothing}, status},
		{"leave", "y\n", result{1, "", leaves + nothing}, status},
		{"leave", "yes\n", result{0, done, leaves}, left},
		{"leave --yes", "", result{0, done, ""}, left},
		{"forget host-b", "no\n", result{1, "", forgets + nothing}, status},
		{"forget host-b", "yes", result{0, "host-b is forgotten.\n", forgets}, forgot},
		{"forget --yes host-b", "", result{0, "host-b is forgotten.\n", ""}, forgot},
		{"forget host-b --yes", "", result{0, "host-b is forgotten.\n", ""}, forgot},
		{"join --yes", "", result{0, "joining; `carrick status` says how far it is.\n", ""}, "POST Join {}"},
		{"network rm blue", "no\n", result{1, "", removes + nothing}, ""},
		{"network rm --yes blue", "", result{0, "blue is removed.\n", ""}, `POST RemoveNetwork {"network":"blue"}`},
	} {
		dir, f := socketDir(t), &fake{answers: map[string]string{"Status": read(t, "member.json")}}
		serve(t, dir, aPlugin, f)
		got := command(t, dir, tt.stdin, strings.Fields(tt.args)...)
		if got != tt.want || f.calls() != tt.asked {
			t.Errorf("%s, %q: asked %s\n%swant\n%s", tt.args, tt.stdin, f.calls(), got, tt.want)
		}
	}
}

func TestThePluginSaysNo(t *testing.T) {
	for _, tt := range []struct {
		args, status string
		refuse       map[string]string
		want         string
	}{
		{"leave --yes", "member", map[string]string{"Leave": "leave: no quorum"}, "plugin 1f2e3d4c5b6a: leave: no quorum"},
		{"leave --yes", "alone", nil, "this host is in no cluster"},
		{"leave --yes", "refusing", nil, "the plugin is refusing, version 1.2.3, up 3s: SECRET has 3 characters, at least 22 random ones are needed; `carrick secret` makes a good one"},
		{"forget host-x --yes", "member", map[string]string{"Forget": "there is no node host-x"}, "plugin 1f2e3d4c5b6a: there is no node host-x"},
		{"networks", "member", map[string]string{"Networks": "the plugin cannot work:\nSECRET is \x1b[2Jempty"}, "plugin 1f2e3d4c5b6a: the plugin cannot work: SECRET is ?[2Jempty"},
		{"status", "none", nil, "the plugin's answer is not understood, is it another version? json: cannot unmarshal array into Go value of type cli.status"},
	} {
		dir, f := socketDir(t), &fake{answers: map[string]string{"Status": read(t, tt.status+".json")}, refuse: tt.refuse}
		serve(t, dir, aPlugin, f)
		if got := command(t, dir, "", strings.Fields(tt.args)...); got != (result{1, "", "carrick: " + tt.want + "\n"}) {
			t.Errorf("%s, %s:\n%swant %s", tt.args, tt.status, got, tt.want)
		}
	}
}

func TestWrongCommands(t *testing.T) {
	const all = "status, peers, networks, endpoints, ipam pools, ipam blocks, ipam leases, ipam who, metrics, leave, join, forget, recover, network rm, secret, version, help"
	const addresses = "ipam pools, ipam blocks, ipam leases, ipam who"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "a command is missing; there are " + all},
		{[]string{"stats"}, `"stats" is no command; there are ` + all},
		{[]string{"--verbose"}, `"--verbose" is no command; there are ` + all},
		{[]string{""}, `"" is no command; there are ` + all},
		{[]string{"status", "--yes"}, `status: "--yes" is no flag of it; allowed are --json, --plugin`},
		{[]string{"status", "-json"}, `status: "-json" is no flag of it; allowed are --json, --plugin`},
		{[]string{"status", "--json=yes"}, "status: --json takes no value"},
		{[]string{"status", "--plugin"}, "status: --plugin needs the ID of a plugin, as `docker plugin ls` shows it"},
		{[]string{"status", "--plugin="}, "status: --plugin needs the ID of a plugin, as `docker plugin ls` shows it"},
		{[]string{"status", "all"}, `status takes no parameter, and was given "all"`},
		{[]string{"leave", "--json"}, `leave: "--json" is no flag of it; allowed are --yes, --plugin`},
		{[]string{"leave", "host-b"}, `leave takes no parameter, and was given "host-b"`},
		{[]string{"pools"}, `"pools" is no command; there are ` + all},
		{[]string{"ipam"}, `"ipam" is no command; there are ` + addresses},
		{[]string{"ipam", "pool"}, `"ipam pool" is no command; there are ` + addresses},
		{[]string{"ipam", "--json"}, `"ipam --json" is no command; there are ` + addresses},
		{[]string{"network"}, `"network" is no command; there are network rm`},
		{[]string{"ipam", "pools", "blue", "green"}, "ipam pools takes one POOL at most, and was given 2"},
		{[]string{"ipam", "blocks", ""}, "ipam blocks needs one POOL, and was given 1"},
		{[]string{"ipam", "leases", "--yes"}, `ipam leases: "--yes" is no flag of it; allowed are --json, --plugin`},
		{[]string{"ipam", "who"}, "ipam who needs one ADDRESS, and was given 0"},
		{[]string{"ipam", "who", "10.0.1.1", "10.0.1.2"}, "ipam who needs one ADDRESS, and was given 2"},
		{[]string{"forget", "--yes"}, "forget needs one NODE, and was given 0"},
		{[]string{"forget", "host-b", "host-c"}, "forget needs one NODE, and was given 2"},
		{[]string{"forget", ""}, "forget needs one NODE, and was given 1"},
		{[]string{"secret", "--json"}, `secret: "--json" is no flag of it; it has none`},
	} {
		dir, f := socketDir(t), &fake{}
		serve(t, dir, aPlugin, f)
		if got := command(t, dir, "yes\n", tt.args...); got != (result{2, "", "carrick: " + tt.want + "\n"}) || f.calls() != "" {
			t.Errorf("%q: asked %q\n%swant %s", tt.args, f.calls(), got, tt.want)
		}
	}
}

func TestWithoutAPlugin(t *testing.T) {
	dir := socketDir(t)
	for _, tt := range []struct{ args, want string }{
		{"secret", ""}, {"version", "carrick 1.2.3\n"}, {"--help", ""}, {"-h", ""}, {"forget --help", "carrick forget NODE [--yes] [--plugin ID]\ntake a node out that is gone for good, and free its addresses\n"},
	} {
		got := command(t, dir, "", strings.Fields(tt.args)...)
		if got.code != 0 || got.err != "" || got.out == "" || tt.want != "" && got.out != tt.want {
			t.Errorf("%s: %s", tt.args, got)
		}
	}
	secret := command(t, dir, "", "secret").out
	if err := cluster.CheckSecret(strings.TrimSuffix(secret, "\n")); err != nil {
		t.Errorf("secret: %v", err)
	}
	if secret == command(t, dir, "", "secret").out {
		t.Error("two secrets are the same")
	}
}
