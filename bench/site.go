package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

const (
	labName = "bench"
	engine  = "28.5"

	pluginDir     = "build/plugin"
	plugin        = "carrick:latest"
	carrickBinary = "/usr/local/bin/carrick"
	loadBinary    = "/usr/local/bin/load"

	// patience is how long hosts may take to find each other, and a network to work.
	patience = 2 * time.Minute
	// resident is the container that every network has on every host, so that the network is set up there all the time.
	resident = "resident"
)

// A site is the lab with all contestants in it. Carrick's and Docker's overlay have two hosts each, so that neither meets
// the other's firewall rules or devices, and the bridges of both another one: Docker has rules for each container on a bridge,
// which every packet of the host meets.
type site struct {
	lab     *lab.Lab
	carrick [2]*lab.Host
	docker  [2]*lab.Host
	bridges *lab.Host       // a node of Carrick's cluster, too
	machine string          // what all was measured on, for the page
	paths   map[string]path // across hosts, by contestant
	local   map[string]path // within the host of bridges
	logf    func(string, ...any)
}

// openSite starts the lab. What it could not complete it takes down.
func openSite(ctx context.Context, overlay string, logf func(string, ...any)) (*site, error) {
	if _, err := os.Stat(pluginDir + "/config.json"); err != nil {
		return nil, fmt.Errorf("the plugin is not built, `make plugin` builds it: %w", err)
	}
	if err := lab.Remove("", labName); err != nil { // of a run that was killed
		return nil, err
	}
	l, err := lab.Start(ctx, lab.Config{Name: labName, Hosts: 5, Engines: []string{engine}, Logf: logf})
	if err != nil {
		return nil, err
	}
	s := &site{lab: l, carrick: [2]*lab.Host(l.Hosts[:2]), docker: [2]*lab.Host(l.Hosts[2:4]), bridges: l.Hosts[4], logf: logf,
		paths: map[string]path{}, local: map[string]path{}}
	if err := s.furnish(ctx, overlay); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) close() error { return s.lab.Close() }

func (s *site) furnish(ctx context.Context, overlay string) error {
	for _, step := range []func(context.Context) error{s.copyLoad, s.describe, s.makeGatewayBridges, s.installCarrick} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.paths[underlay] = path{host(s.carrick[0]), host(s.carrick[1])}
	rebuilt, err := rebuild(ctx, s.docker)
	if err != nil {
		return fmt.Errorf("rebuild Docker's layout: %w", err)
	}
	s.paths[rebuiltOverlay] = rebuilt
	if overlay == "swarm" {
		if err := s.startSwarm(ctx); err != nil {
			return err
		}
	}
	return s.makeNetworks(ctx, overlay == "swarm")
}

func host(h *lab.Host) place { return place{host: h, addr: netip.MustParseAddr(h.IPv4)} }

// copyLoad builds the generator, which needs nothing of the hosts.
func (s *site) copyLoad(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "load")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./bench/load")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./bench/load: %w: %s", err, out)
	}
	for _, h := range s.lab.Hosts {
		if err := h.Copy(ctx, binary, loadBinary); err != nil {
			return err
		}
	}
	return nil
}

// describe asks what the figures depend on.
func (s *site) describe(ctx context.Context) error {
	text, err := s.carrick[0].Run(ctx, "sh", "-euc", `echo "$(nproc) processors"
		sed -n 's/^model name[^:]*: /of /p' /proc/cpuinfo | head -n 1
		echo ", Linux $(uname -r), $(iperf3 --version | head -n 1 | cut -d ' ' -f 1,2)"`)
	if err != nil {
		return err
	}
	version, err := s.carrick[0].EngineVersion(ctx)
	s.machine = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), " ,", ",") + ", engine " + version
	return err
}

// makeGatewayBridges makes what the first container of any overlay would make, so that all hosts have Docker's firewall rules
// and bridge-nf-call-iptables from the start.
func (s *site) makeGatewayBridges(ctx context.Context) error {
	const opt = "com.docker.network.bridge."
	for _, h := range s.lab.Hosts {
		if _, err := h.Docker(ctx, "network", "create", "-d", "bridge", "-o", opt+"name=docker_gwbridge",
			"-o", opt+"enable_icc=false", "-o", opt+"enable_ip_masquerade=true", "docker_gwbridge"); err != nil {
			return err
		}
	}
	return nil
}

// installCarrick installs the plugin on its hosts and waits for them to be one cluster.
func (s *site) installCarrick(ctx context.Context) error {
	secret, err := exec.CommandContext(ctx, filepath.Join(pluginDir, "rootfs/carrick"), "secret").Output()
	if err != nil {
		return fmt.Errorf("carrick secret: %w", err)
	}
	settings := map[string]string{"SECRET": strings.TrimSpace(string(secret)), "JOIN": s.carrick[0].IPv4 + "," + s.carrick[1].IPv4}
	nodes := append(s.carrick[:], s.bridges)
	for _, h := range nodes {
		if err := h.Copy(ctx, filepath.Join(pluginDir, "rootfs/carrick"), carrickBinary); err != nil {
			return err
		}
		if err := h.InstallPlugin(ctx, plugin, pluginDir, settings); err != nil {
			return err
		}
	}
	return s.until(ctx, "the hosts are one cluster", func() error {
		for _, h := range nodes {
			text, err := h.Run(ctx, carrickBinary, "status", "--json")
			if err != nil {
				return err
			}
			var st struct {
				Cluster struct {
					State  string
					Quorum bool
					Nodes  []struct{ Alive bool }
				}
			}
			if err := json.Unmarshal([]byte(text), &st); err != nil {
				return err
			}
			if st.Cluster.State != "member" || !st.Cluster.Quorum || len(st.Cluster.Nodes) != len(nodes) {
				return errors.New(text)
			}
		}
		return nil
	})
}

func (s *site) startSwarm(ctx context.Context) error {
	manager, worker := s.docker[0], s.docker[1]
	if _, err := manager.Docker(ctx, "swarm", "init", "--advertise-addr", manager.IPv4); err != nil {
		return fmt.Errorf("no Swarm here: `make bench BENCH_OVERLAY=rebuilt` does without: %w", err)
	}
	token, err := manager.Docker(ctx, "swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	_, err = worker.Docker(ctx, "swarm", "join", "--token", token, "--advertise-addr", worker.IPv4, manager.IPv4)
	return err
}

// until waits for f to succeed.
func (s *site) until(ctx context.Context, what string, f func() error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			s.logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond))
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not after %s: %w", what, time.Since(began), err)
		}
	}
}
