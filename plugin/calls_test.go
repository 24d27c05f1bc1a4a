package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAClientThatGoes: a call that has begun goes on, one that has not is dropped.
func TestAClientThatGoes(t *testing.T) {
	s, r := start(t, Config{}), &recorder{}
	conn := s.dial(t)
	request(t, conn, "NetworkDriver.CreateNetwork", aCreate)
	s.working(t, 1)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	s.working(t, 0)
	s.Ready(r.backend())

	release, ended := make(chan struct{}), make(chan error, 1)
	r.before = func(ctx context.Context, _ string) error {
		<-release
		ended <- ctx.Err()
		return nil
	}
	conn = s.dial(t)
	request(t, conn, "NetworkDriver.CreateNetwork", aCreate)
	s.working(t, 1)
	until(t, "the work", func() bool { return len(r.taken()) == 1 })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the work was told to stop: %v", err)
	}
	s.working(t, 0)
	if calls := r.taken(); len(calls) > 0 {
		t.Errorf("calls %q", calls)
	}
}

func (s *served) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func request(t *testing.T, conn net.Conn, method, body string) {
	t.Helper()
	if _, err := fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: plugin\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body); err != nil {
		t.Fatal(err)
	}
}

func TestSlowClients(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.body = 300 * time.Millisecond }))
	r := &recorder{}
	s.Ready(r.backend())

	conn := s.dial(t)
	if _, err := io.WriteString(conn, "POST /NetworkDriver.Leave HTTP/1.1\r\nHost: plugin\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "400 Bad Request") || !strings.Contains(string(answer), "did not arrive whole within 300ms") {
		t.Errorf("slow body: %v\n%s", err, answer)
	}
	conn = s.dial(t)
	if _, err := io.WriteString(conn, "POST /NetworkDriver.Leave HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("slow headers: %v", err)
	}
	// An idle connection is kept, longer than any of this: its end would cost a call its body.
	conn = s.dial(t)
	reader := bufio.NewReader(conn)
	for range 2 {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		request(t, conn, "NetworkDriver.Leave", aLeave)
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			t.Fatalf("%s %v", res.Status, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(600 * time.Millisecond)); err != nil { // twice the limit
			t.Fatal(err)
		}
		if _, err := reader.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("idle connection: %v", err)
		}
	}
}

func TestUnknownCalls(t *testing.T) {
	s, _ := startReady(t)
	status, answer := s.post(t, "NetworkDriver.Frobnicate", "{}")
	if got := errorOf(t, answer); status != 404 || got != `"NetworkDriver.Frobnicate" is no call that this plugin knows` {
		t.Errorf("%d %s", status, got)
	}
	res, err := s.client.Get("http://plugin/NetworkDriver.GetCapabilities")
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 405 {
		t.Errorf("GET: %s", res.Status)
	}
}

// TestManyCalls: all at once, of all kinds, with a bound on how many are at work.
func TestManyCalls(t *testing.T) {
	s, r := startReady(t)
	const clients, each = 200, 2
	var mu sync.Mutex
	now, most := 0, 0
	r.before = func(context.Context, string) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		defer func() {
			mu.Lock()
			now--
			mu.Unlock()
		}()
		return nil
	}
	bodies := map[string]string{
		"NetworkDriver.CreateNetwork": validNetwork, "NetworkDriver.CreateEndpoint": validEndpoint,
		"NetworkDriver.Join": aLeave, "NetworkDriver.Leave": aLeave,
		"IpamDriver.RequestPool": validPool, "IpamDriver.RequestAddress": validAddress, "IpamDriver.ReleaseAddress": validAddress,
		"NetworkDriver.GetCapabilities": "", "Carrick.Status": "",
	}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				for method, body := range bodies {
					if status, answer, err := s.try(method, body); err != nil || status != 200 {
						t.Errorf("%s: %d %s %v", method, status, answer, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if most > maxCalls+maxAsides {
		t.Errorf("%d calls were at work at once", most)
	}
	s.working(t, 0)
}

// TestCallsWaitTheirTurn: with every turn taken more calls wait, and Status is still told.
func TestCallsWaitTheirTurn(t *testing.T) {
	s, r := startReady(t)
	release := make(chan struct{})
	r.before = func(_ context.Context, call string) error {
		if call != "Status" {
			<-release
		}
		return nil
	}
	var replies []<-chan reply
	for range maxCalls + 10 {
		replies = append(replies, s.later("NetworkDriver.Leave", aLeave))
	}
	s.working(t, maxCalls)
	if status, answer := s.post(t, "Carrick.Status", ""); status != 200 {
		t.Errorf("status: %d %s", status, answer)
	}
	close(release)
	for _, from := range replies {
		if got := receive(t, from); got.status != 200 {
			t.Errorf("%d %s", got.status, got.text)
		}
	}
}

func TestTooManyCalls(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.call = 20 * time.Millisecond }))
	for range maxCalls {
		s.turns <- struct{}{}
	}
	status, answer := s.post(t, "NetworkDriver.Leave", aLeave)
	if got := errorOf(t, answer); status != 500 || got != errBusy.Error() {
		t.Errorf("%d %s", status, got)
	}
	for range maxCalls {
		<-s.turns
	}
}

// TestLog: one line for each call, with what it was about.
func TestLog(t *testing.T) {
	s, r := startReady(t)
	s.post(t, "NetworkDriver.GetCapabilities", "")
	s.post(t, "NetworkDriver.CreateEndpoint", validEndpoint)
	s.post(t, "IpamDriver.RequestAddress", validAddress)
	s.post(t, "IpamDriver.RequestPool", with(t, validPool, "Pool", ""))
	s.post(t, "NetworkDriver.Leave", "")
	r.before = func(context.Context, string) error { return errors.New("no\nquorum") }
	s.post(t, "NetworkDriver.DeleteNetwork", aCreate)
	lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	want := [][]string{
		{"level=debug msg=call", "method=NetworkDriver.GetCapabilities"},
		{"level=info msg=call", "method=NetworkDriver.CreateEndpoint", "network=7f3c9d2e8a41 ", "endpoint=c0ffee012345 ", `address="10.0.0.2/24 fd00::2/64"`, "took="},
		{"level=info msg=call", "method=IpamDriver.RequestAddress", `pool="local|10.0.0.0/24"`, "address=10.0.0.7/24"},
		{"level=info msg=call", "method=IpamDriver.RequestPool", `pool="local|10.0.0.0/24"`, "address=10.0.0.0/24"},
		{`level=warning msg="call failed"`, "method=NetworkDriver.Leave", `err="the request is empty`},
		{`level=warning msg="call failed"`, "method=NetworkDriver.DeleteNetwork", "network=7f3c9d2e8a41 ", `err="no\nquorum"`},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), s.log)
	}
	for i, parts := range want {
		for _, part := range parts {
			if !strings.Contains(lines[i]+" ", part) {
				t.Errorf("no %q in %q", part, lines[i])
			}
		}
	}
}
