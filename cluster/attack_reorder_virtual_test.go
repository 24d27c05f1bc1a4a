//go:build !race

// Virtual time and the race detector together can crash Go 1.26 (golang/go#76691).

package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// shuffled delivers the datagrams of 20 ms at a time, the last first, each of them twice.
type shuffled struct {
	memberlist.NodeAwareTransport
	out  chan *memberlist.Packet
	stop context.CancelFunc
}

func shuffle(inner memberlist.NodeAwareTransport) *shuffled {
	ctx, cancel := context.WithCancel(context.Background())
	s := &shuffled{NodeAwareTransport: inner, out: make(chan *memberlist.Packet, 4096), stop: cancel}
	go func() {
		for pause(ctx, 20*time.Millisecond) {
			var held []*memberlist.Packet
			for in := inner.PacketCh(); len(in) > 0; {
				held = append(held, <-in)
			}
			for _, p := range slices.Backward(held) {
				twice := *p
				twice.Buf = slices.Clone(p.Buf)
				s.out <- p
				s.out <- &twice
			}
		}
	}()
	return s
}

func (s *shuffled) PacketCh() <-chan *memberlist.Packet { return s.out }

func (s *shuffled) Shutdown() error {
	s.stop()
	return s.NodeAwareTransport.Shutdown()
}

// A whole cluster whose datagrams all arrive in the wrong order, and twice, while nodes change what they say: everybody
// comes to know what each has said last, by hints alone, and nobody is taken for dead.
func TestVirtualAttackReorderedDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newMemCluster(t, 10, func(cfg *gossipConfig) {
			open := cfg.transport
			cfg.antiEntropy = -1
			cfg.transport = func() (memberlist.NodeAwareTransport, error) {
				inner, err := open()
				if err != nil {
					return nil, err
				}
				return shuffle(inner), nil
			}
		})
		defer c.close()
		c.until(time.Minute, "formed", c.formed)
		c.attend("blue")
		for round := range 50 {
			for _, n := range c.nodes {
				n.put("blue", "address", fmt.Sprint(round))
				var value []byte
				if round%2 == 0 {
					value = []byte("x")
				}
				if err := n.gossip.publish("blue", "comes and goes", value); err != nil {
					t.Fatal(err)
				}
			}
			pause(t.Context(), 7*time.Millisecond)
		}
		took := c.until(time.Minute, "what was said last", func() bool {
			for _, n := range c.nodes {
				for _, row := range n.gossip.remote("blue") {
					if string(row.Records["address"]) != "49" || len(row.Records) != 1 {
						return false
					}
				}
				if len(n.gossip.remote("blue")) != len(c.nodes)-1 {
					t.Fatalf("%s has lost a row", n.id)
				}
			}
			return true
		})
		t.Logf("500 changes on 10 nodes, with all datagrams reversed and doubled: equal after %v", took)
	})
}
