package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carricknet/carrick/driver"
)

const (
	aCreate = `{"NetworkID":"` + anID + `"}`
	aLeave  = `{"NetworkID":"` + anID + `","EndpointID":"` + anEndpoint + `"}`
)

// withLimits sets limits for tests of what happens when a limit is reached; the others are as generous as in life.
func withLimits(change func(*limits)) Config {
	l := limits{bodyLimit, patience, patience, patience, patience}
	change(&l)
	return Config{limits: l}
}

// reply is what a call in the background got.
type reply struct {
	status int
	text   string
	err    error
}

func (s *served) later(method, body string) <-chan reply {
	got := make(chan reply, 1)
	go func() {
		status, answer, err := s.try(method, body)
		got <- reply{status, answer, err}
	}()
	return got
}

func receive(t *testing.T, from <-chan reply) reply {
	t.Helper()
	select {
	case r := <-from:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r
	case <-time.After(patience):
		t.Fatalf("no answer after %s", patience)
		return reply{}
	}
}

// working waits until so many calls have begun.
func (s *served) working(t *testing.T, calls int) {
	t.Helper()
	until(t, fmt.Sprintf("%d calls to begin", calls), func() bool { return len(s.turns) == calls })
}

func TestBackendIsTakenBackWhenNoCallIsAtWorkInIt(t *testing.T) {
	going := make(chan struct{})
	first := &recorder{before: func(context.Context, string) error { <-going; return nil }}
	s := start(t, Config{})
	s.Ready(first.backend())
	slow := s.later("NetworkDriver.CreateNetwork", aCreate)
	until(t, "the call to reach the backend", func() bool { return len(first.taken()) > 0 })
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Withdraw(ended, "another"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a call at work: %v", err)
	}
	withdrawn := make(chan error, 1)
	go func() { withdrawn <- s.Withdraw(t.Context(), "another") }()
	late := s.later("NetworkDriver.CreateNetwork", aCreate)
	s.working(t, 2)
	close(going)
	if err := <-withdrawn; err != nil {
		t.Error(err)
	}
	if got := receive(t, slow); got.status != 200 {
		t.Errorf("the call that was at work: %d %s", got.status, got.text)
	}
	if calls := first.taken(); len(calls) > 0 {
		t.Errorf("asked after it was taken back: %q", calls)
	}
	second := &recorder{}
	s.Ready(second.backend())
	if got := receive(t, late); got.status != 200 || len(second.taken()) != 1 {
		t.Errorf("the call that waited for another backend: %d %s", got.status, got.text)
	}
}

func TestCallsWaitUntilReady(t *testing.T) {
	s, r := start(t, Config{}), &recorder{}
	early := s.later("NetworkDriver.CreateNetwork", aCreate)
	s.working(t, 1)
	s.Waiting("the records on the disk")
	if status, answer := s.post(t, "NetworkDriver.GetCapabilities", ""); status != 200 {
		t.Errorf("GetCapabilities has to be answered at once: %d %s", status, answer)
	}
	if calls := r.taken(); len(calls) > 0 {
		t.Errorf("asked before it was ready: %q", calls)
	}
	s.Ready(r.backend())
	if got := receive(t, early); got.status != 200 {
		t.Errorf("%d %s", got.status, got.text)
	}
	if calls := r.taken(); len(calls) != 1 {
		t.Errorf("calls %q", calls)
	}
}

func TestCallsSayWhatTheyWaitedFor(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.ready = 20 * time.Millisecond }))
	s.Waiting("the records on the disk")
	status, answer := s.post(t, "IpamDriver.RequestPool", validPool)
	if got := errorOf(t, answer); status != 500 || got != "the plugin is not ready: waited 20ms for the records on the disk" {
		t.Errorf("%d %s", status, got)
	}
}

