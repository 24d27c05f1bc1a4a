//go:build e2e

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLab goes through the life of a lab of two hosts on each engine, in the order a day would have it. On Mix the hosts
// have the two oldest.
func TestLab(t *testing.T) {
	all, err := Chosen()
	if err != nil {
		t.Fatal(err)
	}
	for _, chosen := range all {
		t.Run(chosen, func(t *testing.T) { testLab(t, chosen) })
	}
}

func testLab(t *testing.T, chosen string) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cfg := Config{Name: "lab-e2e-" + strings.ReplaceAll(chosen, ".", ""), Hosts: 2, Engines: EnginesOf(chosen),
		EngineFlags: []string{"--live-restore"}, Logf: t.Logf}
	if err := Remove(cfg.Dir, cfg.Name); err != nil {
		t.Fatal(err)
	}
	before := traces(t, cfg.Name)
	l, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				said, err := h.EngineLog()
				t.Logf("%s: dockerd wrote (%v):\n%s", h.Name, err, said)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if after := traces(t, cfg.Name); !slices.Equal(after, before) {
			t.Errorf("Close left:\nbefore: %q\nafter:  %q", before, after)
		}
	})
	if !slices.ContainsFunc(traces(t, cfg.Name), func(s string) bool { return strings.Contains(s, "dockerd") }) {
		t.Error("traces sees no dockerd while the lab is up")
	}
	lt := labTest{ctx, l, l.Hosts[0], l.Hosts[1]}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"engines are of the family", func(t *testing.T) { lt.versions(t, cfg.Engines) }},
		{"hosts reach each other", lt.reach},
		{"FORWARD is DROP", lt.forwardDrop},
		{"the gateway bridge turns bridge-nf on", lt.bridgeNetfilter},
		{"containers run, ping and end at once", lt.containers},
		{"dumps are equal around a container", lt.dumps},
		{"cut and heal", lt.cut},
		{"a stranger is on the switch", lt.stranger},
		{"commands end when they are told to", lt.commands},
		{"files are copied", lt.copies},
		{"a plugin is installed and killed", lt.plugin},
		{"what one host pushes another pulls", lt.registry},
		{"a killed engine leaves containers alive", lt.killEngine},
		{"power fails", lt.reboot},
		{"another process sees the lab", lt.open},
		{"addresses change", lt.readdress},
		{"a link goes down and up", lt.link},
		{"the MTU changes", lt.mtu},
		{"disks are copied and replaced", lt.disks},
	} {
		t.Run(step.name, step.run)
	}
}

type labTest struct {
	ctx context.Context
	lab *Lab
	a   *Host
	b   *Host
}

