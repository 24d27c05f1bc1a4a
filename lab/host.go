package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxHosts keeps the last octet of the underlay's addresses two digits, which are then the same in IPv4 and IPv6.
const maxHosts = 89

//go:embed boot.sh
var bootScript string

// A Host is one Docker host of a lab. Its methods may be called from several goroutines, but not while another one
// switches the host on or off.
type Host struct {
	Name   string // host1, host2, …: its hostname and its port on the switch
	IPv4   string // on eth0
	IPv6   string
	Engine string // its family

	lab   *Lab
	index int
	root  string // directory of the root file system that it stands on
}

func newHost(l *Lab, index int, r hostRecord) *Host {
	return &Host{
		Name: fmt.Sprintf("host%d", index), IPv4: fmt.Sprintf("198.51.100.%d", 10+index), IPv6: fmt.Sprintf("2001:db8::%d", 10+index),
		Engine: r.Engine, lab: l, index: index, root: r.Root,
	}
}

// PowerOn boots the host on the disk it had before, and starts its engine.
func (h *Host) PowerOn(ctx context.Context) error {
	p, err := h.init()
	if err != nil {
		return err
	}
	if p.pid != 0 {
		return h.errorf("is on already")
	}
	if err := h.boot(ctx); err != nil {
		return h.errorf("boot: %w", err)
	}
	return h.StartEngine(ctx)
}

// PowerOff is the power cord: every process of the host is killed at once, and its memory, mounts and network are gone.
// Its disk stays. A host that is off stays off without error.
func (h *Host) PowerOff(ctx context.Context) error {
	p, err := h.init()
	if err == nil {
		err = p.end(ctx, unix.SIGKILL)
	}
	// The kernel of a host without processes answers pings until the kernel finds time to take its network apart.
	if err == nil && p.pid != 0 {
		err = h.lab.unplug(ctx, h)
	}
	if err != nil {
		return h.errorf("power off: %w", err)
	}
	return removeCgroup(ctx, h.lab.cgroups, h.lab.cgroup(h.Name))
}

// Reboot is PowerOff and PowerOn.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.PowerOff(ctx); err != nil {
		return err
	}
	return h.PowerOn(ctx)
}

// Running tells whether the host is switched on.
func (h *Host) Running() bool {
	p, err := h.init()
	return err == nil && p.pid != 0
}

