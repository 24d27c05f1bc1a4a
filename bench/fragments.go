package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A fragment is a part of the page that is measured without engines.
type fragment struct {
	title  string
	text   string
	judged []judged
}

// judged is a figure with a goal that no row has.
type judged struct {
	title string
	goal  goal
	value float64
	unit  string
}

// fragments returns those that could be measured.
func fragments(ctx context.Context, o options, logf func(string, ...any)) ([]fragment, error) {
	var all []fragment
	endpoints, err := programming(ctx, o.rounds, logf)
	if err == nil {
		all = append(all, endpoints)
	}
	plane, controlErr := control(ctx, o.control, logf)
	if controlErr == nil {
		all = append(all, plane)
	}
	return all, errors.Join(err, controlErr)
}

// goTest runs tests of a package and returns what they print.
func goTest(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-count=1"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go test %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// sizes of the network whose remote endpoints are programmed at once. The last has a goal, in seconds.
var sizes = []int{1000, 10_000, 100_000}

var mostSeconds = most("entries", 1)

// programming compares how long the kernel's entries for remote endpoints take, our way and libnetwork's.
func programming(ctx context.Context, rounds int, logf func(string, ...any)) (fragment, error) {
	logf("programming remote endpoints")
	out, err := goTest(ctx, nil, "-run", "^$", "-bench", "^BenchmarkProgram$", "-benchtime", "1x", "-count", strconv.Itoa(rounds), "./kernel")
	if err != nil {
		return fragment{}, err
	}
	return programmed(out)
}

// programmed makes a table of what the benchmark of package kernel prints.
func programmed(out string) (fragment, error) {
	lines := []string{"All entries of a network's remote endpoints at once, in namespaces without engines; and the ratio to what Docker's " +
		"overlay does for the same endpoints, a look-up and a request with an answer for each entry.", "",
		"| endpoints | IPv4 | IPv4 / as Docker does | IPv4 and IPv6 | one has moved | all go |", "|---|---|---|---|---|---|"}
	var longest float64
	for _, n := range sizes {
		took := metrics(out, fmt.Sprintf("BenchmarkProgram/%d", n))
		if len(took["set-ms"]) == 0 {
			return fragment{}, fmt.Errorf("nothing is told of %d remote endpoints: %s", n, out)
		}
		seconds := func(unit string) string {
			return show(spreadOf(ratios(took[unit], nil, slices.Repeat([]float64{1000}, len(took[unit])), nil)), "s")
		}
		lines = append(lines, fmt.Sprintf("| %d | %s | %s | %s | %s | %s |", n, seconds("set-ms"),
			show(spreadOf(ratios(took["set-ms"], nil, took["libnetwork-ms"], nil)), ""), seconds("dual-ms"), seconds("change-ms"), seconds("remove-ms")))
		longest = median(took["set-ms"]) / 1000
	}
	return fragment{
		title:  "Programming remote endpoints",
		text:   strings.Join(lines, "\n"),
		judged: []judged{{fmt.Sprintf("%d remote endpoints programmed", sizes[len(sizes)-1]), mostSeconds, longest, " s"}},
	}, nil
}

// metrics reads the lines of one benchmark, "NAME-2 1 5210834 ns/op 5.2 set-ms": values by unit, one for each line.
func metrics(out, name string) map[string][]float64 {
	all := map[string][]float64{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != name && !strings.HasPrefix(fields[0], name+"-") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				all[fields[i+1]] = append(all[fields[i+1]], v)
			}
		}
	}
	return all
}

// control lets the test of package cluster at size, which is in virtual time and depends on no machine, write its figures, if
// they are not in the file.
func control(ctx context.Context, file string, logf func(string, ...any)) (fragment, error) {
	if _, err := os.Stat(file); err != nil {
		logf("the control plane at size, in virtual time")
		dir, err := filepath.Abs(filepath.Dir(file))
		if err != nil {
			return fragment{}, err
		}
		if _, err := goTest(ctx, []string{"CARRICK_FIGURES=" + dir}, "-run", "^TestVirtualSize$", "-timeout", "1h", "./cluster"); err != nil {
			return fragment{}, err
		}
	}
	text, err := os.ReadFile(file)
	return fragment{title: "The control plane", text: string(text)}, err
}
