package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The switch filters in prerouting and postrouting, so that a host that is cut does not reach the switch's own addresses
// either. Frames are dropped and no link goes down: what a host sees is silence, as behind a switch of metal.
const switchRules = `table bridge lab {
	set cut { type ifname; }
	set pairs { typeof iifname . oifname; }
	chain in { type filter hook prerouting priority filter; iifname @cut drop; }
	chain out { type filter hook postrouting priority filter; oifname @cut drop; }
	chain through { type filter hook forward priority filter; iifname . oifname @pairs drop; }
}
`

// The bridge has the addresses that the hosts' default routes point at. It forwards nothing: what is sent to a place
// outside the lab gets no answer.
const switchLinks = `link set lo up
link add br0 type bridge
addr add 198.51.100.1/24 dev br0
addr add 2001:db8::1/64 dev br0 nodad
link set br0 up
`

// In the machine's own namespace a Docker engine may have switched these on, and a new namespace may inherit them.
const switchSysctls = `for k in net/ipv4/ip_forward net/ipv6/conf/all/forwarding net/bridge/bridge-nf-call-iptables \
	net/bridge/bridge-nf-call-ip6tables net/bridge/bridge-nf-call-arptables; do
	[ ! -e /proc/sys/$k ] || echo 0 >/proc/sys/$k
done`

// startSwitch makes the switch's network namespace.
func (l *Lab) startSwitch(ctx context.Context) error {
	if _, err := l.startNamespace(ctx, "switch"); err != nil {
		return err
	}
	if _, err := l.inSwitch(ctx, "", "sh", "-c", switchSysctls); err != nil {
		return err
	}
	if _, err := l.inSwitch(ctx, switchLinks, "ip", "-batch", "-"); err != nil {
		return err
	}
	_, err := l.inSwitch(ctx, switchRules, "nft", "-f", "-")
	return err
}

// startNamespace starts a process that does nothing but keep the network namespace of a member of the lab.
func (l *Lab) startNamespace(ctx context.Context, member string) (process, error) {
	cmd := exec.Command("sleep", "infinity")
	cmd.Env = l.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return process{}, err
	}
	go cmd.Wait() // reaps it, whoever ends it
	p, err := findProcess(cmd.Process.Pid)
	if err == nil {
		err = writeProcess(l.layout.initPID(member), p)
	}
	if err != nil {
		return process{}, errors.Join(err, cmd.Process.Kill())
	}
	return p, enterCgroup(ctx, l.cgroups, l.cgroup(member), p.pid)
}

func (l *Lab) stopNamespace(ctx context.Context, member string) error {
	p, err := readProcess(l.layout.initPID(member))
	if err != nil {
		return err
	}
	return p.end(ctx, unix.SIGKILL)
}

// Switch runs a command of this machine in the network namespace of the switch, where each host is a port of br0 with
// the host's name.
func (l *Lab) Switch(ctx context.Context, args ...string) (string, error) {
	return l.inSwitch(ctx, "", args...)
}

func (l *Lab) inSwitch(ctx context.Context, stdin string, args ...string) (string, error) {
	return l.inNamespace(ctx, "switch", stdin, args...)
}

func (l *Lab) inNamespace(ctx context.Context, member, stdin string, args ...string) (string, error) {
	p, err := readProcess(l.layout.initPID(member))
	if err != nil {
		return "", err
	}
	if p.pid == 0 {
		return "", fmt.Errorf("lab %s: the %s is not running", l.Name, member)
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(p.pid), "--net", "--"}, args...)...)
	cmd.Env = l.env()
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	return output(cmd, member, args)
}

// Cut takes a host off the switch: nothing it sends arrives, nothing reaches it, and its link stays up.
func (l *Lab) Cut(ctx context.Context, h *Host) error {
	return l.setElements(ctx, "add", "cut", strconv.Quote(h.Name))
}

// Heal undoes Cut. What CutPair did stays.
func (l *Lab) Heal(ctx context.Context, h *Host) error {
	return l.setElements(ctx, "delete", "cut", strconv.Quote(h.Name))
}

// CutPair drops what two hosts send to each other, and nothing else.
func (l *Lab) CutPair(ctx context.Context, a, b *Host) error {
	return l.setElements(ctx, "add", "pairs", pair(a, b), pair(b, a))
}

// HealPair undoes CutPair.
func (l *Lab) HealPair(ctx context.Context, a, b *Host) error {
	return l.setElements(ctx, "delete", "pairs", pair(a, b), pair(b, a))
}

func pair(a, b *Host) string { return fmt.Sprintf("%q . %q", a.Name, b.Name) }

// setElements adds first in either case: adding what is there is no error, deleting what is not there is.
func (l *Lab) setElements(ctx context.Context, verb, set string, elements ...string) error {
	var rules strings.Builder
	for _, e := range elements {
		fmt.Fprintf(&rules, "add element bridge lab %s { %s }\n", set, e)
		if verb == "delete" {
			fmt.Fprintf(&rules, "delete element bridge lab %s { %s }\n", set, e)
		}
	}
	_, err := l.inSwitch(ctx, rules.String(), "nft", "-f", "-")
	return err
}

// plug makes the veth pair between the switch and the network namespace of pid. A port that is left of a host that was
// killed a moment ago is removed first, since the kernel takes its time.
func (l *Lab) plug(ctx context.Context, h *Host, pid int) error {
	if err := l.unplug(ctx, h); err != nil {
		return err
	}
	links := fmt.Sprintf("link add %[1]s type veth peer name eth0 address %[2]s netns %[3]d\n"+
		"link set %[1]s master br0 up\n", h.Name, h.mac(), pid)
	_, err := l.inSwitch(ctx, links, "ip", "-batch", "-")
	return err
}

// unplug removes the switch's port of a host, unless the kernel was faster: before ip looks for it, or after that.
func (l *Lab) unplug(ctx context.Context, h *Host) error {
	_, err := l.inSwitch(ctx, "", "ip", "link", "del", h.Name)
	if err != nil && (strings.Contains(err.Error(), "Cannot find device") || strings.Contains(err.Error(), "No such device")) {
		return nil
	}
	return err
}

// env is the environment of everything that runs in the lab: nothing of the caller's gets in. CARRICK_LAB lets a person
// find the lab's processes on the machine.
func (l *Lab) env() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TERM=" + os.Getenv("TERM"), "CARRICK_LAB=" + l.Name,
	}
}

// output runs cmd and returns what it printed. Its error can be read without knowing how the command was started:
// where, which command, how it ended and what it said.
func output(cmd *exec.Cmd, where string, args []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s", where, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), err
}
