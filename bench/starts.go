package main

import (
	"bufio"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carricknet/carrick/lab"
)

// runs is how many containers a sample of `docker run` starts; its value is the median.
const runs = 3

// runCell measures `docker run --rm … true`, from the command's start to its end.
func (s *site) runCell(swarm bool) cell {
	c := cell{name: "run", of: map[string]sampler{
		noNetwork + atCarrick: timeRun(s.carrick[0], "none"),
		noNetwork + atDocker:  timeRun(s.docker[0], "none"),
		noNetwork + atBridges: timeRun(s.bridges, "none"),
	}}
	for _, n := range s.networks(swarm) {
		c.of[n.name] = timeRun(n.hosts[0], n.name)
	}
	return c
}

func timeRun(h *lab.Host, network string) sampler {
	return func(ctx context.Context) (map[string]float64, error) {
		var took []float64
		for range runs {
			began := time.Now()
			if _, err := h.Docker(ctx, "run", "--rm", "--network", network, lab.Image, "true"); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began).Seconds())
		}
		return map[string]float64{"seconds": median(took)}, nil
	}
}

// firstCell measures when a new container is first heard of on another host, where its address was pinged before.
func (s *site) firstCell(swarm bool) cell {
	all := s.networks(swarm)
	c := cell{name: "first", of: map[string]sampler{}}
	for _, name := range []string{carrickOverlay, dockerOverlay} {
		if n, ok := find(all, name); ok {
			next := 100 // the last octet of the next container's address: one that nobody had before
			c.of[name] = func(ctx context.Context) (map[string]float64, error) {
				next++
				return n.firstReply(ctx, s.paths[n.name].to, n.subnet+strconv.Itoa(next))
			}
		}
	}
	return c
}

// answered is a line of ping -D.
var answered = regexp.MustCompile(`^\[(\d+\.\d+)\] .* bytes from `)

// firstReply pings an address every 10 ms, starts the container that gets it, and tells when the first reply came: in seconds
// after `docker run` was called, and after the container's process was started, which may be before that.
func (n network) firstReply(ctx context.Context, from place, ip string) (map[string]float64, error) {
	h, name := n.hosts[0], "first-"+n.name
	pinging, stop := context.WithCancel(ctx)
	defer stop()
	ping := from.command(pinging, "ping", "-n", "-D", "-i", "0.01", ip)
	out, err := ping.StdoutPipe()
	if err == nil {
		err = ping.Start()
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() { // it says what it does before it begins
		return nil, fmt.Errorf("%s: ping %s: %w", from.host.Name, ip, ping.Wait())
	}
	issued := time.Now()
	if _, err := h.Docker(ctx, "run", "-d", "--name", name, "--network", n.name, "--ip", ip, lab.Image, "sh", "-c", sayUptime); err != nil {
		return nil, err
	}
	began, err := startedAt(ctx, h, name)
	if err != nil {
		return nil, err
	}
	var first time.Time
	for first.IsZero() && lines.Scan() {
		if m := answered.FindStringSubmatch(lines.Text()); m != nil {
			seconds, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return nil, err
			}
			first = time.UnixMicro(int64(seconds * 1e6))
		}
	}
	stop()
	for lines.Scan() { // until it has ended
		continue
	}
	_ = ping.Wait() // it was killed
	if first.IsZero() {
		return nil, fmt.Errorf("%s: no reply of %s: %w", from.host.Name, ip, context.Cause(ctx))
	}
	_, err = h.Docker(ctx, "rm", "-f", name)
	return map[string]float64{"issued": first.Sub(issued).Seconds(), "started": first.Sub(began).Seconds()}, err
}

// sayUptime is a process that says when it began, in seconds since the machine has. What the engine calls StartedAt is, on 28.5,
// a time before it has made the network.
const sayUptime = "cat /proc/uptime; exec sleep 3600"

func startedAt(ctx context.Context, h *lab.Host, name string) (time.Time, error) {
	for ctx.Err() == nil {
		text, err := h.Docker(ctx, "logs", name)
		if err != nil {
			return time.Time{}, err
		}
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue // it has not said it yet
		}
		up, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: uptime: %w", h.Name, err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
			return time.Time{}, err
		}
		return time.Now().Add(-time.Duration(now.Nano()) + time.Duration(up*float64(time.Second))), nil
	}
	return time.Time{}, context.Cause(ctx)
}
