//go:build crash

package crash

import (
	_ "embed"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

//go:embed dump.sh
var dumpScript string

// state is what a host has at one moment, in lines with their sections, sorted: of the kernel, and as the plugin says.
type state []string

// only are the lines of s that are not in t.
func (s state) only(t state) (all []string) {
	left := map[string]int{}
	for _, line := range t {
		left[line]++
	}
	for _, line := range s {
		if left[line]--; left[line] < 0 {
			all = append(all, line)
		}
	}
	return all
}

// differs is empty if they are the same.
func (s state) differs(t state) string {
	var b strings.Builder
	for _, line := range s.only(t) {
		b.WriteString("- " + line + "\n")
	}
	for _, line := range t.only(s) {
		b.WriteString("+ " + line + "\n")
	}
	return b.String()
}

var someMAC = regexp.MustCompile(`\b[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}\b`)

// portNumber is dealt out by the kernel in the order ports were made in.
var portNumber = regexp.MustCompile(` (port_id|port_no|designated_port) \S+`)

// look is the state of the host, with what differs from one run to the next under the names it goes by.
func (e *engine) look() state {
	e.Helper()
	var lines []string
	for _, section := range lab.ReadDump(e.within("sh", "-c", dumpScript)) {
		for _, line := range section.Lines {
			lines = append(lines, section.Title+": "+line)
		}
	}
	lines = append(lines, e.reports()...)
	names := e.known()
	var s state
	for _, line := range lines {
		if slices.ContainsFunc(e.abandoned, func(a string) bool {
			return strings.Contains(line, a) || len(a) == 64 && strings.Contains(line, a[:12])
		}) {
			continue
		}
		line = names.Replace(strings.ReplaceAll(line, e.root, ""))
		line = portNumber.ReplaceAllString(line, "")
		s = append(s, someMAC.ReplaceAllString(line, "some-mac"))
	}
	slices.Sort(s)
	return s
}

// known replaces what has a name.
func (e *engine) known() *strings.Replacer {
	var pairs []string
	for _, is := range slices.Backward(sortedKeys(e.names)) { // 10.1.0.20 before 10.1.0.2
		if len(is) == 64 {
			pairs = append(pairs, is, e.names[is], is[:12], e.names[is])
			continue
		}
		pairs = append(pairs, is, e.names[is])
	}
	return strings.NewReplacer(pairs...)
}

// reports are what the plugin shows of itself, but for what is counted and timed. Addresses that are idle or rest are nobody's,
// and so are pools without a network, which go after five minutes.
func (e *engine) reports() (lines []string) {
	e.Helper()
	forgotten := []string{"since", "until", "used", "free", "unclaimed", "entry", "version", "created", "shared", "local"}
	for _, what := range []string{"Networks", "Endpoints", "Pools", "Blocks", "Leases"} {
		got, err := e.call("Carrick."+what, object{})
		e.must(err)
		list, _ := got["list"].([]any)
		for _, item := range list {
			o, ok := item.(map[string]any)
			if !ok || what == "Pools" && o["network"] == nil || what == "Leases" && (o["state"] == "idle" || o["state"] == "resting") {
				continue
			}
			for _, key := range forgotten {
				delete(o, key)
			}
			if what == "Blocks" { // which one of a subnet is claimed is up to chance: they count as one
				delete(o, "prefix")
				delete(o, "size")
			}
			raw, err := json.Marshal(o)
			e.must(err)
			line := what + ": " + string(raw)
			if what == "Blocks" && slices.Contains(lines, line) {
				continue // an address that is asked for by name may lie in the first one
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// settled is a state that stays as it is while the kernel is given time to do what it does by itself.
func (e *engine) settled() state {
	e.Helper()
	for last := e.look(); ; {
		pause(100 * time.Millisecond)
		now := e.look()
		if last.differs(now) == "" {
			return now
		}
		last = now
	}
}

// eventually waits for a state in which nothing is wrong.
func (e *engine) eventually(what string, wrong func(state) string) {
	e.Helper()
	began := time.Now()
	for {
		said := wrong(e.look())
		if said == "" {
			return
		}
		if time.Since(began) > patience {
			e.Fatalf("%s: not within %v:\n%s\n%s", what, patience, said, e.log.String())
		}
		pause(20 * time.Millisecond)
	}
}
