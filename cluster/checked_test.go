package cluster

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// pushPull is the message of a push/pull, with as many nodes as it says unless there are fewer.
func pushPull(says, userState uint64, nodes int) []byte {
	b := forge(msgPushPull, field{"Nodes", says}, field{"UserStateLen", userState}, field{"Join", true})
	for range nodes {
		b = append(b, forge(0, field{"Name", "n"}, field{"Addr", []byte{127, 0, 0, 1}}, field{"Port", uint64(1)}, field{"Meta", []byte{}},
			field{"Incarnation", uint64(1)}, field{"State", uint64(0)}, field{"Vsn", versions})[1:]...)
	}
	return b
}

func TestCheckedMessages(t *testing.T) {
	alive := forgeAlive("n", net.IPv4(127, 0, 0, 1), 1, 1, nil)
	user := []byte{msgUser, 1, 2, 3}
	for name, message := range map[string][]byte{
		"alive": alive, "dead": forgeDead("n", 1), "user": user, "list": compound(alive, user), "empty list": compound(),
	} {
		if err := checkPacket(message); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, message := range malformedPackets() {
		if err := checkPacket(message); err == nil {
			t.Errorf("%s is let through", name)
		}
	}
	for name, message := range map[string][]byte{
		"push/pull": pushPull(3, 0, 3), "ping": forge(msgPing, field{"SeqNo", uint64(1)}, field{"Node", "n"}),
		"ack": forge(msgAck, field{"SeqNo", uint64(1)}), "error": forge(msgErr, field{"Error", "no"}),
	} {
		if err := checkStream(bytes.NewReader(message)); err != nil {
			t.Errorf("stream, %s: %v", name, err)
		}
	}
	for name, message := range malformedStreams() {
		if err := checkStream(bytes.NewReader(message)); err == nil {
			t.Errorf("stream, %s is let through", name)
		}
	}
}

// What follows the one message of a stream is not memberlist's.
func TestCheckedStreamHasOneMessage(t *testing.T) {
	message := pushPull(1, 0, 1)
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		far.Write(append(bytes.Clone(message), "more"...))
		far.Close()
	}()
	got, err := io.ReadAll(&checkedConn{Conn: near})
	if err != nil || !bytes.Equal(got, message) {
		t.Errorf("%x, %v; want %x", got, err, message)
	}
}

// FuzzChecked: nothing may panic, or hold more than a small multiple of what came; what is let through of a stream is what
// was read.
func FuzzChecked(f *testing.F) {
	f.Add(compound(forgeAlive("n", net.IPv4(127, 0, 0, 1), 1, 1, nil), []byte{msgUser, 1}))
	f.Add(pushPull(2, 0, 2))
	for _, message := range malformedPackets() {
		f.Add(message[:min(len(message), 1<<10)])
	}
	for _, message := range malformedStreams() {
		f.Add(message[:min(len(message), 1<<10)])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if err := checkPacket(in); err == nil && (len(in) == 0 || in[0] == 9) {
			t.Fatalf("%x is let through", in)
		}
		got, err := io.ReadAll(&checkedConn{Conn: scripted{in: bytes.NewReader(in)}})
		if err == nil && !bytes.HasPrefix(in, got) {
			t.Fatalf("%x became %x", in, got)
		}
		if err != nil && len(got) > 0 && !errors.Is(err, io.EOF) {
			t.Fatalf("%x was handed over although %v", got, err)
		}
	})
}

// FuzzOpen: a datagram that was not sealed for us does not open.
func FuzzOpen(f *testing.F) {
	from, to := testSealer(f), testSealer(f)
	f.Add(from.seal(to.life, []byte("x")))
	f.Add(make([]byte, packetOverhead))
	f.Fuzz(func(t *testing.T, in []byte) {
		life, err := senderOf(in)
		if err != nil {
			return
		}
		o, err := newOpener(from.key, life)
		if err != nil {
			t.Fatal(err)
		}
		if message, err := o.open(to.life, bytes.Clone(in)); err == nil && life != from.life {
			t.Fatalf("%x is %x", in, message)
		}
	})
}