func TestBadSettingsAreTheAnswerToEveryCall(t *testing.T) {
	s := start(t, Config{})
	waiting := s.later("NetworkDriver.CreateNetwork", aCreate)
	s.working(t, 1)
	s.Refuse(errors.New(`SECRET "abc" is too short`))
	want := `the plugin cannot work: SECRET "abc" is too short`
	if got := receive(t, waiting); got.status != 500 || errorOf(t, got.text) != want {
		t.Errorf("%d %s", got.status, got.text)
	}
	for _, method := range []string{"NetworkDriver.GwAllocCheck", "Carrick.Networks", "NetworkDriver.FreeNetwork"} {
		status, answer := s.post(t, method, aCreate)
		if got := errorOf(t, answer); status != 500 || got != want {
			t.Errorf("%s: %d %s", method, status, got)
		}
	}
	for method, want := range map[string]string{
		"NetworkDriver.GetCapabilities":      `{"Scope":"local","ConnectivityScope":"global","GwAllocChecker":true}`,
		"IpamDriver.GetCapabilities":         `{"RequiresMACAddress":false,"RequiresRequestReplay":false}`,
		"IpamDriver.GetDefaultAddressSpaces": `{"LocalDefaultAddressSpace":"local","GlobalDefaultAddressSpace":"global"}`,
	} {
		if status, answer := s.post(t, method, ""); status != 200 || answer != want {
			t.Errorf("%s: %d %s", method, status, answer)
		}
	}
	// The reason may go away.
	r := &recorder{}
	s.Ready(r.backend())
	if status, answer := s.post(t, "NetworkDriver.CreateNetwork", aCreate); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
}

func TestStatusIsToldInEveryState(t *testing.T) {
	s, r := start(t, Config{Version: "1.2.3"}), &recorder{}
	want := func(text string) {
		t.Helper()
		s.began = time.Now()
		if status, answer := s.post(t, "Carrick.Status", "{}"); status != 200 || answer != text {
			t.Errorf("%d %s\nwant %s", status, answer, text)
		}
	}
	want(`{"state":"starting","version":"1.2.3","uptime":0,"waiting":"the plugin's start","alarms":[]}`)
	s.Refuse(errors.New("SECRET is too short"))
	want(`{"state":"refusing","version":"1.2.3","uptime":0,"reason":"SECRET is too short","alarms":[]}`)
	b := r.backend()
	b.Alarms = func() []string { return []string{"the store was damaged"} }
	s.Ready(b)
	want(`{"state":"ready","version":"1.2.3","uptime":0,"alarms":["the store was damaged"],"cluster":{"leader":"host-a"}}`)
	r.before = func(context.Context, string) error { return errors.New("no answer") }
	want(`{"state":"ready","version":"1.2.3","uptime":0,"alarms":["the store was damaged","the cluster's state cannot be told: no answer"]}`)
}

