package cluster

import (
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// synTimeout and minTimeout are TCP's: RFC 6298 section 2.1, and Linux's TCP_RTO_MIN.
	synTimeout = time.Second
	minTimeout = 200 * time.Millisecond
	maxTimeout = 2 * time.Minute // TCP_RTO_MAX
	// streamWindow is how much may be on its way, or not yet read: a quarter of Linux's net.ipv4.tcp_wmem.
	streamWindow = 1 << 20
	// segmentSize is what one segment carries on Ethernet.
	segmentSize = 1448
	// maxCarried at once: other streams of the host have their turn in between.
	maxCarried = 64 << 10
)

// memStream is one end of a stream. What is sent through a cut is tried again after ever longer times, as by TCP.
type memStream struct {
	in, out       *half
	local, remote net.Addr
}

// half is one direction.
type half struct {
	net      *memNet
	from, to netip.Addr

	mu       sync.Mutex
	changed  chan struct{} // closed when something below has changed
	segments []carried
	size     int       // of what is in them
	last     time.Time // when the newest of them arrives
	shut     bool      // by the sender
	gone     bool      // is the reader
	retry    time.Time // while there is a cut: when it is looked again
	again    time.Duration
	deadline [2]time.Time // of the reader, of the writer
}

// carried is on its way, or waits to be read. An empty one is the end of the stream.
type carried struct {
	data []byte
	at   time.Time
}

func (n *memNet) stream(a, b netip.Addr) (near, far *memStream) {
	there := &half{net: n, from: a, to: b, changed: make(chan struct{})}
	back := &half{net: n, from: b, to: a, changed: make(chan struct{})}
	at := func(addr netip.Addr) net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)) }
	return &memStream{in: back, out: there, local: at(a), remote: at(b)}, &memStream{in: there, out: back, local: at(b), remote: at(a)}
}

// do changes something and wakes whoever waits for it.
func (h *half) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait returns when something has changed, or at a time that is not zero; false: the deadline has passed.
func (h *half) wait(changed <-chan struct{}, at, deadline time.Time) bool {
	if !deadline.IsZero() && (at.IsZero() || deadline.Before(at)) {
		at = deadline
	}
	if at.IsZero() {
		<-changed
		return true
	}
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
	return deadline.IsZero() || time.Now().Before(deadline)
}

func (s *memStream) Read(b []byte) (int, error) {
	h := s.in
	for {
		h.mu.Lock()
		n, at, err := h.take(b)
		changed, deadline := h.changed, h.deadline[0]
		h.mu.Unlock()
		if n > 0 {
			h.do(func() {}) // there is room again
		}
		if n > 0 || err != nil {
			return n, err
		}
		if !h.wait(changed, at, deadline) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// take returns what has arrived, or when something may have. The caller holds mu.
func (h *half) take(b []byte) (int, time.Time, error) {
	now := time.Now()
	switch {
	case h.gone:
		return 0, now, net.ErrClosed
	case len(h.segments) == 0:
		return 0, time.Time{}, nil
	case now.Before(h.segments[0].at):
		return 0, h.segments[0].at, nil
	case now.Before(h.retry):
		return 0, h.retry, nil
	case !h.net.whole(h.from, h.to):
		h.again = min(max(2*h.again, minTimeout), maxTimeout)
		h.retry = now.Add(h.again)
		return 0, h.retry, nil
	}
	h.again = 0
	first := &h.segments[0]
	if len(first.data) == 0 {
		return 0, now, io.EOF
	}
	n := copy(b, first.data)
	h.size -= n
	if first.data = first.data[n:]; len(first.data) == 0 {
		h.segments = h.segments[1:]
	}
	return n, now, nil
}

func (s *memStream) Write(b []byte) (int, error) {
	h := s.out
	written := 0
	for written < len(b) {
		h.mu.Lock()
		changed, deadline, shut, full := h.changed, h.deadline[1], h.shut, h.size >= streamWindow
		reset := h.gone && h.net.whole(h.from, h.to)
		h.mu.Unlock()
		switch {
		case shut:
			return written, net.ErrClosed
		case reset:
			return written, syscall.EPIPE
		case full:
			if !h.wait(changed, time.Time{}, deadline) {
				return written, os.ErrDeadlineExceeded
			}
			continue
		}
		piece := b[written:min(len(b), written+maxCarried)]
		h.do(func() { h.send(append([]byte{}, piece...)) })
		written += len(piece)
	}
	return written, nil
}

// send puts a piece on its way. Where segments are lost, the throughput is that of Mathis et al. 1997, a segment per
// round trip and the root of the loss; the last one of a flight is noticed by a timeout only. The caller holds mu.
func (h *half) send(piece []byte) {
	n := h.net
	n.mu.Lock()
	w := n.wire
	at := n.carry(h.from, h.to, len(piece))
	n.mu.Unlock()
	if w.loss > 0 {
		rate := segmentSize / w.rtt.Seconds() * math.Sqrt(1.5/w.loss)
		if slow := h.last.Add(time.Duration(float64(len(piece)) / rate * float64(time.Second))); at.Before(slow) {
			at = slow
		}
		at = at.Add(w.lost(1, minTimeout))
		if len(piece) > segmentSize && rand.Float64() < w.loss {
			at = at.Add(w.rtt)
		}
	}
	if at.Before(h.last) {
		at = h.last
	}
	h.last = at
	h.segments = append(h.segments, carried{piece, at})
	h.size += len(piece)
}

func (s *memStream) Close() error {
	s.out.do(func() {
		if !s.out.shut {
			s.out.shut = true
			s.out.send(nil)
		}
	})
	s.in.do(func() { s.in.gone, s.in.segments, s.in.size = true, nil, 0 })
	return nil
}

func (s *memStream) LocalAddr() net.Addr  { return s.local }
func (s *memStream) RemoteAddr() net.Addr { return s.remote }

func (s *memStream) SetReadDeadline(at time.Time) error {
	s.in.do(func() { s.in.deadline[0] = at })
	return nil
}

func (s *memStream) SetWriteDeadline(at time.Time) error {
	s.out.do(func() { s.out.deadline[1] = at })
	return nil
}

func (s *memStream) SetDeadline(at time.Time) error {
	s.SetReadDeadline(at)
	return s.SetWriteDeadline(at)
}
