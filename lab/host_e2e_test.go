//go:build e2e

package lab

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (lt labTest) commands(t *testing.T) {
	cmd := lt.a.Command(lt.ctx, "ping", "-i", "0.01", lt.b.IPv4)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	_, err = out.ReadString('\n') // it runs
	if err == nil {
		err = Interrupt(cmd)
	}
	said, readErr := io.ReadAll(out)
	if err := errors.Join(err, readErr, cmd.Wait()); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if !strings.Contains(string(said), "packets transmitted") {
		t.Errorf("interrupted ping said %q", said)
	}
	ctx, cancel := context.WithTimeout(lt.ctx, time.Second)
	defer cancel()
	if _, err := lt.a.Run(ctx, "sleep", "12345"); err == nil {
		t.Error("no error from a command that was killed")
	}
	if out, err := lt.a.Run(lt.ctx, "pgrep", "-f", "sleep 12345"); err == nil {
		t.Errorf("it lives on: %s", out)
	}
	_, err = lt.a.Run(lt.ctx, "sh", "-c", "echo no such thing >&2; exit 7")
	if err == nil || !strings.Contains(err.Error(), "host1: sh -c") || !strings.Contains(err.Error(), "exit status 7: no such thing") {
		t.Errorf("error: %v", err)
	}
}

func (lt labTest) copies(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "tool"), []byte("#!/bin/sh\necho copied\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tool", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	if err := lt.a.Copy(lt.ctx, src, "/var/run/x/y"); err != nil {
		t.Fatal(err)
	}
	if err := lt.a.Copy(lt.ctx, filepath.Join(src, "tool"), "/opt/z/tool"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/x/y/link", "/run/x/y/tool", "/opt/z/tool"} {
		if got := lt.run(t, lt.a, path); got != "copied" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if _, err := os.Stat("/run/x/y"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the machine's own /run/x/y: %v", err)
	}
}

func (lt labTest) killEngine(t *testing.T) {
	id := lt.docker(t, lt.a, "run", "-d", Image)
	pid := lt.docker(t, lt.a, "inspect", "-f", "{{.State.Pid}}", id)
	for _, step := range []struct {
		name string
		end  []func(context.Context) error
	}{
		{"kill dockerd", []func(context.Context) error{lt.a.KillEngine}},
		{"kill dockerd and containerd", []func(context.Context) error{lt.a.KillEngine, lt.a.KillContainerd}},
		{"stop dockerd", []func(context.Context) error{lt.a.StopEngine}},
	} {
		for _, end := range step.end {
			if err := end(lt.ctx); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
		}
		if _, err := lt.a.Run(lt.ctx, "docker", "version"); err == nil {
			t.Errorf("%s: the engine answers", step.name)
		}
		lt.run(t, lt.a, "kill", "-0", pid)
		if err := lt.a.StartEngine(lt.ctx); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		want := "true " + pid
		if got := lt.docker(t, lt.a, "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", id); got != want {
			t.Errorf("%s: container is %s, want %s", step.name, got, want)
		}
		lt.docker(t, lt.a, "exec", id, "true")
	}
	if err := lt.a.StartEngine(lt.ctx); err == nil {
		t.Error("a second dockerd started")
	}
	if err := lt.a.RestartEngine(lt.ctx, "--storage-driver=nosuch"); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("an engine that does not start: %v", err)
	}
	if err := lt.a.StartEngine(lt.ctx); err != nil {
		t.Fatal(err)
	}
	lt.docker(t, lt.a, "rm", "-f", id)
}

func (lt labTest) reboot(t *testing.T) {
	lt.docker(t, lt.a, "run", "-d", "--restart", "always", "--name", "stays", Image)
	lt.run(t, lt.a, "sh", "-c", "echo kept >/root/kept; echo lost >/run/lost")
	mac := lt.run(t, lt.a, "cat", "/sys/class/net/eth0/address")
	if err := lt.a.PowerOff(lt.ctx); err != nil {
		t.Fatal(err)
	}
	if lt.a.Running() || pings(lt.ctx, lt.b, lt.a.IPv4) {
		t.Error("host1 answers while it is off")
	}
	if _, err := lt.a.Run(lt.ctx, "true"); err == nil || !strings.Contains(err.Error(), "host1: is off") {
		t.Errorf("a command on a host that is off: %v", err)
	}
	if err := lt.a.PowerOn(lt.ctx); err != nil {
		t.Fatal(err)
	}
	if err := lt.a.Reboot(lt.ctx); err != nil {
		t.Fatal(err)
	}
	lt.docker(t, lt.a, "image", "inspect", Image)
	if got := lt.run(t, lt.a, "sh", "-c", "cat /root/kept; ls /run/lost || true"); got != "kept" {
		t.Errorf("files: %q", got)
	}
	if got := lt.run(t, lt.a, "cat", "/sys/class/net/eth0/address"); got != mac {
		t.Errorf("MAC address %s, was %s", got, mac)
	}
	err := poll(lt.ctx, "the container to start", func() (bool, error) {
		out, err := lt.a.Docker(lt.ctx, "inspect", "-f", "{{.State.Running}}", "stays")
		return out == "true", err
	})
	if err != nil {
		t.Error(err)
	}
	if !reaches(lt.ctx, lt.b, lt.a.IPv4, true) {
		t.Error("host1 does not answer after the reboot")
	}
	lt.docker(t, lt.a, "rm", "-f", "stays")
}
