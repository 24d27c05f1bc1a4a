package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/sirupsen/logrus"
)

// sealed is memberlist's transport with what memberlist gets and gives sealed: nothing reaches its decoders that was not
// sent by a node that this one knows, to this one, once, and is well formed. Streams are for the transport below to protect.
type sealed struct {
	memberlist.NodeAwareTransport
	sealer  *sealer
	lives   lives
	log     *logrus.Entry
	packets chan *memberlist.Packet
	openers map[uint64]*opener // by life; for receive alone
}

// lives knows the other nodes.
type lives interface {
	lifeOf(id string) (uint64, bool)
	knowsLife(life uint64) bool
}

func newSealed(inner memberlist.NodeAwareTransport, s *sealer, l lives, log *logrus.Entry) *sealed {
	return &sealed{
		NodeAwareTransport: inner, sealer: s, lives: l, log: log,
		packets: make(chan *memberlist.Packet), openers: map[uint64]*opener{},
	}
}

// PacketCh is of memberlist.Transport.
func (s *sealed) PacketCh() <-chan *memberlist.Packet { return s.packets }

// WriteTo is of memberlist.Transport. Without a name there is nobody to seal it for.
func (s *sealed) WriteTo(b []byte, addr string) (time.Time, error) {
	return s.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress is of memberlist.NodeAwareTransport. To somebody unknown the datagram is lost, as datagrams may be.
func (s *sealed) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	life, ok := s.lives.lifeOf(a.Name)
	if !ok {
		return time.Now(), nil
	}
	return s.NodeAwareTransport.WriteToAddress(s.sealer.seal(life, b), a)
}

// receive opens what comes in until ctx ends.
func (s *sealed) receive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.NodeAwareTransport.PacketCh():
			message, err := s.open(p.Buf)
			if err == nil {
				err = checkPacket(message)
			}
			if err != nil { // anybody can send as many as he likes: it must cost little
				if s.log.Logger.IsLevelEnabled(logrus.TraceLevel) {
					s.log.WithError(err).WithField("from", p.From).Trace("a datagram was ignored")
				}
				continue
			}
			p.Buf = message
			select {
			case s.packets <- p:
			case <-ctx.Done():
				return
			}
		}
	}
}

// open does no arithmetic for strangers.
func (s *sealed) open(packet []byte) ([]byte, error) {
	life, err := senderOf(packet)
	if err != nil {
		return nil, err
	}
	o := s.openers[life]
	if o == nil {
		if !s.lives.knowsLife(life) {
			return nil, errSealed
		}
		for old := range s.openers { // of processes that have ended
			if !s.lives.knowsLife(old) {
				delete(s.openers, old)
			}
		}
		if o, err = newOpener(s.sealer.key, life); err != nil {
			return nil, err
		}
		s.openers[life] = o
	}
	return o.open(s.sealer.life, packet)
}
