package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"

	"github.com/carricknet/carrick/lab"
)

// A place is a network namespace on a host, and its address.
type place struct {
	host  *lab.Host
	enter []string // what goes before a command; empty: the host's own
	addr  netip.Addr
}

// A path leads from one place to another.
type path struct{ from, to place }

// onCPU pins a command to processors, "1" or "0,1".
func onCPU(cpus string, args ...string) []string {
	return append([]string{"taskset", "-c", cpus}, args...)
}

func (p place) command(ctx context.Context, args ...string) *exec.Cmd {
	return p.host.Command(ctx, append(append([]string{}, p.enter...), args...)...)
}

func (p place) run(ctx context.Context, args ...string) (string, error) {
	return p.host.Run(ctx, append(append([]string{}, p.enter...), args...)...)
}

// A server is a command that runs beside others.
type server struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	end   context.CancelFunc
}

// serve starts a command and returns when it prints a line with ready in it.
func (p place) serve(ctx context.Context, ready string, args ...string) (*server, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := p.command(ctx, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	s := &server{cmd, bufio.NewScanner(out), cancel}
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), ready) {
			return s, nil
		}
	}
	cancel()
	return nil, fmt.Errorf("%s: %s: %v, %s", p.host.Name, strings.Join(args, " "), cmd.Wait(), said.String())
}

// last waits for the command to end by itself, and returns the last line that it printed.
func (s *server) last() (string, error) {
	defer s.end()
	var line string
	for s.lines.Scan() {
		line = s.lines.Text()
	}
	return line, s.cmd.Wait()
}

// stop ends it.
func (s *server) stop() {
	s.end()
	for s.lines.Scan() { // until it has ended
		continue
	}
	_ = s.cmd.Wait() // it was killed, or has been waited for
}

// tcp measures streams with iperf3: one of them on one processor for both ends, which is what a bit costs; several on all.
func (p path) tcp(streams int, cpus string) sampler {
	return func(ctx context.Context) (map[string]float64, error) {
		const port = "5201"
		listen := onCPU(cpus, "iperf3", "--server", "--one-off", "--forceflush", "--port", port, "--bind", p.to.addr.String())
		s, err := p.to.serve(ctx, "listening", listen...)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		text, err := p.from.run(ctx, onCPU(cpus, "iperf3", "--client", p.to.addr.String(), "--port", port,
			"--time", strconv.Itoa(int(streamTime.Seconds())), "--parallel", strconv.Itoa(streams), "--interval", "0.1", "--json")...)
		if err != nil {
			return nil, err
		}
		var said struct {
			Intervals []struct {
				Sum struct {
					Rate float64 `json:"bits_per_second"`
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &said); err != nil || len(said.Intervals) == 0 {
			return nil, fmt.Errorf("iperf3: %w: %s", err, text)
		}
		var rates []float64 // the median of which somebody else at work for a while does not change
		for _, i := range said.Intervals {
			rates = append(rates, i.Sum.Rate)
		}
		return map[string]float64{"rate": median(rates)}, nil
	}
}

// load measures with our own generator, one of its kinds.
func (p path) load(kind, client, servers string) sampler {
	return func(ctx context.Context) (map[string]float64, error) {
		at := netip.AddrPortFrom(p.to.addr, 5202).String()
		s, err := p.to.serve(ctx, "ready", onCPU(servers, loadBinary, kind, "serve", at)...)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		text, err := p.from.run(ctx, onCPU(client, loadBinary, kind, at, sampleTime.String())...)
		if err == nil && text == "" { // it is the server that tells
			text, err = s.last()
		}
		if err != nil {
			return nil, err
		}
		var r struct{ Rate, P50, P99 float64 }
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("load %s: %w: %q", kind, err, text)
		}
		return map[string]float64{"rate": r.Rate, "p50": r.P50, "p99": r.P99}, nil
	}
}
