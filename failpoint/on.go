//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Env names the descriptor of a socket on which each point is told of, by a line, and answered by one byte. Without it, or
// when there is no answer, nothing is waited for.
const Env = "CARRICK_FAILPOINTS"

const (
	GoOn = '.'
	Die  = 'k'
)

// one point is passed at a time, so that points have an order and none is passed by another thread of a process that dies.
var one sync.Mutex

// Step makes a change, with a point before and one after it.
func Step(what string, on any, change func() error) error {
	pass("before", what, on)
	err := change()
	pass("after", what, on)
	return err
}

func pass(when, what string, on any) {
	fd, err := strconv.Atoi(os.Getenv(Env))
	if err != nil {
		return
	}
	one.Lock()
	defer one.Unlock()
	answer := []byte{GoOn}
	if _, err := unix.Write(fd, fmt.Appendf(nil, "%s %s %v\n", when, what, on)); err != nil {
		return
	}
	for {
		_, err := unix.Read(fd, answer)
		if err != unix.EINTR {
			break
		}
	}
	if answer[0] == Die {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
		select {} // until it has come
	}
}
