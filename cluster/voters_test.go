package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// Whatever nodes there are and whichever of them are ready, the changes come to an end, always keep the leader and one
// vote, and leave as many votes as there should be when enough nodes are ready.
func TestVotersComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 9).Draw(t, "nodes")
		s := serving{self: "n0", fenced: func(id string) bool { return id[0] == 'f' }}
		ready := map[string]bool{}
		for i := range count {
			id := fmt.Sprintf("n%d", i)
			s.nodes = append(s.nodes, registered{ID: id, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), RaftPort: 7947})
			ready[id] = rapid.IntRange(0, 3).Draw(t, "ready") > 0
			if i == 0 || rapid.Bool().Draw(t, "server") {
				addr := raftAddr(id, s.nodes[i].at())
				if rapid.IntRange(0, 4).Draw(t, "moved") == 0 {
					addr = raftAddr(id, netip.MustParseAddrPort("192.0.2.200:7947"))
				}
				suffrage := raft.Nonvoter
				if i == 0 || rapid.Bool().Draw(t, "votes") {
					suffrage = raft.Voter
				}
				s.servers = append(s.servers, raft.Server{ID: raft.ServerID(id), Address: addr, Suffrage: suffrage})
			}
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "fenced") {
			s.servers = append(s.servers, raft.Server{ID: raft.ServerID(fmt.Sprintf("f%d", i)), Suffrage: raft.Voter})
		}
		s.ready = func(ids []string) map[string]bool {
			is := map[string]bool{}
			for _, id := range ids {
				is[id] = ready[id]
			}
			return is
		}
		for step := 0; ; step++ {
			if step > 50 {
				t.Fatalf("no end: %+v", s.servers)
			}
			before := votes(s.servers)
			change, ok := nextChange(s)
			if !ok {
				break
			}
			s.servers = applied(s.servers, change)
			if now := votes(s.servers); now < before-1 || now > before+1 || now < 1 {
				t.Fatalf("votes go from %d to %d", before, now)
			}
			if i := slices.IndexFunc(s.servers, func(v raft.Server) bool { return v.ID == "n0" }); i < 0 || s.servers[i].Suffrage != raft.Voter {
				t.Fatalf("the leader has lost its vote by %q", change.what)
			}
		}
		if len(s.servers) != count {
			t.Fatalf("%d servers for %d nodes: %+v", len(s.servers), count, s.servers)
		}
		able := 0
		for _, v := range s.servers {
			if v.Suffrage == raft.Voter || ready[string(v.ID)] {
				able++
			}
		}
		want := wantVoters(count)
		if got := votes(s.servers); got > want || able >= want && got != want {
			t.Fatalf("%d votes, want %d: %+v", got, want, s.servers)
		}
	})
}

func votes(servers []raft.Server) (n int) {
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

// applied is what raft makes of a change.
func applied(servers []raft.Server, c serverChange) []raft.Server {
	servers = slices.Clone(servers)
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return s.ID == c.id })
	switch c.what {
	case "removed from raft":
		return slices.Delete(servers, i, i+1)
	case "votes no longer":
		servers[i].Suffrage = raft.Nonvoter
	case "votes":
		servers[i].Suffrage = raft.Voter
	case "has another address":
		servers[i].Address = c.addr
	case "copies the facts":
		servers = append(servers, raft.Server{ID: c.id, Address: c.addr, Suffrage: raft.Nonvoter})
	}
	return servers
}