// boot starts a process in namespaces of its own, gives it its cgroup and its wire while it waits, and lets it go on.
func (h *Host) boot(ctx context.Context) error {
	for _, dir := range append(disk(), "root") {
		if err := os.MkdirAll(h.path(dir), 0o755); err != nil {
			return err
		}
	}
	log, err := os.Create(h.path("boot.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	// The network namespace exists before the cgroup namespace: the latter's top is the cgroup the process is in by then.
	cmd := exec.Command("/bin/sh", "-c", `read -r _ && exec unshare --cgroup /bin/sh -euc "$0"`, bootScript)
	cmd.Env = append(h.lab.env(), h.bootEnv()...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS |
		unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID}
	start, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	tell.Close()
	if err != nil {
		return err
	}
	go cmd.Wait() // reaps it, whoever ends it
	p, err := h.prepare(ctx, cmd.Process.Pid)
	if err == nil {
		_, err = io.WriteString(start, "go\n")
	}
	start.Close()
	if err == nil {
		err = waitReady(ctx, ready, log.Name())
	}
	if err != nil {
		return errors.Join(err, p.end(ctx, unix.SIGKILL))
	}
	return nil
}

func (h *Host) prepare(ctx context.Context, pid int) (process, error) {
	p, err := findProcess(pid)
	if err != nil {
		return p, err
	}
	if err := writeProcess(h.lab.layout.initPID(h.Name), p); err != nil {
		return p, err
	}
	if err := enterCgroup(ctx, h.lab.cgroups, h.lab.cgroup(h.Name), pid); err != nil {
		return p, err
	}
	return p, h.lab.plug(ctx, h, pid)
}

// waitReady returns when the boot script says so; if it ends before, with what it said instead.
func waitReady(ctx context.Context, ready *os.File, log string) error {
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	said, err := io.ReadAll(ready)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	if string(said) != "ready\n" {
		text, err := os.ReadFile(log)
		return errors.Join(fmt.Errorf("boot script failed: %s", bytes.TrimSpace(text)), err)
	}
	return nil
}

func (h *Host) bootEnv() []string {
	id := sha256.Sum256([]byte(h.lab.Name + "/" + h.Name))
	return []string{
		"DIR=" + h.path(), "ROOT=" + h.root, "NAME=" + h.Name, "HOSTS=" + h.lab.hostsFile(),
		"ADDR4=" + h.prefix4(), "ADDR6=" + h.prefix6(), "GW4=" + gateway4, "GW6=" + gateway6,
		"CGROUPS=" + mountLines(h.lab.cgroups), "MACHINE_ID=" + hex.EncodeToString(id[:16]),
	}
}

// mac stays the same when the host is switched off and on, as a network card's does.
func (h *Host) mac() string { return fmt.Sprintf("02:00:c6:33:64:%02x", 10+h.index) }

func (h *Host) path(elem ...string) string {
	return h.lab.layout.of(append([]string{h.Name}, elem...)...)
}

func (h *Host) init() (process, error) { return readProcess(h.lab.layout.initPID(h.Name)) }

func (h *Host) errorf(format string, args ...any) error {
	return fmt.Errorf(h.Name+": "+format, args...)
}

// Command prepares a command inside the host, in all its namespaces, for callers that want its pipes or want to stop it
// themselves. When ctx ends it is killed. Interrupt stops it gently.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	p, err := h.init()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(p.pid),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"}, args...)...)
	if err == nil && p.pid == 0 {
		err = h.errorf("is off")
	}
	if err != nil {
		cmd.Err = err
	}
	cmd.Env = h.lab.env()
	// nsenter forks to get into the PID namespace: killing it alone would leave the command running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	return cmd
}

// Interrupt sends SIGINT to a command that Host.Command made and that is running: to the command itself, not to what
// started it, so that Wait returns the command's own last words and exit status. A command that has not yet printed
// anything may not be ready for the signal, and is then ended by it.
func Interrupt(cmd *exec.Cmd) error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		return err
	}
	if len(children) == 0 {
		return fmt.Errorf("%s: is not running", strings.Join(cmd.Args, " "))
	}
	for pid := range strings.FieldsSeq(string(children)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			return err
		}
		if err := unix.Kill(n, unix.SIGINT); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// Run runs a command inside the host and returns what it printed, without the last newline. The error holds the host,
// the command, how it ended and what it wrote to its standard error.
func (h *Host) Run(ctx context.Context, args ...string) (string, error) {
	return output(h.Command(ctx, args...), h.Name, args)
}

// Docker runs docker inside the host.
func (h *Host) Docker(ctx context.Context, args ...string) (string, error) {
	return h.Run(ctx, append([]string{"docker"}, args...)...)
}

// Copy puts a file, or a directory with all it holds, of this machine at the absolute path dst inside the host.
// Directories above dst are made. A directory that exists there already keeps what is not overwritten.
func (h *Host) Copy(ctx context.Context, src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	// Written by a process inside the host: links in the path mean there what they should, /var/run for one.
	if info.IsDir() {
		pack := exec.CommandContext(ctx, "tar", "-C", src, "-c", ".")
		unpack := h.Command(ctx, "sh", "-c", `mkdir -p "$0" && tar -x -p -C "$0"`, dst)
		return h.pipe(pack, unpack, src, dst)
	}
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	mode := fmt.Sprintf("%o", info.Mode().Perm())
	cmd := h.Command(ctx, "sh", "-c", `mkdir -p "$1" && rm -f "$0" && cat >"$0" && chmod "$2" "$0"`, dst, filepath.Dir(dst), mode)
	cmd.Stdin = f
	_, err = output(cmd, h.Name, []string{"copy", src, dst})
	return err
}

func (h *Host) pipe(from, to *exec.Cmd, src, dst string) error {
	var said bytes.Buffer
	from.Stderr = &said
	out, err := from.StdoutPipe()
	if err != nil {
		return err
	}
	to.Stdin = out
	if err := from.Start(); err != nil {
		return err
	}
	_, err = output(to, h.Name, []string{"copy", src, dst})
	if fromErr := from.Wait(); fromErr != nil {
		err = errors.Join(err, fmt.Errorf("tar %s: %w: %s", src, fromErr, bytes.TrimSpace(said.Bytes())))
	}
	return err
}
