package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// Limits of a call. Together they stay below 30 s, the time that `docker plugin enable` gives an attempt by default: an
// attempt that takes longer is repeated with an empty body. After a restart dockerd has no limit of its own.
const (
	bodyLimit   = 3 * time.Second  // for headers and for the body to arrive
	readyLimit  = 10 * time.Second // for the plugin to be ready
	callLimit   = 22 * time.Second // from the body's arrival until the work is told to stop
	graceLimit  = 2 * time.Second  // for work that was told to stop; then the call is answered without it
	answerLimit = 3 * time.Second  // for the answer to be taken
	// drainLimit is how long calls may go on at the end: dockerd kills a plugin 10 s after SIGTERM.
	drainLimit = 7 * time.Second
)

const (
	// maxCalls is how many calls are at work at a time; more wait their turn. Each may hold a body of maxBody.
	maxCalls = 128
	// maxAsides is the same for the calls that do not wait for the backend.
	maxAsides = 16
	// maxHeader bounds a request's headers, in bytes; Docker's have some 200.
	maxHeader = 16 << 10
)

// Config is what a Server is made of.
type Config struct {
	Logger  *logrus.Logger // nil discards
	Version string         // for the command line
	// LocalSpace and GlobalSpace are the names of IPAM's address spaces. They are told before there is a backend, for
	// without an answer the driver would not be registered, and nobody would see why it does not work.
	LocalSpace, GlobalSpace string
	// RequestReplay asks the engine to repeat, when it starts, the pools and addresses that it knows.
	RequestReplay bool
	// RequestMAC asks the engine to say, and choose, the MAC of an endpoint whose address it requests: it tells such
	// a request from a replayed one, and its repetition from another endpoint's.
	RequestMAC bool
	// limits are those above if they are zero; tests shorten them.
	limits limits
}

type limits struct{ body, ready, call, grace, drain time.Duration }

// Server answers Docker's calls, and those of the command line.
type Server struct {
	config Config
	log    *logrus.Logger
	began  time.Time
	gate   *gate
	turns  chan struct{} // one per call at work, also those already answered for taking too long
	asides chan struct{} // the same for calls that are answered in any state: they never wait for the others

	// life ends when the server gives up on calls at work, stopping when it takes no new ones.
	life     context.Context
	end      context.CancelFunc
	stopping context.Context
	stop     context.CancelCauseFunc
}

// New returns a Server that waits to be served.
func New(config Config) *Server {
	if config.Logger == nil {
		config.Logger = logrus.New()
		config.Logger.SetOutput(io.Discard)
	}
	if config.limits == (limits{}) {
		config.limits = limits{bodyLimit, readyLimit, callLimit, graceLimit, drainLimit}
	}
	s := &Server{
		config: config, log: config.Logger, began: time.Now(), gate: newGate(),
		turns: make(chan struct{}, maxCalls), asides: make(chan struct{}, maxAsides),
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.stopping, s.stop = context.WithCancelCause(s.life)
	return s
}

// Waiting says what the server will be ready after. It is told to whoever waits too long for it.
func (s *Server) Waiting(what string) { s.gate.enter(phase{name: stateStarting, waiting: what}) }

// Ready hands all calls, those that wait as well, to the backend.
func (s *Server) Ready(b Backend) { s.gate.enter(phase{name: stateReady, backend: b}) }

// Withdraw takes the backend back: new calls wait for what is said, as by Waiting. It returns when no call is at work in
// the backend any more, or with an error when ctx ends before.
func (s *Server) Withdraw(ctx context.Context, what string) error {
	s.Waiting(what)
	return s.gate.free(ctx)
}

// Refuse answers every call with the reason, until Ready or Waiting. The driver stays registered, so that its user sees
// the reason where he looks: at `docker network create`. A plugin that exits would be disabled instead.
func (s *Server) Refuse(reason error) { s.gate.enter(phase{name: stateRefusing, reason: reason}) }

// Serve answers calls until ctx ends or the listener fails. Then it takes no more calls and waits for those at work,
// which are told to stop when they take too long. It may be called once. The error is nil if ctx ended and every call
// came to its end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.config.limits.body,
		// An idle connection is never closed from this side: dockerd keeps its connections, and a call that meets the
		// closing of one fails, because its repetition has an empty body.
		IdleTimeout:    -1,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       log.New(httpErrors{s.log}, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serving Docker's calls: %w", err)
		served <- err // for the end
	case <-ctx.Done():
	}
	s.stop(errStopping)
	err = errors.Join(err, s.drain(server))
	<-served
	return err
}

// drain waits for the calls at work, and tells them to stop if they take too long.
func (s *Server) drain(server *http.Server) error {
	ctx, cancel := context.WithTimeout(s.life, s.config.limits.drain)
	defer cancel()
	err := server.Shutdown(ctx) // fails only for lack of time
	if err == nil && s.idle(ctx) {
		s.end()
		return nil
	}
	s.end()
	last, cancel := context.WithTimeout(context.Background(), s.config.limits.grace)
	defer cancel()
	if !s.idle(last) {
		return errors.Join(fmt.Errorf("calls are still at work %s after they were told to stop", s.config.limits.grace), server.Close())
	}
	return server.Close()
}

// idle waits until no call is at work, and then keeps every turn, so that none begins.
func (s *Server) idle(ctx context.Context) bool {
	for _, turns := range []chan struct{}{s.turns, s.asides} {
		var kept int
		for ; kept < cap(turns); kept++ {
			select {
			case turns <- struct{}{}:
				continue
			case <-ctx.Done():
			}
			for ; kept > 0; kept-- { // for another try
				<-turns
			}
			return false
		}
	}
	return true
}

// httpErrors passes on what net/http has to say: clients that speak no HTTP, or too slowly.
type httpErrors struct{ log *logrus.Logger }

func (e httpErrors) Write(p []byte) (int, error) {
	e.log.WithField("err", strings.TrimSpace(string(p))).Debug("docker's socket")
	return len(p), nil
}