func (lt labTest) run(t *testing.T, h *Host, args ...string) string {
	t.Helper()
	out, err := h.Run(lt.ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (lt labTest) docker(t *testing.T, h *Host, args ...string) string {
	t.Helper()
	return lt.run(t, h, append([]string{"docker"}, args...)...)
}

func pings(ctx context.Context, h *Host, addr string) bool {
	_, err := h.Run(ctx, "ping", "-c1", "-W0.3", addr)
	return err == nil
}

// reaches says whether pings arrive. One that should may take a while on a busy machine.
func reaches(ctx context.Context, h *Host, addr string, should bool) bool {
	for start := time.Now(); ; {
		if pings(ctx, h, addr) {
			return true
		}
		if !should || time.Since(start) > time.Minute || ctx.Err() != nil {
			return false
		}
	}
}

func (lt labTest) stranger(t *testing.T) {
	for range 2 { // the second is the same
		s, err := lt.lab.Stranger(lt.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !reaches(lt.ctx, lt.a, s.IPv4, true) || !reaches(lt.ctx, lt.b, s.IPv6, true) {
			t.Error("the hosts and the stranger do not reach each other")
		}
	}
}

func (lt labTest) versions(t *testing.T, families []string) {
	for i, h := range lt.lab.Hosts {
		got, err := h.EngineVersion(lt.ctx)
		if want := families[i%len(families)]; err != nil || !strings.HasPrefix(got, want+".") || h.Engine != want {
			t.Errorf("%s: %s, %v; want %s", h.Name, got, err, want)
		}
	}
	if a, b := lt.docker(t, lt.a, "info", "-f", "{{.ID}}"), lt.docker(t, lt.b, "info", "-f", "{{.ID}}"); a == b {
		t.Errorf("both engines have the id %s", a)
	}
}

func (lt labTest) reach(t *testing.T) {
	for _, addr := range []string{lt.b.IPv4, lt.b.IPv6, "198.51.100.1", "2001:db8::1", "host2"} {
		if !reaches(lt.ctx, lt.a, addr, true) {
			t.Errorf("%s does not reach %s", lt.a.Name, addr)
		}
	}
	if got := lt.run(t, lt.a, "hostname"); got != lt.a.Name {
		t.Errorf("hostname %s, want %s", got, lt.a.Name)
	}
	if got := lt.run(t, lt.a, "ip", "route", "show", "default"); !strings.Contains(got, "dev eth0") {
		t.Errorf("default route: %q", got)
	}
}

func (lt labTest) forwardDrop(t *testing.T) {
	for _, h := range lt.lab.Hosts {
		if got := lt.run(t, h, "iptables", "-S", "FORWARD"); !strings.HasPrefix(got, "-P FORWARD DROP") {
			t.Errorf("%s: %s", h.Name, got)
		}
	}
}

// The engine makes docker_gwbridge with inter-container communication off, and that is what turns bridge-nf on.
func (lt labTest) bridgeNetfilter(t *testing.T) {
	key := "net.bridge.bridge-nf-call-iptables"
	if got := lt.run(t, lt.a, "sysctl", "-n", key); got != "0" {
		t.Errorf("%s = %s before", key, got)
	}
	lt.docker(t, lt.a, "network", "create", "-d", "bridge", "-o", "com.docker.network.bridge.name=docker_gwbridge",
		"-o", "com.docker.network.bridge.enable_icc=false", "docker_gwbridge")
	if got := lt.run(t, lt.a, "sysctl", "-n", key); got != "1" {
		t.Errorf("%s = %s after docker_gwbridge", key, got)
	}
	lt.docker(t, lt.a, "network", "rm", "docker_gwbridge")
}

func (lt labTest) containers(t *testing.T) {
	for _, image := range []string{Image, "busybox:latest"} {
		lt.docker(t, lt.a, "run", "--rm", image, "ping", "-q", "-c", "10", "-i", "0.01", lt.b.IPv4)
	}
	lt.docker(t, lt.a, "run", "--rm", Image, "sh", "-euc", "ip -d link >/dev/null; for p in httpd wget nc; do command -v $p; done")
	lt.docker(t, lt.a, "run", "-d", "--name", "sleeper", Image)
	began := time.Now()
	lt.docker(t, lt.a, "stop", "sleeper")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping a container took %s", took)
	}
	lt.docker(t, lt.a, "rm", "sleeper")
}

// The containers before have done what is done once: docker0 has got its link-local address.
func (lt labTest) dumps(t *testing.T) {
	before, err := lt.a.Settled(lt.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range []string{"link", "addr", "route ipv4", "route ipv6", "rule ipv4", "fdb", "iptables", "nft", "sysctl", "mount"} {
		if len(before.Section("host: "+section)) == 0 {
			t.Errorf("section %q is empty", section)
		}
	}
	lt.docker(t, lt.a, "run", "-d", "--name", "one", "-p", "8080:80", Image)
	during, err := lt.a.Dump(lt.ctx)
	if err != nil {
		t.Fatal(err)
	}
	diff := before.Diff(during)
	for _, want := range []string{"@@ host: iptables\n", "@@ host: link\n", "@@ host: mount\n", "@@ /run/docker/netns/", "+ tcp 0.0.0.0:8080"} {
		if !strings.Contains(diff, want) {
			t.Errorf("a container makes no difference in %q:\n%s", want, diff)
		}
	}
	lt.docker(t, lt.a, "rm", "-f", "one")
	ctx, cancel := context.WithTimeout(lt.ctx, 10*time.Second)
	defer cancel()
	diff, err = lt.a.Restored(ctx, before)
	if err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func (lt labTest) cut(t *testing.T) {
	steps := []struct {
		name          string
		do            func() error
		peer, gateway bool
	}{
		{"cut", func() error { return lt.lab.Cut(lt.ctx, lt.b) }, false, true},
		{"cut again", func() error { return lt.lab.Cut(lt.ctx, lt.b) }, false, true},
		{"heal", func() error { return lt.lab.Heal(lt.ctx, lt.b) }, true, true},
		{"heal again", func() error { return lt.lab.Heal(lt.ctx, lt.b) }, true, true},
		{"cut the other end", func() error { return lt.lab.Cut(lt.ctx, lt.a) }, false, false},
		{"heal the other end", func() error { return lt.lab.Heal(lt.ctx, lt.a) }, true, true},
		{"cut the pair", func() error { return lt.lab.CutPair(lt.ctx, lt.b, lt.a) }, false, true},
		{"heal the pair", func() error { return lt.lab.HealPair(lt.ctx, lt.a, lt.b) }, true, true},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := reaches(lt.ctx, lt.a, lt.b.IPv4, step.peer); got != step.peer {
			t.Errorf("%s: host2 over IPv4 answers: %t", step.name, got)
		}
		if got := reaches(lt.ctx, lt.a, lt.b.IPv6, step.peer); got != step.peer {
			t.Errorf("%s: host2 over IPv6 answers: %t", step.name, got)
		}
		if got := reaches(lt.ctx, lt.a, "198.51.100.1", step.gateway); got != step.gateway {
			t.Errorf("%s: the switch answers: %t", step.name, got)
		}
		if got := lt.run(t, lt.a, "cat", "/sys/class/net/eth0/operstate"); got != "up" {
			t.Errorf("%s: eth0 is %s", step.name, got)
		}
	}
}

func (lt labTest) open(t *testing.T) {
	other, err := Open(lt.lab.layout.dir, lt.lab.Name, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if got := lt.run(t, other.Host("host2"), "hostname"); got != "host2" {
		t.Errorf("hostname %s", got)
	}
	if _, err := Start(lt.ctx, Config{Name: lt.lab.Name, Engines: []string{lt.a.Engine}}); !errors.Is(err, ErrExists) {
		t.Errorf("the same again: %v", err)
	}
}

// traces lists what of a lab there is on the machine: processes, mounts, links and namespaces, cgroups and files. Others
// use the machine meanwhile, so it looks for what a lab would call its things.
func traces(t *testing.T, name string) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, name) {
			found = append(found, line)
		}
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environs {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environ, []byte("CARRICK_LAB="+name+"\x00")) {
			continue // err: it has ended meanwhile
		}
		command, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil {
			found = append(found, fmt.Sprintf("%s %q", path, command))
		}
	}
	for _, pattern := range []string{
		"/sys/class/net/host[0-9]*", "/sys/class/net/br0", "/run/netns/*" + name + "*",
		"/sys/fs/cgroup/" + cgroupTop + "/" + name, "/sys/fs/cgroup/*/" + cgroupTop + "/" + name, DefaultDir + "/labs/" + name,
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	return found
}
