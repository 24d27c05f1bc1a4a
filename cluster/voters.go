package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// serving is what the leader looks at to decide on the next change.
type serving struct {
	self    string
	servers []raft.Server // in the order in which they came
	nodes   []registered
	fenced  func(id string) bool
	gone    func(id string) bool               // its node and its host have been silent for long
	ready   func(ids []string) map[string]bool // of which nodes the log is complete
}

// serverChange is one change to the servers of raft.
type serverChange struct {
	what string
	id   raft.ServerID
	addr raft.ServerAddress
	do   func(*raft.Raft, serverChange, time.Duration) raft.IndexFuture
}

func (s serverChange) apply(n *raftNode, limit time.Duration) raft.Future {
	return s.do(n.Raft, s, limit)
}

func addNonvoter(r *raft.Raft, s serverChange, limit time.Duration) raft.IndexFuture {
	return r.AddNonvoter(s.id, s.addr, 0, limit)
}

func addVoter(r *raft.Raft, s serverChange, limit time.Duration) raft.IndexFuture {
	return r.AddVoter(s.id, s.addr, 0, limit)
}

func demote(r *raft.Raft, s serverChange, limit time.Duration) raft.IndexFuture {
	return r.DemoteVoter(s.id, 0, limit)
}

func remove(r *raft.Raft, s serverChange, limit time.Duration) raft.IndexFuture {
	return r.RemoveServer(s.id, 0, limit)
}

// wantVoters is how many should vote among so many nodes. With two, a second vote would only mean that losing either
// stops both.
func wantVoters(nodes int) int {
	switch {
	case nodes < 3:
		return 1
	case nodes < 5:
		return 3
	}
	return 5
}

// nextChange is the next thing to do, if there is one. Servers go only when their identity was taken out of the cluster,
// never because they are silent.
func nextChange(s serving) (serverChange, bool) {
	for _, server := range s.servers {
		if id := string(server.ID); id != s.self && s.fenced(id) {
			return serverChange{what: "removed from raft", id: server.ID, do: remove}, true
		}
	}
	for _, node := range s.nodes {
		want := raftAddr(node.ID, node.at())
		i := slices.IndexFunc(s.servers, func(server raft.Server) bool { return string(server.ID) == node.ID })
		switch {
		case i < 0:
			return serverChange{what: "copies the facts", id: raft.ServerID(node.ID), addr: want, do: addNonvoter}, true
		case s.servers[i].Address != want && s.servers[i].Suffrage == raft.Voter:
			return serverChange{what: "has another address", id: raft.ServerID(node.ID), addr: want, do: addVoter}, true
		case s.servers[i].Address != want:
			return serverChange{what: "has another address", id: raft.ServerID(node.ID), addr: want, do: addNonvoter}, true
		}
	}
	return nextVote(s)
}

// nextVote gives or takes one vote, so that no step tolerates fewer further losses than the one before. An even number of
// voters tolerates no more than the odd one below it: it is only passed through, and the first of two new voters waits until
// both are ready. The vote of a node that is gone is given to another, which must be ready before; to take it away first costs
// nothing, since it was not there to be counted on.
func nextVote(s serving) (serverChange, bool) {
	var voters, others, gone []raft.Server
	for _, server := range s.servers {
		id := string(server.ID)
		switch {
		case server.Suffrage == raft.Voter:
			voters = append(voters, server)
			if id != s.self && s.gone(id) {
				gone = append(gone, server)
			}
		case !s.gone(id):
			others = append(others, server)
		}
	}
	want := wantVoters(len(s.nodes))
	if len(voters) > want || len(gone) > 0 && len(voters)%2 == 0 {
		return takeVote(s, voters, gone)
	}
	if len(voters) == want && len(gone) == 0 || len(others) == 0 {
		return serverChange{}, false
	}
	ids := make([]string, 0, len(others))
	for _, o := range others {
		ids = append(ids, string(o.ID))
	}
	is := s.ready(ids)
	others = slices.DeleteFunc(others, func(o raft.Server) bool { return !is[string(o.ID)] })
	switch missing := 1 + len(voters)%2; {
	case len(voters) < want && len(others) >= missing:
		return serverChange{what: "votes", id: others[0].ID, addr: others[0].Address, do: addVoter}, true
	case len(gone) > 0 && len(others) > 0:
		return takeVote(s, voters, gone)
	}
	return serverChange{}, false
}

// takeVote takes one from who is gone, else from who came last; never from the leader.
func takeVote(s serving, voters, gone []raft.Server) (serverChange, bool) {
	for _, v := range slices.Backward(slices.Concat(voters, gone)) {
		if string(v.ID) != s.self {
			return serverChange{what: "votes no longer", id: v.ID, do: demote}, true
		}
	}
	return serverChange{}, false
}
