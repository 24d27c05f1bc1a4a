package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// payload of a datagram, in bytes: RFC 2544's least frame without its headers, and what DNS and voice are like.
	payload = 64
	// warmUp precedes what is measured: the first packet resolves addresses and fills caches.
	warmUp = 100 * time.Millisecond
	// window is what a rate is counted over; the median of them is told, which somebody else at work for a while does not change.
	window = 20 * time.Millisecond
	// silence is how long after the last datagram a flood is over.
	silence = 300 * time.Millisecond
)

// measure repeats a transaction for the warm-up and then for d, or until there is something to tell.
func measure(d time.Duration, transaction func() error) (*Result, error) {
	took := make([]time.Duration, 0, 1<<17)
	var r rate
	began := time.Now()
	last := began
	for last.Sub(began) < warmUp+d || len(r.windows) == 0 {
		if err := transaction(); err != nil {
			return nil, err
		}
		now := time.Now()
		if last.Sub(began) >= warmUp {
			took = append(took, now.Sub(last))
			r.count(now)
		}
		last = now
	}
	slices.Sort(took)
	perSecond, err := r.median()
	if err != nil {
		return nil, err
	}
	at := func(part float64) float64 { return float64(took[int(part*float64(len(took)-1))].Nanoseconds()) / 1000 }
	return &Result{Rate: perSecond, P50: at(0.5), P99: at(0.99)}, nil
}

// A rate counts what happens, window by window.
type rate struct {
	began   time.Time // of the window
	n       int       // in it so far
	windows []float64 // rates a second of those that are over
}

// count counts what has ended now. The first one opens the first window.
func (r *rate) count(now time.Time) {
	if r.began.IsZero() {
		r.began = now
		return
	}
	r.n++
	if took := now.Sub(r.began); took >= window {
		r.windows = append(r.windows, float64(r.n)/took.Seconds())
		r.began, r.n = now, 0
	}
}

func (r *rate) median() (float64, error) {
	if len(r.windows) == 0 {
		return 0, fmt.Errorf("nothing went on for %s", window)
	}
	slices.Sort(r.windows)
	return r.windows[len(r.windows)/2], nil
}

func exchange(conn int, b []byte) error {
	if _, err := unix.Write(conn, b); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	n, err := unix.Read(conn, b)
	if err == nil && n == 0 {
		err = errors.New("the other end has closed")
	}
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

func runRR(addr netip.AddrPort, d time.Duration) (*Result, error) {
	conn, err := connect(addr, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(conn)
	b := make([]byte, 1)
	return measure(d, func() error { return exchange(conn, b) })
}

func serveRR(socket int) (*Result, error) {
	b := make([]byte, 1)
	for {
		conn, err := accept(socket)
		if err != nil {
			return nil, err
		}
		for {
			if n, err := unix.Read(conn, b); n != 1 || err != nil {
				break
			}
			if _, err := unix.Write(conn, b); err != nil {
				break
			}
		}
		unix.Close(conn)
	}
}

// runCRR waits for the server to close first: it is the server's port that rests then (TIME-WAIT, RFC 9293 section 3.6),
// and the client does not run out of ports.
func runCRR(addr netip.AddrPort, d time.Duration) (*Result, error) {
	b := make([]byte, 1)
	return measure(d, func() error {
		conn, err := connect(addr, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer unix.Close(conn)
		if err := exchange(conn, b); err != nil {
			return err
		}
		if n, err := unix.Read(conn, b); n != 0 || err != nil {
			return fmt.Errorf("the server has not closed: %d bytes, %w", n, err)
		}
		return nil
	})
}

func serveCRR(socket int) (*Result, error) {
	b := make([]byte, 1)
	for {
		conn, err := accept(socket)
		if err != nil {
			return nil, err
		}
		if n, err := unix.Read(conn, b); n == 1 && err == nil {
			_, _ = unix.Write(conn, b) // the client says what it misses
		}
		unix.Close(conn)
	}
}

// runUDP sends as fast as it can. That the other end's buffer is full, or nobody listens any more, is not its business.
func runUDP(addr netip.AddrPort, d time.Duration) (*Result, error) {
	conn, err := connect(addr, unix.SOCK_DGRAM)
	if err != nil {
		return nil, err
	}
	defer unix.Close(conn)
	b := make([]byte, payload)
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 16 { // between two looks at the clock
			_, err := unix.Write(conn, b)
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
				return nil, fmt.Errorf("send: %w", err)
			}
		}
	}
	return nil, nil
}

// serveUDP counts what arrives, until nothing does. It asks again and again instead of sleeping: waking it would be half of
// what the sender's processor does, and is no part of the path.
func serveUDP(socket int) (*Result, error) {
	b := make([]byte, 2*payload)
	if _, err := unix.Read(socket, b); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	var r rate
	last := time.Now()
	for now := last; now.Sub(last) < silence; now = time.Now() {
		_, _, err := unix.Recvfrom(socket, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		last = now
		r.count(now)
	}
	perSecond, err := r.median()
	return &Result{Rate: perSecond}, err
}