func TestErrorsOfTheBackend(t *testing.T) {
	s, r := startReady(t)
	for _, tt := range []struct {
		err    error
		status int
	}{
		{errors.New("network blue: no quorum"), 500},
		{fmt.Errorf("network blue: %w: option mut: allowed are mtu, mode", driver.ErrInvalid), 400},
	} {
		r.before = func(context.Context, string) error { return tt.err }
		for _, method := range methods(true) {
			if strings.Contains(method, "ExternalConnectivity") || strings.Contains(method, "Discover") ||
				strings.HasSuffix(method, "AllocateNetwork") || strings.HasSuffix(method, "FreeNetwork") {
				continue // these ask nothing of the backend
			}
			body := with(t, with(t, with(t, validEndpoint, "PoolID", "p"), "Address", "10.0.0.2"), "AddressSpace", "local")
			status, answer := s.post(t, method, with(t, with(t, body, "node", "host-b"), "network", "blue"))
			if got := errorOf(t, answer); status != tt.status || got != tt.err.Error() {
				t.Errorf("%s: %d %s", method, status, got)
			}
		}
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	s, r := startReady(t)
	r.before = func(context.Context, string) error { panic("index out of range") }
	status, answer := s.post(t, "NetworkDriver.CreateNetwork", aCreate)
	if got := errorOf(t, answer); status != 500 || got != "internal error: index out of range (the plugin's log has the details)" {
		t.Errorf("%d %s", status, got)
	}
	for _, part := range []string{"call panicked", "stack=", "recorder", "network=7f3c9d2e8a41"} {
		if !strings.Contains(s.log.String(), part) {
			t.Errorf("no %q in the log:\n%s", part, s.log)
		}
	}
	r.before = nil
	if status, answer := s.post(t, "NetworkDriver.CreateNetwork", aCreate); status != 200 {
		t.Errorf("after the panic: %d %s", status, answer)
	}
}

// TestWorkThatHangsDoesNotHangDocker: dockerd has no limit of its own after a restart.
func TestWorkThatHangsDoesNotHangDocker(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.call, l.grace = 500*time.Millisecond, 50*time.Millisecond }))
	r, release := &recorder{}, make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	told := make(chan error, 1)
	r.before = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		told <- context.Cause(ctx)
		<-release // deaf to it
		return nil
	}
	s.Ready(r.backend())
	status, answer := s.post(t, "NetworkDriver.Leave", aLeave)
	if got := errorOf(t, answer); status != 500 || !strings.HasPrefix(got, "still at work after ") {
		t.Errorf("%d %s", status, got)
	}
	if err := <-told; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the work was told %v", err)
	}
	if len(s.turns) != 1 {
		t.Error("the call is at work and has no turn")
	}
	release <- struct{}{}
	s.working(t, 0)
	until(t, "the log", func() bool { return strings.Contains(s.log.String(), "call ended after it had been answered") })
}

// TestTheEnd: calls at work are waited for, those that wait for the plugin are not.
func TestTheEnd(t *testing.T) {
	s, r := startReady(t)
	release := make(chan struct{})
	r.before = func(context.Context, string) error {
		<-release
		return nil
	}
	at := s.later("NetworkDriver.Leave", aLeave)
	until(t, "the work", func() bool { return len(r.taken()) == 1 })
	s.Waiting("something else")
	waiting := s.later("NetworkDriver.Leave", aLeave)
	s.working(t, 2)
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	if got := receive(t, waiting); got.status != 500 || errorOf(t, got.text) != errStopping.Error() {
		t.Errorf("%d %s", got.status, got.text)
	}
	select {
	case err := <-ended:
		t.Errorf("Serve ended with a call at work: %v", err)
	default:
	}
	close(release)
	if got := receive(t, at); got.status != 200 {
		t.Errorf("%d %s", got.status, got.text)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", s.path); err == nil {
		t.Error("the socket still answers")
	}
}

// TestTheEndIsBounded: dockerd kills a plugin ten seconds after it told it to end.
func TestTheEndIsBounded(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.drain = 20 * time.Millisecond }))
	r := &recorder{}
	r.before = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	s.Ready(r.backend())
	at := s.later("NetworkDriver.Leave", aLeave)
	until(t, "the work", func() bool { return len(r.taken()) == 1 })
	if err := s.stop(); err != nil {
		t.Errorf("work that stops when it is told to: %v", err)
	}
	<-at
}

func TestTheEndLeavesDeafWorkBehind(t *testing.T) {
	s := start(t, withLimits(func(l *limits) { l.drain, l.grace = 20*time.Millisecond, 20*time.Millisecond }))
	r, release, ended := &recorder{}, make(chan struct{}), make(chan struct{})
	r.before = func(context.Context, string) error {
		<-release
		close(ended)
		return nil
	}
	s.Ready(r.backend())
	at := s.later("NetworkDriver.Leave", aLeave)
	until(t, "the work", func() bool { return len(r.taken()) == 1 })
	if err := s.stop(); err == nil || err.Error() != "calls are still at work 20ms after they were told to stop" {
		t.Errorf("%v", err)
	}
	<-at
	close(release)
	<-ended
}
