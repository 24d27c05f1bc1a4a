package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/ipam"
	"github.com/carricknet/carrick/kernel"
)

// patience is how long tests wait for what must happen.
const patience = 60 * time.Second

const (
	anID       = "7f3c9d2e8a41b6057f3c9d2e8a41b6057f3c9d2e8a41b6057f3c9d2e8a41b605"
	anEndpoint = "c0ffee0123456789c0ffee0123456789c0ffee0123456789c0ffee0123456789"
)

// recorder is a backend that writes down what it is asked.
type recorder struct {
	mu    sync.Mutex
	calls []string

	attachment driver.Attachment
	// before is asked first, if set: it may block, panic or refuse.
	before func(ctx context.Context, call string) error
}

func (r *recorder) note(ctx context.Context, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.calls = append(r.calls, text)
	r.mu.Unlock()
	if r.before != nil {
		return r.before(ctx, text)
	}
	return nil
}

// taken returns what was asked since the last time.
func (r *recorder) taken() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *recorder) backend() Backend {
	return Backend{
		Networks: r, Endpoints: r, Sandboxes: r, Pools: r, Addresses: r,
		Reports: reporter{r}, Ledger: reporter{r}, Measures: reporter{r}, Members: member{r}, Rescue: member{r},
	}
}

func (r *recorder) SkipGateway(options map[string]string) (v4, v6 bool, err error) {
	return options["mode"] == "none", options["mode"] == "none", r.note(context.Background(), "SkipGateway %v", options)
}

func (r *recorder) CreateNetwork(ctx context.Context, n driver.NetworkRequest) error {
	return r.note(ctx, "CreateNetwork %+v", n)
}

func (r *recorder) DeleteNetwork(ctx context.Context, network string) error {
	return r.note(ctx, "DeleteNetwork %s", network)
}

func (r *recorder) CreateEndpoint(ctx context.Context, e driver.EndpointRequest) (kernel.MAC, error) {
	// A driver that always says the MAC: the engine must hear of it only if it had given none.
	return kernel.MAC{0x02, 0x42, 1, 2, 3, 4}, r.note(ctx, "CreateEndpoint %+v", e)
}

func (r *recorder) DeleteEndpoint(ctx context.Context, network, endpoint string) error {
	return r.note(ctx, "DeleteEndpoint %s %s", network, endpoint)
}

func (r *recorder) EndpointInfo(ctx context.Context, network, endpoint string) (map[string]string, error) {
	return nil, r.note(ctx, "EndpointInfo %s %s", network, endpoint)
}

func (r *recorder) Join(ctx context.Context, network, endpoint, sandboxKey string) (driver.Attachment, error) {
	return r.attachment, r.note(ctx, "Join %s %s %s", network, endpoint, sandboxKey)
}

func (r *recorder) Leave(ctx context.Context, network, endpoint string) error {
	return r.note(ctx, "Leave %s %s", network, endpoint)
}

func (r *recorder) RequestPool(ctx context.Context, p ipam.PoolRequest) (string, netip.Prefix, map[string]string, error) {
	pool := p.Pool
	if pool == "" {
		pool = "10.0.0.0/24"
	}
	return p.Space + "|" + pool, netip.MustParsePrefix(pool), nil, r.note(ctx, "RequestPool %+v", p)
}

func (r *recorder) ReleasePool(ctx context.Context, pool string) error {
	return r.note(ctx, "ReleasePool %s", pool)
}

func (r *recorder) RequestAddress(ctx context.Context, pool, address string, options map[string]string) (netip.Prefix, error) {
	return netip.MustParsePrefix("10.0.0.7/24"), r.note(ctx, "RequestAddress %q %q %v", pool, address, options)
}

func (r *recorder) ReleaseAddress(ctx context.Context, pool, address string) error {
	return r.note(ctx, "ReleaseAddress %q %q", pool, address)
}

type reporter struct{ *recorder }

func (r reporter) Status(ctx context.Context) (any, error) {
	return map[string]string{"leader": "host-a"}, r.note(ctx, "Status")
}

func (r reporter) Networks(ctx context.Context) (any, error) {
	return []driver.NetworkStatus{{ID: anID, Mode: "overlay"}}, r.note(ctx, "Networks")
}

