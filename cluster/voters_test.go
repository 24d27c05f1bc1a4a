package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// Whatever nodes there are and whichever of them are ready or gone, the changes come to an end, are one at a time, never
// need the voice of one that is gone, tolerate no fewer losses after a step than before it, always keep the leader, and leave
// as many votes as there should be, with nobody who is gone, when enough nodes are ready.
func TestVotersComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, ready, gone := drawServing(t)
		for step := 0; ; step++ {
			if step > 60 {
				t.Fatalf("no end: %+v", s.servers)
			}
			change, ok := nextChange(s)
			if !ok {
				break
			}
			before := s.servers
			s.servers = applied(s.servers, change)
			if now, was := votes(s.servers), votes(before); now < was-1 || now > was+1 || now < 1 {
				t.Fatalf("votes go from %d to %d", was, now)
			}
			shrinks := votes(before) > wantVoters(len(s.nodes)) && votes(before)%2 == 1
			if now, was := spare(s), spare(serving{servers: before, gone: s.gone}); now < 0 || now < was && !shrinks {
				t.Fatalf("%q of %s: so many more may be lost: %d, before %d\n%+v", change.what, change.id, now, was, s.servers)
			}
			if i := slices.IndexFunc(s.servers, func(v raft.Server) bool { return v.ID == "n0" }); i < 0 || s.servers[i].Suffrage != raft.Voter {
				t.Fatalf("the leader has lost its vote by %q", change.what)
			}
		}
		if len(s.servers) != len(s.nodes) {
			t.Fatalf("%d servers for %d nodes: %+v", len(s.servers), len(s.nodes), s.servers)
		}
		able, dead := 0, 0
		for _, v := range s.servers {
			id := string(v.ID)
			switch {
			case !gone[id] && (v.Suffrage == raft.Voter || ready[id]):
				able++
			case gone[id] && v.Suffrage == raft.Voter:
				dead++
			}
		}
		want := wantVoters(len(s.nodes))
		if got := votes(s.servers); got > want || able >= want && (got != want || dead > 0) {
			t.Fatalf("%d votes, %d of them of nodes that are gone, want %d: %+v", got, dead, want, s.servers)
		}
	})
}

// spare is how many more voters may be lost until there is no majority.
func spare(s serving) int {
	alive := 0
	for _, v := range s.servers {
		if v.Suffrage == raft.Voter && !s.gone(string(v.ID)) {
			alive++
		}
	}
	return alive - (votes(s.servers)/2 + 1)
}

// drawServing is any state that a leader may come to: with n0, and with a majority of votes that are not gone.
func drawServing(t *rapid.T) (s serving, ready, gone map[string]bool) {
	ready, gone = map[string]bool{}, map[string]bool{}
	s = serving{self: "n0", fenced: func(id string) bool { return id[0] == 'f' }}
	for i := range rapid.IntRange(1, 9).Draw(t, "nodes") {
		id := fmt.Sprintf("n%d", i)
		s.nodes = append(s.nodes, registered{ID: id, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), RaftPort: 7947})
		gone[id] = i > 0 && rapid.IntRange(0, 2).Draw(t, "gone") == 0
		ready[id] = !gone[id] && rapid.IntRange(0, 3).Draw(t, "ready") > 0
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
	for i := range rapid.IntRange(0, 2).Draw(t, "fenced") {
		id := fmt.Sprintf("f%d", i)
		gone[id] = true
		s.servers = append(s.servers, raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter})
	}
	s.gone = func(id string) bool { return gone[id] }
	s.ready = func(ids []string) map[string]bool {
		is := map[string]bool{}
		for _, id := range ids {
			is[id] = ready[id]
		}
		return is
	}
	for i := range s.servers { // a leader has a majority
		if spare(s) < 0 && gone[string(s.servers[i].ID)] {
			s.servers[i].Suffrage = raft.Nonvoter
		}
	}
	return s, ready, gone
}

// The servers are written one letter each: a capital votes, "!" before it is gone, and one that does not vote is ready unless
// "~" stands before it.
func TestNextVote(t *testing.T) {
	for _, c := range []struct{ servers, want string }{
		{"A", ""},
		{"Ab", ""},
		{"Abc", "votes b"}, // passes through two, since both are ready
		{"Ab~c", ""},
		{"ABc", "votes c"},
		{"ABC", ""},
		{"ABCd", ""},
		{"AB!C", ""}, // nobody could have its vote
		{"AB!Cd", "votes no longer C"},
		{"AB!C~d", ""}, // nobody ready
		{"AB!cd", "votes d"},
		{"AB!c!d", ""},
		{"ABcD", ""}, // who comes back does not get its vote again without need
		{"ABCde", "votes d"},
		{"ABCd~e", ""},
		{"ABCDE", ""},
		{"ABCD!Ef", "votes no longer E"},
		{"ABC!D!Efg", "votes no longer E"},
		{"ABC!Defg", "votes no longer D"}, // an even number: it goes at once
		{"ABC!D~e", "votes no longer D"},
		{"ABCDEF", "votes no longer F"},
		{"AB!CDEF", "votes no longer C"},
		{"AB", "votes no longer B"},
	} {
		s, ready, gone := serving{self: "a", fenced: func(string) bool { return false }}, map[string]bool{}, map[string]bool{}
		mark := ""
		for i, r := range c.servers {
			if r == '!' || r == '~' {
				mark = string(r)
				continue
			}
			id, addr := strings.ToLower(string(r)), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7948)
			gone[id], ready[id] = mark == "!", mark == ""
			server := raft.Server{ID: raft.ServerID(id), Address: raftAddr(id, addr), Suffrage: raft.Nonvoter}
			if id != string(r) {
				server.Suffrage = raft.Voter
			}
			mark = ""
			s.servers = append(s.servers, server)
			s.nodes = append(s.nodes, registered{ID: id, Addr: addr.Addr(), RaftPort: addr.Port()})
		}
		s.gone = func(id string) bool { return gone[id] }
		s.ready = func([]string) map[string]bool { return ready }
		got := ""
		if change, ok := nextChange(s); ok {
			got = change.what + " " + string(change.id)
		}
		if !strings.EqualFold(got, c.want) {
			t.Errorf("%s: %q, want %q", c.servers, got, c.want)
		}
	}
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
