//go:build crash

package crash

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one life of the plugin. It tells of each point that it passes, and waits until it is told to go on: package
// failpoint.
type process struct {
	h      *host
	cmd    *exec.Cmd
	ours   *os.File
	theirs *os.File
	gone   chan struct{} // it tells of no more points: it is dead, or about to be

	mu     sync.Mutex
	armed  bool
	count  int
	dieAt  int // 0: at none
	killed bool
	last   string // the point it has died at
}

// newProcess makes a life that has not begun.
func newProcess(h *host) *process {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	h.must(err)
	p := &process{h: h, ours: os.NewFile(uintptr(pair[0]), "ours"), theirs: os.NewFile(uintptr(pair[1]), "theirs"), gone: make(chan struct{})}
	args := append([]string{"nsenter", "-t", fmt.Sprint(h.keeper.Process.Pid), "-m", "-n", "--"}, h.under...)
	args = append(args, "chroot", h.root, "/carrick", "plugin")
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CARRICK_FAILPOINTS=3", "NODE=host1"}, h.env...)
	p.cmd.ExtraFiles = []*os.File{p.theirs}
	p.cmd.Stdout, p.cmd.Stderr = &h.log, &h.log
	return p
}

// begin listens to a life that has just begun.
func (p *process) begin() {
	_ = p.theirs.Close()
	go func() {
		defer close(p.gone)
		for lines := bufio.NewScanner(p.ours); lines.Scan(); {
			if _, err := p.ours.Write([]byte{p.pass(lines.Text())}); err != nil {
				return
			}
		}
	}()
}

// pass says what a process is answered at a point: to go on or to die.
func (p *process) pass(point string) byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed {
		return '.'
	}
	p.count++
	if p.count != p.dieAt {
		return '.'
	}
	p.killed, p.last = true, strings.ReplaceAll(point, p.h.root, "")
	return 'k'
}

// arm counts the points that are passed from now on, and lets the process die at the nth; 0: at none.
func (p *process) arm(dieAt int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.count, p.dieAt = true, 0, dieAt
}

// disarm ends that, and says how many points were passed.
func (p *process) disarm() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	return p.count
}

// settleTime is how long no point may be passed until a start is over: what goes on after the first answer begins at once.
const settleTime = 30 * time.Millisecond

// quiet waits that long, and says whether no point was passed and the process lives.
func (p *process) quiet() bool {
	p.mu.Lock()
	before := p.count
	p.mu.Unlock()
	select {
	case <-p.gone:
		return false
	case <-time.After(settleTime):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count == before && !p.killed
}

func (p *process) ended() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (p *process) kill() { _ = p.cmd.Process.Kill() }

// wait returns when it is dead and nothing of it is open any more.
func (p *process) wait() {
	_ = p.cmd.Wait()
	<-p.gone
	_ = p.ours.Close()
}