func (r reporter) Pools(ctx context.Context, pool string) (any, error) {
	return []ipam.PoolStatus{}, r.note(ctx, "Pools %q", pool)
}

func (r reporter) Blocks(ctx context.Context, pool string) (any, error) {
	return []ipam.BlockStatus{}, r.note(ctx, "Blocks %q", pool)
}

func (r reporter) Leases(ctx context.Context, pool string) (any, error) {
	return []ipam.LeaseStatus{}, r.note(ctx, "Leases %q", pool)
}

func (r reporter) Who(ctx context.Context, addr netip.Addr) (any, error) {
	return []ipam.AddressStatus{}, r.note(ctx, "Who %s", addr)
}

func (r reporter) Metrics(ctx context.Context) (any, error) {
	return []string{"metric"}, r.note(ctx, "Metrics")
}

func (r reporter) Endpoints(ctx context.Context) (any, error) {
	return []driver.EndpointStatus{}, r.note(ctx, "Endpoints")
}

type member struct{ *recorder }

func (m member) Leave(ctx context.Context) error { return m.note(ctx, "leave the cluster") }

func (m member) Rejoin(ctx context.Context) error { return m.note(ctx, "join again") }

func (m member) Recover(ctx context.Context) error { return m.note(ctx, "recover") }

func (m member) Loss(ctx context.Context) (any, error) {
	return map[string]int{"index": 7}, m.note(ctx, "loss")
}

func (m member) RemoveNetwork(ctx context.Context, network string) error {
	return m.note(ctx, "remove network %s", network)
}

func (m member) Forget(ctx context.Context, node string) error {
	return m.note(ctx, "forget %s", node)
}

// served is a server on a socket of its own.
type served struct {
	*Server
	path   string
	client *http.Client
	log    *lockedBuffer
	stop   func() error // ends Serve and returns what it says
	ended  atomic.Bool  // a test has called stop and seen to what it said
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start serves until the test ends.
func start(t *testing.T, config Config) *served {
	t.Helper()
	dir := socketDir(t)
	l, err := listenBelow(dir, filepath.Join(dir, "carrick.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{path: filepath.Join(dir, "carrick.sock"), log: &lockedBuffer{}}
	config.Logger = logrus.New()
	config.Logger.SetOutput(s.log)
	config.Logger.SetLevel(logrus.DebugLevel)
	config.Logger.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	if config.LocalSpace == "" {
		config.LocalSpace, config.GlobalSpace = "local", "global"
	}
	s.Server = New(config)
	s.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.path)
		},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	s.stop = sync.OnceValue(func() error {
		s.ended.Store(true)
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("Serve does not end")
		}
	})
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		seen := s.ended.Load()
		if err := s.stop(); err != nil && !seen {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// startReady is start with a backend.
func startReady(t *testing.T) (*served, *recorder) {
	t.Helper()
	s, r := start(t, Config{Version: "1.2.3"}), &recorder{}
	s.Ready(r.backend())
	return s, r
}

// socketDir is a directory like that of dockerd. Its path is short: those of sockets are bounded.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ck") // 0700
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

// post calls a method with a body and returns status and answer.
func (s *served) post(t *testing.T, method, body string) (int, string) {
	t.Helper()
	status, answer, err := s.try(method, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, answer
}

func (s *served) try(method, body string) (int, string, error) {
	res, err := s.client.Post("http://plugin/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), errors.Join(err, res.Body.Close())
}

// errorOf is the sentence in an answer.
func errorOf(t *testing.T, answer string) string {
	t.Helper()
	var e struct{ Err string }
	if err := json.Unmarshal([]byte(answer), &e); err != nil || e.Err == "" {
		t.Fatalf("answer %s has no Err: %v", answer, err)
	}
	return e.Err
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
		<-tick.C
	}
}

// methods are all calls, those with a body alone if so wanted.
func methods(withBody bool) []string {
	var all []string
	for path, rt := range routes {
		if !withBody || rt.always == nil {
			all = append(all, strings.TrimPrefix(path, "/"))
		}
	}
	slices.Sort(all)
	return all
}
