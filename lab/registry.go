package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// registryPort is where registries listen by custom, TCP.
const registryPort = 5000

// wire is the subnet of the hosts' eth0. Engines speak plain HTTP to registries in it: there is nobody else.
const wire = "198.51.100.0/24"

const registryProgram = "docker-registry"

const registryConfig = `version: 0.1
storage:
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: %s
`

// StartRegistry starts a registry of images and plugins on the host, unless one is running, and returns its address,
// with which the names of what is pushed there begin. It ends with the host at the latest; its disk is the host's.
func (h *Host) StartRegistry(ctx context.Context) (string, error) {
	addr := fmt.Sprintf("%s:%d", h.IPv4, registryPort)
	p, err := h.daemon(registryProgram)
	if err != nil || p.pid != 0 {
		return addr, err
	}
	began := time.Now()
	program, err := fetchRegistry(ctx, h.lab.layout.dir)
	if err != nil {
		return "", h.errorf("registry: %w", err)
	}
	const inside = "/usr/local/bin/" + registryProgram
	if err := h.Copy(ctx, program, inside); err != nil {
		return "", err
	}
	const config = "/etc/" + registryProgram + ".yml"
	write := h.Command(ctx, "sh", "-c", `cat >"$0"`, config)
	write.Stdin = strings.NewReader(fmt.Sprintf(registryConfig, addr))
	if out, err := write.CombinedOutput(); err != nil {
		return "", h.errorf("write %s: %w: %s", config, err, bytes.TrimSpace(out))
	}
	log, err := os.Create(h.path("registry.log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	first, err := h.init()
	if err != nil {
		return "", err
	}
	p, err = h.spawn(ctx, first, log, registryProgram, []string{inside, "serve", config})
	if err != nil {
		return "", err
	}
	err = poll(ctx, "the registry", func() (bool, error) {
		if _, err := h.Run(ctx, "curl", "-sf", "http://"+addr+"/v2/"); err == nil {
			return true, nil
		}
		if !p.alive() {
			said, err := tail(log.Name(), 0)
			return false, errors.Join(fmt.Errorf("ended: %s", said), err)
		}
		return false, nil
	})
	if err != nil {
		return "", h.errorf("registry: %w", err)
	}
	h.lab.logf("%s: registry %s answers after %s", h.Name, addr, since(began))
	return addr, nil
}

// StopRegistry ends it. It succeeds if none is running.
func (h *Host) StopRegistry(ctx context.Context) error {
	return h.endDaemon(ctx, registryProgram, unix.SIGTERM)
}

// fetchRegistry takes the registry's program out of the machine's own Debian package, unless it is there, and returns its
// path. The package is not installed: it would start a registry on the machine.
func fetchRegistry(ctx context.Context, dir string) (string, error) {
	at := filepath.Join(rootsDir(dir), registryProgram)
	program := filepath.Join(at, "usr/bin", registryProgram)
	if err := os.MkdirAll(rootsDir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, at+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	tmp := at + ".tmp"
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(at), os.Mkdir(tmp, 0o755)); err != nil {
		return "", err
	}
	// apt downloads as a user of its own, and warns when that user may not write here; it then does so as root.
	const script = `apt-get download "$1" >&2 || { apt-get update >&2 && apt-get download "$1" >&2; }; dpkg -x "$1"_*.deb . && rm "$1"_*.deb`
	cmd := exec.CommandContext(ctx, "sh", "-c", script, "sh", registryProgram)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("fetch the package %s: %w: %s", registryProgram, err, bytes.TrimSpace(out)), os.RemoveAll(tmp))
	}
	return program, os.Rename(tmp, at)
}
