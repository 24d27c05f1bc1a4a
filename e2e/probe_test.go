//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carricknet/carrick/lab"
)

// probeEvery is the interval of a probe's pings.
const probeEvery = 10 * time.Millisecond

// A probe is a ping that runs from a container's network namespace all the time, every 10 ms, and knows of every reply.
// The engine has no part in it.
type probe struct {
	hop    hop
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{} // closed when all output is read

	mu    sync.Mutex
	seen  map[int]bool // sequence numbers of the replies
	first int          // the lowest of them
	last  int          // the highest
	sent  int          // the last one sent, known when it has ended
}

var (
	replied = regexp.MustCompile(`bytes from .* icmp_seq=(\d+)`)
	total   = regexp.MustCompile(`^(\d+) packets transmitted`)
)

// probe starts one probe per hop.
func (s *scene) probe(hops []hop) []*probe {
	s.Helper()
	var all []*probe
	for _, h := range hops {
		p := &probe{hop: h, seen: map[int]bool{}, done: make(chan struct{})}
		interval := strconv.FormatFloat(probeEvery.Seconds(), 'f', -1, 64)
		p.cmd = h.from.host.Command(s.probing, h.from.in("ping", "-n", "-D", "-i", interval, h.to.String())...)
		p.cmd.Stderr = &p.stderr
		out, err := p.cmd.StdoutPipe()
		s.must(err)
		s.must(p.cmd.Start())
		go p.read(out)
		all = append(all, p)
	}
	return all
}

func (p *probe) read(out io.Reader) {
	defer close(p.done)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		p.line(lines.Text())
	}
}

func (p *probe) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := total.FindStringSubmatch(text); m != nil {
		p.sent, _ = strconv.Atoi(m[1])
	}
	m := replied.FindStringSubmatch(text)
	if m == nil {
		return
	}
	n, _ := strconv.Atoi(m[1])
	p.seen[n] = true
	p.last = max(p.last, n)
	if p.first == 0 || n < p.first {
		p.first = n
	}
}

// replies is how many have come so far.
func (p *probe) replies() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.seen)
}

// more waits until every probe has had n more replies than now.
func (s *scene) more(probes []*probe, n int) {
	s.Helper()
	want := make([]int, len(probes))
	for i, p := range probes {
		want[i] = p.replies() + n
	}
	_, err := s.wait(patience, func() error {
		for i, p := range probes {
			if p.replies() < want[i] {
				return fmt.Errorf("probe %s: no reply for a long time: %d so far; %s", p.hop, p.replies(), p.stderr.String())
			}
		}
		return nil
	})
	s.must(err)
}

// lost stops the probes and returns, for each, the sequence numbers from the first reply on that have had none. What was
// sent after the last reply is on its way still, so each probe first waits for replies to what is sent from now on.
func (s *scene) lost(probes []*probe) map[*probe][]int {
	s.Helper()
	s.more(probes, 5)
	lost := map[*probe][]int{}
	for _, p := range probes {
		s.must(lab.Interrupt(p.cmd))
		<-p.done
		if err := p.cmd.Wait(); err != nil && p.sent == 0 {
			s.Fatalf("probe %s: %v: %s", p.hop, err, p.stderr.String())
		}
		for n := p.first; n <= p.last; n++ {
			if !p.seen[n] {
				lost[p] = append(lost[p], n)
			}
		}
	}
	return lost
}

// lossless stops the probes and demands that none has lost a reply: from its very first packet on, if fromStart.
func (s *scene) lossless(what string, probes []*probe, fromStart bool) {
	s.Helper()
	lost := s.lost(probes)
	sent, missing := 0, 0
	for _, p := range probes {
		sent += p.last
		if fromStart && p.first != 1 {
			s.Errorf("%s: %s: the first %d packets had no reply", what, p.hop, p.first-1)
			missing += p.first - 1
		}
		if n := len(lost[p]); n > 0 {
			s.Errorf("%s: %s: %d of %d packets had no reply: %s", what, p.hop, n, p.last, ranges(lost[p]))
			missing += n
		}
	}
	s.venue.figures.packets.Add(int64(sent))
	s.venue.figures.lost.Add(int64(missing))
	s.Logf("%s: %d probes, %d packets, %d lost", what, len(probes), sent, missing)
}

// ranges prints 3,4,5,9 as 3-5 9.
func ranges(numbers []int) string {
	var out []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i == j {
			out = append(out, fmt.Sprint(numbers[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(out, " ")
}
