package cluster

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"testing"
)

// BenchmarkRecordMemory tells what a record takes, on the node that has it and on one that was told.
func BenchmarkRecordMemory(b *testing.B) {
	const records = 200_000 // 100 on each of 2000 hosts and networks
	value := []byte("\x01\x02\x42\xac\x11\x00\x02\x01\x18\x04\x0a\x01\x02\x03")
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for range b.N {
		origin, remote := newTable("origin"), newTable("us")
		origin.setEpoch(1)
		before := heap()
		for i := range records {
			network := fmt.Sprintf("%012x", i/100)
			if i%100 == 0 {
				if _, _, err := origin.attend(network, true); err != nil {
					b.Fatal(err)
				}
			}
			if _, _, err := origin.put(network, fmt.Sprintf("%064x", i), value); err != nil {
				b.Fatal(err)
			}
		}
		own := heap()
		b.ReportMetric((own-before)/records, "own-B/record")
		for _, network := range origin.networks() {
			encoded := encodeDelta(origin.since(network, version{}))
			a, err := answerOf(encoded)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := remote.merge("origin", a); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((heap()-own)/records, "remote-B/record")
		runtime.KeepAlive(origin)
		runtime.KeepAlive(remote)
	}
}

// answerOf reads a row and its changes.
func answerOf(encoded []byte) (delta, error) {
	var a pulled
	missing := 0
	for len(encoded) > 0 && missing >= 0 {
		size := int(encoded[2])<<24 | int(encoded[3])<<16 | int(encoded[4])<<8 | int(encoded[5])
		payload := encoded[frameHeader : frameHeader+size]
		var err error
		if frameKind(encoded[1]) == frameRow {
			var d delta
			d, missing, err = decodeRow(payload)
			a.rows = append(a.rows, d)
		} else {
			missing, err = a.readChanges(payload, missing)
		}
		if err != nil {
			return delta{}, err
		}
		encoded = encoded[frameHeader+size:]
	}
	return a.rows[0], nil
}

// BenchmarkAnswer is what it takes to answer a hundred nodes that ask for ten thousand new records.
func BenchmarkAnswer(b *testing.B) {
	x := newTable("us")
	x.setEpoch(1)
	if _, _, err := x.attend("blue", true); err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if _, _, err := x.put("blue", fmt.Sprintf("%064x", i), []byte("\x01\x02\x42\xac\x11\x00\x02\x01\x18\x04\x0a\x01\x02\x03")); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("encode", func(b *testing.B) {
		for range b.N {
			encodeDelta(x.since("blue", version{}))
		}
	})
	encoded := encodeDelta(x.since("blue", version{}))
	b.Run("decode", func(b *testing.B) {
		for range b.N {
			d, err := answerOf(encoded)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := newTable("them").merge("us", d); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPullHandshake is the CPU time of both sides of a connection.
func BenchmarkPullHandshake(b *testing.B) {
	secret := []byte(GenerateSecret())
	var sides [2]*credentials
	for i := range sides {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			b.Fatal(err)
		}
		if sides[i], err = newCredentials(secret, key); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tls.Server(far, sides[1].config(alpnPull)).HandshakeContext(b.Context()) }()
		if err := tls.Client(near, sides[0].config(alpnPull)).HandshakeContext(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
