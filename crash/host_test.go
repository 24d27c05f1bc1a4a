//go:build crash

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// patience is how long a condition is waited for: an endpoint whose devices are gone is removed after 75 s, a lease that nobody uses after 90 s.
const patience = 3 * time.Minute

// host is a machine of its own: a network and a mount namespace, in which the plugin has its disk, its socket and the engine's
// directories, and another network namespace that stands for the sandboxes of all containers.
type host struct {
	*testing.T
	root    string // of the plugin, in the mount namespace
	keeper  *exec.Cmd
	sandbox *exec.Cmd
	env     []string
	under   []string // a command that the plugin runs under, as strace
	plugin  *process
	log     bytes.Buffer // what plugins said since the case began
}

// setUp makes the root of the plugin, and the device by which other hosts would reach this one.
const setUp = `set -e
mount --make-rprivate /
mount -t tmpfs crash "$ROOT"
mkdir -p "$ROOT/run/docker/plugins" "$ROOT/var/lib/carrick" "$ROOT/host/run/docker" "$ROOT/proc" "$ROOT/tmp"
mount --rbind /proc "$ROOT/proc"
mount -t tmpfs crash "$ROOT/host/run/docker"
mount --make-shared "$ROOT/host/run/docker"
touch "$ROOT/carrick"
mount --bind "$BINARY" "$ROOT/carrick"
ip link set lo up
ip link add eth0 type veth peer name eth1
ip link set eth0 addrgenmode none up
ip link set eth1 addrgenmode none up
ip addr add 192.0.2.1/24 dev eth0
ip route add default via 192.0.2.254
echo ready
exec cat`

// newHost makes a host that has just booted. env are the plugin's settings.
func newHost(t *testing.T, binary string, env ...string) *host {
	t.Helper()
	h := &host{T: t, root: t.TempDir(), env: env}
	t.Cleanup(func() {
		if h.plugin != nil {
			h.plugin.kill()
			h.plugin.wait()
		}
	})
	h.keeper = h.hold(exec.Command("unshare", "--mount", "--net", "sh", "-c", setUp), "ROOT="+h.root, "BINARY="+binary)
	h.sandbox = h.hold(exec.Command("unshare", "--net", "sh", "-c", "echo ready; exec cat"))
	return h
}

// hold starts a program that says when it is ready, and ends with its standard input, at the latest with this process.
func (h *host) hold(cmd *exec.Cmd, env ...string) *exec.Cmd {
	h.Helper()
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	h.must(err)
	out, err := cmd.StdoutPipe()
	h.must(err)
	var said bytes.Buffer
	cmd.Stderr = &said
	h.must(cmd.Start())
	line := make([]byte, 6)
	if _, err := out.Read(line); err != nil || string(line) != "ready\n" {
		h.Fatalf("%v: %v: %s", cmd.Args, err, said.String())
	}
	h.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return cmd
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("%v\n%s", err, h.log.String())
	}
}

// path is where something in the plugin's root is for this process.
func (h *host) path(of string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", h.keeper.Process.Pid), h.root, of)
}

// within runs a command in the host's namespaces.
func (h *host) within(args ...string) string {
	h.Helper()
	return h.run(exec.Command("nsenter", append([]string{"-t", fmt.Sprint(h.keeper.Process.Pid), "-m", "-n", "--"}, args...)...))
}

func (h *host) run(cmd *exec.Cmd) string {
	h.Helper()
	cmd.Env = append(os.Environ(), "ROOT="+h.root)
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

// take moves the container's end of an endpoint into its sandbox, as the engine does after Join.
func (h *host) take(link string) {
	h.Helper()
	h.within("ip", "link", "set", link, "netns", fmt.Sprint(h.sandbox.Process.Pid))
}

// giveBack is what the engine does after Leave.
func (h *host) giveBack(link string) {
	h.Helper()
	h.run(exec.Command("nsenter", "-t", fmt.Sprint(h.sandbox.Process.Pid), "-n", "--",
		"ip", "link", "set", link, "netns", fmt.Sprint(h.keeper.Process.Pid)))
}

// start starts the plugin and returns when it answers. If it is to die meanwhile (see process.arm), it returns when it is dead.
func (h *host) start(dieAt int) (points int, died bool) {
	h.Helper()
	h.plugin = newProcess(h)
	h.plugin.arm(dieAt)
	h.must(h.plugin.cmd.Start())
	h.plugin.begin()
	began := time.Now()
	for {
		_, err := h.call("Carrick.Networks", object{})
		if err == nil && h.plugin.quiet() {
			break
		}
		if h.plugin.ended() {
			h.plugin.wait()
			if !h.plugin.killed && h.under == nil {
				h.Fatalf("the plugin has ended by itself: %v\n%s", h.plugin.cmd.ProcessState, h.log.String())
			}
			return h.plugin.disarm(), true
		}
		if err == nil {
			continue
		}
		if time.Since(began) > patience {
			h.Fatalf("the plugin does not answer: %v\n%s", err, h.log.String())
		}
		var said refusal
		if errors.As(err, &said) {
			h.Fatalf("the plugin does not start: %v\n%s", err, h.log.String())
		}
		pause(time.Millisecond)
	}
	return h.plugin.disarm(), false
}

func pause(d time.Duration) { <-time.After(d) }

// kill ends the plugin at rest.
func (h *host) kill() {
	h.plugin.kill()
	h.plugin.wait()
}
