package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxDatagram is what one UDP datagram may hold: ours are at most 1,400 bytes, and a longer one is cut, which the seal shows.
const maxDatagram = 2048

// sockets is how memberlist reaches the others: UDP, and TLS with both ends' identity where it wants a stream. Of a stranger
// it gets neither.
type sockets struct {
	udp     *net.UDPConn
	tls     *transport
	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context // of the life of the sockets: the methods that memberlist calls have none
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// openSockets fails when the UDP port cannot be had. The TCP port is tried until it can.
func openSockets(ctx context.Context, t *transport) (*sockets, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(t.local))
	if err != nil {
		return nil, err
	}
	// Hints come in bursts. What the kernel does not grant it cuts to its limit (socket(7), net.core.rmem_max).
	if err := udp.SetReadBuffer(2 << 20); err != nil {
		udp.Close()
		return nil, err
	}
	s := &sockets{udp: udp, tls: t, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	t.handle(alpnGossip, s.serve)
	s.wg.Go(s.read)
	s.wg.Go(func() { t.run(s.ctx) }) // its errors are alarms
	return s, nil
}

func (s *sockets) read() {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if s.ctx.Err() != nil || !pause(s.ctx, time.Second) { // out of memory, or the like
				return
			}
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte{}, buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}
		select {
		case s.packets <- p:
		case <-s.ctx.Done():
			return
		}
	}
}

// serve hands a stream to memberlist, and returns when memberlist has closed it.
func (s *sockets) serve(conn *tls.Conn, _ string) {
	hand(s.ctx, conn, s.streams)
}

// FinalAdvertiseAddr is of memberlist.Transport.
func (s *sockets) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return s.tls.local.Addr().AsSlice(), int(s.tls.local.Port()), nil
}

// WriteTo is of memberlist.Transport.
func (s *sockets) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = s.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress is of memberlist.NodeAwareTransport.
func (s *sockets) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return s.WriteTo(b, a.Addr)
}

// PacketCh is of memberlist.Transport.
func (s *sockets) PacketCh() <-chan *memberlist.Packet { return s.packets }

// StreamCh is of memberlist.Transport.
func (s *sockets) StreamCh() <-chan net.Conn { return s.streams }

// DialTimeout is of memberlist.Transport.
func (s *sockets) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return s.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout is of memberlist.NodeAwareTransport. Where memberlist means a certain node, that one must answer.
func (s *sockets) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	conn, id, err := s.tls.dial(ctx, to, alpnGossip)
	if err != nil {
		return nil, err
	}
	if a.Name != "" && a.Name != id {
		conn.Close()
		return nil, fmt.Errorf("%s: is node %s, not %s", to, id, a.Name)
	}
	return conn, nil
}

// Shutdown is of memberlist.Transport. Nothing runs after it.
func (s *sockets) Shutdown() error {
	s.cancel()
	err := s.udp.Close()
	s.wg.Wait()
	return err
}
