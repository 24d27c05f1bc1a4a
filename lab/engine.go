package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Image is on every host, as Image and as busybox:latest: busybox with httpd, wget and nc, ping of iputils, ip of
// iproute2. Its default command sleeps, and ends at once on SIGTERM.
const Image = "lab:latest"

const (
	dockerd    = "dockerd"
	containerd = "containerd"

	containerdSocket = "/run/containerd/containerd.sock"
	dockerSocket     = "/run/docker.sock"
)

// startTimeout bounds the start of an engine: it takes less than a second, but not on a machine that is busy, and at a
// start after a crash dockerd waits up to 10 s for each plugin.
const startTimeout = 90 * time.Second

// startScript puts itself into the host's cgroup, where the processes of nsenter are not, and leaves the daemon behind as
// a child of the host's first process.
const startScript = `
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
	echo 0 >/sys/fs/cgroup/init/cgroup.procs
else
	for dir in /sys/fs/cgroup/*/; do echo 0 >"$dir/cgroup.procs"; done
fi
setsid "$@" </dev/null >&2 &
echo $!`

// StartEngine starts containerd, if it is not running, and dockerd, and returns when the engine answers. The flags are
// added to those of Config.EngineFlags for this start.
func (h *Host) StartEngine(ctx context.Context, flags ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	began := time.Now()
	p, err := h.daemon(dockerd)
	if err != nil {
		return err
	}
	if p.pid != 0 {
		return h.errorf("dockerd is running already")
	}
	p, err = h.daemon(containerd)
	if err == nil && p.pid == 0 {
		err = h.startDaemon(ctx, containerd, containerdSocket, []string{containerd}, func() error { return nil })
	}
	if err != nil {
		return err
	}
	args := slices.Concat([]string{dockerd, "--host", "unix://" + dockerSocket, "--containerd", containerdSocket, "--insecure-registry", wire},
		h.lab.record.EngineFlags, flags)
	var version string
	err = h.startDaemon(ctx, dockerd, dockerSocket, args, func() error {
		version, err = h.EngineVersion(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if !strings.HasPrefix(version, h.Engine+".") {
		return h.errorf("engine %s: want %s", version, h.Engine)
	}
	h.lab.logf("%s: engine %s answers after %s", h.Name, version, since(began))
	return nil
}

// startDaemon returns when the daemon's socket is there and answers() has succeeded. Both daemons listen before they are
// ready, and leave a client waiting until they are. If they end instead, the error holds what they said.
func (h *Host) startDaemon(ctx context.Context, name, socket string, args []string, answers func() error) error {
	log, err := os.OpenFile(h.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	first, err := h.init()
	if err != nil {
		return err
	}
	// One that was killed leaves its socket, which would look like the new one's.
	socket = fmt.Sprintf("/proc/%d/root%s", first.pid, socket)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	p, err := h.spawn(ctx, first, log, name, args)
	if err != nil {
		return err
	}
	err = poll(ctx, name, func() (bool, error) {
		if _, err := os.Stat(socket); err == nil {
			return true, nil
		}
		if !p.alive() {
			return false, errors.New("ended")
		}
		return false, nil
	})
	if err == nil {
		err = answers()
	}
	if err != nil {
		said, readErr := tail(log.Name(), info.Size())
		return errors.Join(h.errorf("start %s: %w: %s", name, err, said), readErr)
	}
	return nil
}

// spawn leaves a process behind that writes to log, and finds it on the machine by its number inside the host.
func (h *Host) spawn(ctx context.Context, first process, log *os.File, name string, args []string) (process, error) {
	cmd := h.Command(ctx, append([]string{"sh", "-euc", startScript, name}, args...)...)
	cmd.Stderr = log
	number, err := cmd.Output()
	if err != nil {
		return process{}, h.errorf("start %s: %w", name, err)
	}
	return findIn(first, numbered(strings.TrimSpace(string(number))))
}

// EngineVersion asks the engine for its version. It waits for an engine that is about to answer.
func (h *Host) EngineVersion(ctx context.Context) (string, error) {
	return h.Docker(ctx, "version", "--format", "{{.Server.Version}}")
}

// StopEngine ends dockerd with SIGTERM, as systemctl stop docker does: containers are stopped, unless the engine runs
// with --live-restore. It succeeds if dockerd is not running.
func (h *Host) StopEngine(ctx context.Context) error { return h.endDaemon(ctx, dockerd, unix.SIGTERM) }

// KillEngine ends dockerd alone with SIGKILL. Containers, plugins and containerd live on.
func (h *Host) KillEngine(ctx context.Context) error { return h.endDaemon(ctx, dockerd, unix.SIGKILL) }

// KillContainerd ends containerd with SIGKILL. Containers and plugins live on with their shims. StartEngine starts it again.
func (h *Host) KillContainerd(ctx context.Context) error {
	return h.endDaemon(ctx, containerd, unix.SIGKILL)
}

// RestartEngine is StopEngine and StartEngine.
func (h *Host) RestartEngine(ctx context.Context, flags ...string) error {
	if err := h.StopEngine(ctx); err != nil {
		return err
	}
	return h.StartEngine(ctx, flags...)
}

// EngineLog returns all that dockerd has written since the host was made, over all its starts.
func (h *Host) EngineLog() (string, error) {
	data, err := os.ReadFile(h.path(dockerd + ".log"))
	return string(data), err
}

func (h *Host) endDaemon(ctx context.Context, name string, sig unix.Signal) error {
	p, err := h.daemon(name)
	if err == nil {
		err = p.end(ctx, sig)
	}
	if err != nil {
		return h.errorf("end %s: %w", name, err)
	}
	return nil
}

// daemon returns the process of that name, or the zero process.
func (h *Host) daemon(name string) (process, error) {
	first, err := h.init()
	if err != nil {
		return process{}, err
	}
	if first.pid == 0 {
		return process{}, h.errorf("is off")
	}
	return findIn(first, named(name))
}

func (h *Host) importImage(ctx context.Context) error {
	began := time.Now()
	_, err := h.Docker(ctx, "import", "--change", `CMD ["sh","-c","trap 'exit 0' TERM; sleep 2147483647 & wait"]`,
		"/usr/share/lab/image.tar", Image)
	if err != nil {
		return err
	}
	if _, err := h.Docker(ctx, "tag", Image, "busybox:latest"); err != nil {
		return err
	}
	h.lab.logf("%s: %s imported in %s", h.Name, Image, since(began))
	return nil
}

// PluginPID returns the process of an enabled managed plugin, by its number inside the host.
func (h *Host) PluginPID(ctx context.Context, name string) (int, error) {
	id, err := h.Docker(ctx, "plugin", "inspect", "--format", "{{.Id}}", name)
	if err != nil {
		return 0, err
	}
	// Engines keep plugins in a containerd namespace of their own, and the shim writes down what it started.
	text, err := h.Run(ctx, "cat", "/run/containerd/io.containerd.runtime.v2.task/plugins.moby/"+id+"/init.pid")
	if err != nil {
		return 0, fmt.Errorf("plugin %s is not running: %w", name, err)
	}
	var pid int
	if _, err := fmt.Sscan(text, &pid); err != nil {
		return 0, h.errorf("plugin %s: init.pid %q: %w", name, text, err)
	}
	return pid, nil
}

// KillPlugin ends the plugin's process with SIGKILL. The engine then starts it again, as it does after a crash.
func (h *Host) KillPlugin(ctx context.Context, name string) error {
	pid, err := h.PluginPID(ctx, name)
	if err != nil {
		return err
	}
	_, err = h.Run(ctx, "kill", "-KILL", fmt.Sprint(pid))
	return err
}

// InstallPlugin makes a managed plugin of a directory with config.json and rootfs/, sets it and enables it. A name
// without a tag gets :latest from the engine, and is known by that only.
func (h *Host) InstallPlugin(ctx context.Context, name, dir string, settings map[string]string) error {
	const build = "/var/tmp/plugin"
	if _, err := h.Run(ctx, "rm", "-rf", build); err != nil {
		return err
	}
	if err := h.Copy(ctx, dir, build); err != nil {
		return err
	}
	if _, err := h.Docker(ctx, "plugin", "create", name, build); err != nil {
		return err
	}
	if len(settings) > 0 {
		args := []string{"plugin", "set", name}
		for key, value := range settings {
			args = append(args, key+"="+value)
		}
		if _, err := h.Docker(ctx, args...); err != nil {
			return err
		}
	}
	if _, err := h.Docker(ctx, "plugin", "enable", name); err != nil {
		return err
	}
	_, err := h.Run(ctx, "rm", "-rf", build)
	return err
}
