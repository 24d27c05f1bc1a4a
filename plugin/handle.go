package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/docker/go-plugins-helpers/sdk"
	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/driver"
)

// shortID is how much of an identifier is shown, as Docker does.
const shortID = 12

// panicError is a call that panicked; the stack is in the log.
type panicError struct{ value any }

func (e panicError) Error() string {
	return fmt.Sprintf("internal error: %v (the plugin's log has the details)", e.value)
}

// outcome is how a call ended.
type outcome struct {
	answer any
	err    error
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	// Also for bodies that nobody here reads: net/http takes them before it answers.
	if err := setReadDeadline(w, began.Add(s.config.limits.body)); err != nil {
		s.log.WithField("err", err).Debug("docker's socket")
		return
	}
	rt, known := routes[r.URL.Path]
	method := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case !known:
		s.write(w, http.StatusNotFound, network.NewErrorResponse(quote(method)+" is no call that this plugin knows"))
		return
	case r.Method != http.MethodPost:
		s.write(w, http.StatusMethodNotAllowed, network.NewErrorResponse(method+" is called by POST, not "+quote(r.Method)))
		return
	}
	a, out := s.call(w, r, method, rt)
	s.report(method, rt.query, a.granted(out.answer), time.Since(began), out.err)
	if out.err != nil {
		s.write(w, statusOf(out.err), network.NewErrorResponse(out.err.Error()))
		return
	}
	s.write(w, http.StatusOK, out.answer)
}

// call takes a call to its end, or until it may take no longer.
func (s *Server) call(w http.ResponseWriter, r *http.Request, method string, rt route) (about, outcome) {
	// Until the work begins, the call is dropped when its client goes or the server stops.
	asked, drop := context.WithCancelCause(s.stopping)
	defer drop(nil)
	defer context.AfterFunc(r.Context(), func() { drop(errGone) })()
	asked, cancel := context.WithTimeoutCause(asked, s.config.limits.call, errBusy)
	defer cancel()

	turns := s.turns
	if rt.always != nil {
		turns = s.asides
	}
	select {
	case turns <- struct{}{}:
	case <-asked.Done():
		return about{}, outcome{err: context.Cause(asked)}
	}
	a, do, err := s.understand(asked, w, r, rt)
	if err != nil {
		<-turns
		return a, outcome{err: err}
	}
	deadline, _ := asked.Deadline()
	ctx, stop := context.WithDeadline(s.life, deadline)
	return a, s.finish(ctx, method, a, func() (any, error) {
		defer func() { <-turns }()
		defer stop()
		return do(ctx)
	})
}

// understand reads and parses a request and waits until there is somebody to hand it to.
func (s *Server) understand(asked context.Context, w http.ResponseWriter, r *http.Request, rt route) (about, func(context.Context) (any, error), error) {
	if rt.always != nil {
		return about{}, func(ctx context.Context) (any, error) { return rt.always(ctx, s) }, nil
	}
	body, err := readBody(w, r, s.config.limits.body)
	if err != nil {
		return about{}, nil, err
	}
	a, do, err := rt.parse(body)
	if err != nil {
		return a, nil, err
	}
	backend, err := s.gate.backend(asked, s.config.limits.ready)
	if err != nil {
		return a, nil, err
	}
	if err := context.Cause(asked); err != nil {
		s.gate.release()
		return a, nil, err
	}
	return a, func(ctx context.Context) (any, error) {
		defer s.gate.release()
		return do(ctx, backend)
	}, nil
}

// finish does the work of a call in a goroutine of its own: work that does not stop when it is told to, for the kernel
// or a disk hangs, must not hang dockerd, too.
func (s *Server) finish(ctx context.Context, method string, a about, do func() (any, error)) outcome {
	began := time.Now()
	done, answered := make(chan outcome, 1), make(chan struct{})
	go func() {
		out := s.guard(method, a, do)
		done <- out
		select {
		case <-answered:
			s.fields(method, a, time.Since(began), out.err).Warn("call ended after it had been answered for taking too long")
		default:
		}
	}()
	select {
	case out := <-done:
		return out
	case <-ctx.Done():
	}
	timer := time.NewTimer(s.config.limits.grace)
	defer timer.Stop()
	select {
	case out := <-done:
		return out
	case <-timer.C:
		close(answered)
		return outcome{err: fmt.Errorf("still at work after %s: the kernel or the disk may hang", time.Since(began).Round(time.Millisecond))}
	}
}

// guard makes a panic the call's error and nobody else's.
func (s *Server) guard(method string, a about, do func() (any, error)) (out outcome) {
	began := time.Now()
	defer func() {
		if v := recover(); v != nil {
			out = outcome{err: panicError{v}}
			s.fields(method, a, time.Since(began), out.err).WithField("stack", string(debug.Stack())).Error("call panicked")
		}
	}()
	answer, err := do()
	return outcome{answer, err}
}

// statusOf is 400 for what the caller did wrong, 500 for all else. Docker shows the text of both alike.
func statusOf(err error) int {
	var bad invalidError
	if errors.As(err, &bad) || errors.Is(err, driver.ErrInvalid) {
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// write sends an answer.
func (s *Server) write(w http.ResponseWriter, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"Err":"internal error: the answer is not fit for JSON"}`)
		s.log.WithField("err", err).Error("an answer is not fit for JSON")
	}
	err = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerLimit))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.log.WithField("err", err).Debug("docker's socket")
	}
	w.Header().Set("Content-Type", sdk.DefaultContentTypeV1_1)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.log.WithField("err", err).Debug("docker's socket")
	}
}

// report writes the one line that the log has of a call.
func (s *Server) report(method string, query bool, a about, took time.Duration, err error) {
	entry := s.fields(method, a, took, err)
	switch {
	case err != nil:
		entry.Warn("call failed")
	case query:
		entry.Debug("call")
	default:
		entry.Info("call")
	}
}

func (s *Server) fields(method string, a about, took time.Duration, err error) *logrus.Entry {
	fields := logrus.Fields{"method": method, "took": took.Round(10 * time.Microsecond).String()}
	for key, value := range map[string]string{
		"network": short(a.network), "endpoint": short(a.endpoint), "pool": a.pool, "address": a.address,
	} {
		if value != "" {
			fields[key] = value
		}
	}
	if err != nil {
		fields["err"] = err.Error()
	}
	return s.log.WithFields(fields)
}

func short(id string) string { return id[:min(len(id), shortID)] }
