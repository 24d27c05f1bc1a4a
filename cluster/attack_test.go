package cluster

import (
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// Messages of memberlist as an attacker makes them: a map of msgpack after the byte that says what it is.

type field struct {
	name  string
	value any // uint64, bool, string or []byte
}

func forge(kind byte, fields ...field) []byte {
	b := []byte{kind, 0x80 | byte(len(fields))}
	for _, f := range fields {
		b = append(b, 0xa0|byte(len(f.name)))
		b = append(b, f.name...)
		switch v := f.value.(type) {
		case uint64:
			b = binary.BigEndian.AppendUint64(append(b, 0xcf), v)
		case bool:
			b = append(b, map[bool]byte{false: 0xc2, true: 0xc3}[v])
		case string:
			b = append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v))), v...)
		case []byte:
			b = append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v))), v...)
		}
	}
	return b
}

// versions that memberlist v0.7.0 speaks: protocol from, to, current; delegate from, to, current.
var versions = []byte{1, 5, 2, 0, 0, 0}

func forgeAlive(id string, at net.IP, port uint16, incarnation uint64, meta []byte) []byte {
	if four := at.To4(); four != nil {
		at = four
	}
	return forge(msgAlive, field{"Incarnation", incarnation}, field{"Node", id}, field{"Addr", []byte(at)},
		field{"Port", uint64(port)}, field{"Meta", meta}, field{"Vsn", versions})
}

func forgeDead(id string, incarnation uint64) []byte {
	return forge(msgDead, field{"Incarnation", incarnation}, field{"Node", id}, field{"From", "attacker"})
}

func forgeSuspect(id string, incarnation uint64) []byte {
	return forge(msgSuspect, field{"Incarnation", incarnation}, field{"Node", id}, field{"From", "attacker"})
}

// compound is memberlist's list of messages.
func compound(parts ...[]byte) []byte {
	b := []byte{msgCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// bareMemberlist is what the control runs attack: memberlist on real sockets as it comes, changed by tune.
func bareMemberlist(t *testing.T, addr string, tune func(*memberlist.Config)) *memberlist.Memberlist {
	t.Helper()
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = "bare "+addr, addr, attackedPort, attackedPort
	cfg.LogOutput = testOutput(t, cfg.Name)
	if tune != nil {
		tune(cfg)
	}
	list, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := list.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return list
}

// attackedPort is that of realNodes.
const attackedPort = 17946

// throw sends datagrams to an address, no faster than memberlist's queue of 1,024 is emptied.
func throw(t *testing.T, to string, packets ...[]byte) {
	t.Helper()
	conn, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, p := range packets {
		if i%100 == 99 {
			pause(t.Context(), 5*time.Millisecond)
		}
		if _, err := conn.Write(p); err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
}

// allocated is how much memory was asked for while do ran, in bytes.
func allocated(do func()) uint64 {
	start := allocations()
	do()
	return allocations() - start
}

// allocations is how much memory this process has ever asked for, in bytes.
func allocations() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
