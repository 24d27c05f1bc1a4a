//go:build crash

package crash

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// Kill says when the plugin is killed, and what becomes of the call that it was about. The zero Kill is none.
type Kill struct {
	call   int  // the nth of the sequence
	point  int  // of those it passes
	second int  // of those that the start after it passes; 0: that start is left alone
	repeat bool // the call is made again as it was; else the engine's second attempt has no body (moby, pkg/plugins/client.go), and fails
}

// target is a call with what it passes.
type target struct {
	unit   string
	method string
	points int
}

// outcome is what has happened.
type outcome struct {
	killed  bool   // at the point
	again   bool   // and once more
	at      string // the point
	start   int    // points of the start after it
	inStart string // the second point
	unit    string // in which it was
	lost    bool   // the engine has forgotten a network, which `carrick network rm` removes
}

// errUnheard is what an engine is told when the plugin has died.
var errUnheard = errors.New("no answer, and the second attempt had no body")

// errAgain is for an engine that makes the network again as it was, with its pools, as Swarm does after a crash.
var errAgain = errors.New("no answer; the network is asked for again")

// ask is a call that may be the one at which the plugin is killed.
func (e *engine) ask(method string, body object) (object, error) {
	e.at++
	if e.kill.call == 0 {
		e.plugin.arm(0)
		got, err := e.call(method, body)
		if err != nil {
			e.Fatalf("without a kill: %v\n%s", err, e.log.String())
		}
		e.counted = append(e.counted, target{e.happened.unit, method, e.plugin.disarm()})
		return got, nil
	}
	if e.at != e.kill.call {
		return e.call(method, body)
	}
	e.plugin.arm(e.kill.point)
	got, err := e.call(method, body)
	e.plugin.disarm()
	if !e.plugin.killed {
		return got, err
	}
	e.happened.killed, e.happened.at = true, fmt.Sprintf("%s: %s", method, e.plugin.last)
	e.plugin.wait()
	e.again()
	switch {
	case e.kill.repeat && method == "NetworkDriver.CreateNetwork":
		return nil, errAgain
	case e.kill.repeat || body == nil:
		return e.call(method, body)
	}
	if _, err := e.call(method, nil); err == nil {
		e.Errorf("%s was agreed to without a body", method)
	}
	return nil, errUnheard
}

// tell is a call whose failure the engine only logs.
func (e *engine) tell(method string, body object) bool {
	_, err := e.ask(method, body)
	if err != nil && !errors.Is(err, errUnheard) {
		e.Errorf("%v", err)
	}
	return err == nil
}

// unit is what a user types, once more if the plugin was killed in it. Then, and in the end, the host has to have what it has
// without a kill.
func (e *engine) unit(name string, do func() error) {
	e.Helper()
	before := e.happened.killed
	e.now++
	if !before {
		e.happened.unit = name
	}
	err := do()
	if err != nil && before == e.happened.killed {
		e.Fatalf("%s: %v\n%s", name, err, e.log.String())
	}
	if err != nil {
		if err := do(); err != nil {
			e.Fatalf("%s, again: %v\n%s", name, err, e.log.String())
		}
	}
	if e.kill == (Kill{}) {
		e.states = append(e.states, e.settled())
		return
	}
	if e.happened.killed && !before {
		e.eventually("after "+name+" as without a kill", e.states[e.now].differs)
	}
}

// survived wants what was there before the call, and is there after it as well.
func (e *engine) survived() {
	e.Helper()
	before, after := e.states[e.now-1], e.states[e.now]
	e.eventually("what is acknowledged is there after the start", func(s state) string {
		var lost []string
		for _, line := range before.only(s) {
			if !slices.Contains(before.only(after), line) {
				lost = append(lost, line)
			}
		}
		return strings.Join(lost, "\n")
	})
}

// restart is an end of the plugin at rest and its next start, at whose points it may be killed.
func (e *engine) restart() error {
	e.host.kill()
	return e.begin()
}

// boot is the first start of a plugin on a host.
func (e *engine) boot() error {
	e.host.kill()
	e.within("sh", "-c", `rm -rf "$ROOT"/var/lib/carrick/*`)
	return e.begin()
}

func (e *engine) begin() error {
	e.at++
	switch e.at {
	default:
		points, _ := e.start(0)
		if e.kill == (Kill{}) {
			e.counted = append(e.counted, target{e.happened.unit, "start", points})
		}
	case e.kill.call:
		if _, died := e.start(e.kill.point); !died {
			return nil
		}
		e.happened.killed, e.happened.at = true, "start: "+e.plugin.last
		e.again()
	}
	return nil
}

// again starts the plugin after a kill, and kills it once more if that is wanted.
func (e *engine) again() {
	e.Helper()
	points, died := e.start(e.kill.second)
	e.happened.start = points
	if died {
		e.happened.again, e.happened.inStart = true, e.plugin.last
		e.start(0)
	}
	e.survived()
}

func (e *engine) abandon(what ...string) { e.abandoned = append(e.abandoned, what...) }

// hasLink says whether a device is in the sandbox.
func (h *host) hasLink(link string) bool {
	return exec.Command("nsenter", "-t", fmt.Sprint(h.sandbox.Process.Pid), "-n", "--", "ip", "link", "show", link).Run() == nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
