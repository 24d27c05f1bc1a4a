package cluster

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/sirupsen/logrus"
)

// sameMessage is how often one message of raft is logged as a warning. A node that is away is reported several times a
// second otherwise, and Status says it better.
const sameMessage = time.Minute

// connectionEnded is what raft's transport says when the other end goes away, as an error.
const connectionEnded = "failed to decode incoming command"

// raftSink writes raft's log to ours. Raft warns of what is normal when nodes come and go; only its errors, and what it
// says when leadership changes, are above debug.
type raftSink struct {
	log *logrus.Logger

	mu   sync.Mutex
	last map[string]time.Time // message -> when it was last a warning; raft has a few dozen messages
}

// newRaftLog returns a logger for raft.
func newRaftLog(log *logrus.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&raftSink{log: log, last: map[string]time.Time{}})
	return l
}

// Accept is of hclog.SinkAdapter.
func (s *raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := logrus.DebugLevel
	switch {
	case level >= hclog.Error && msg != connectionEnded && s.due(msg):
		to = logrus.WarnLevel
	case msg == "entering leader state" || msg == "entering follower state":
		to = logrus.InfoLevel
	}
	if !s.log.IsLevelEnabled(to) {
		return
	}
	fields := logrus.Fields{}
	for i := 0; i+1 < len(args); i += 2 {
		if key, ok := args[i].(string); ok {
			fields[key] = args[i+1]
		}
	}
	s.log.WithFields(fields).Log(to, "raft: "+msg)
}

func (s *raftSink) due(msg string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.last[msg]) < sameMessage {
		return false
	}
	s.last[msg] = time.Now()
	return true
}
