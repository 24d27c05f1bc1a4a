package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

//go:embed dump.sh
var dumpScript string

// A Dump is all the kernel holds for a host, in sections of text: links, addresses, routes, rules, forwarding and
// neighbour entries, both firewalls, sockets that listen, sysctls and mounts; and the same again for every other network
// namespace of the host. What changes by itself (indexes, counters, timers, what was learned) is left out, so that two
// dumps of the same host are equal unless somebody has changed something. Programs attached by tcx are not in it.
type Dump []Section

// A Section is what one command printed, normalised.
type Section struct {
	Title string // "host: link", "/run/docker/netns/3fa1…: route ipv4"
	Lines []string
}

const titleMark = "@@ "

// settleTime is how long nothing may change in a dump for it to be settled: the kernel tells of a lost carrier after up to
// 1 s (linkwatch), and duplicate address detection takes up to 2 s (RFC 4862, 5.4.2: a random delay and one probe).
const settleTime = 2500 * time.Millisecond

// dumpEvery leaves the processor to those that are waited for: a dump takes some 100 ms of it.
const dumpEvery = 500 * time.Millisecond

// Dump asks the kernel for what there is at this moment. What has just been removed may still be in it: the kernel frees
// network namespaces and notices lost carriers in its own time. Settled and Restored wait for that.
func (h *Host) Dump(ctx context.Context) (Dump, error) {
	text, err := h.Run(ctx, "sh", "-uc", dumpScript)
	if err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	return normalise(ParseDump(text)), nil
}

// Settled dumps the host until the dump has stayed the same for a while. It is the one to compare others with.
func (h *Host) Settled(ctx context.Context) (Dump, error) {
	var last Dump
	var since time.Time
	err := pollAt(ctx, dumpEvery, "the host to settle", func() (bool, error) {
		d, err := h.Dump(ctx)
		if err != nil {
			return false, err
		}
		if last == nil || last.Diff(d) != "" {
			last, since = d, time.Now()
		}
		return time.Since(since) > settleTime, nil
	})
	return last, err
}

// Restored dumps the host until the dump equals want, and returns the last difference if ctx ends before: "" is success.
func (h *Host) Restored(ctx context.Context, want Dump) (diff string, err error) {
	err = pollAt(ctx, dumpEvery, "the dump to be as before", func() (bool, error) {
		got, err := h.Dump(ctx)
		if err != nil {
			return false, err
		}
		diff = want.Diff(got)
		return diff == "", nil
	})
	if ctx.Err() != nil && diff != "" {
		return diff, nil
	}
	return diff, err
}

// ParseDump reads what Dump.String printed.
func ParseDump(text string) Dump {
	var d Dump
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if title, ok := strings.CutPrefix(line, titleMark); ok {
			d = append(d, Section{Title: title})
		} else if len(d) > 0 && line != "" {
			last := &d[len(d)-1]
			last.Lines = append(last.Lines, line)
		}
	}
	return d
}

func (d Dump) String() string {
	var b strings.Builder
	for _, s := range d {
		fmt.Fprintf(&b, "%s%s\n", titleMark, s.Title)
		for _, line := range s.Lines {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}

// Section returns the lines under a title.
func (d Dump) Section(title string) []string {
	for _, s := range d {
		if s.Title == title {
			return s.Lines
		}
	}
	return nil
}

// Diff is empty if the dumps are equal; else it lists, for every section that differs, the lines that only d has after
// a minus and those that only other has after a plus.
func (d Dump) Diff(other Dump) string {
	var titles []string
	for _, s := range append(slices.Clone(d), other...) {
		if !slices.Contains(titles, s.Title) {
			titles = append(titles, s.Title)
		}
	}
	var b strings.Builder
	for _, title := range titles {
		if changes := diffLines(d.Section(title), other.Section(title)); len(changes) > 0 {
			fmt.Fprintf(&b, "%s%s\n%s\n", titleMark, title, strings.Join(changes, "\n"))
		}
	}
	return b.String()
}

// diffLines is the textbook's: common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
// A section has a few hundred lines at most.
func diffLines(a, b []string) []string {
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var changes []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			changes = append(changes, "- "+a[i])
			i++
		default:
			changes = append(changes, "+ "+b[j])
			j++
		}
	}
	return changes
}

// normalise puts every section into the form that can be compared, and drops the empty ones.
func normalise(d Dump) Dump {
	var out Dump
	for _, s := range d {
		_, what, _ := strings.Cut(s.Title, ": ")
		if f, ok := normalisers[what]; ok {
			s.Lines = f(s.Lines)
		}
		if len(s.Lines) > 0 {
			out = append(out, s)
		}
	}
	return out
}

var errNoDump = errors.New("no dump in it")

// CheckDump parses a dump that a person hands us, and refuses what is none.
func CheckDump(text string) (Dump, error) {
	d := ParseDump(text)
	if len(d) == 0 {
		return nil, errNoDump
	}
	return d, nil
}

// ReadDump reads what a script printed in the form of Dump.String, and leaves out what changes by itself, as Host.Dump does.
func ReadDump(text string) Dump { return normalise(ParseDump(text)) }
