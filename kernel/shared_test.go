package kernel_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pluginEnv makes the test binary behave as a plugin that makes one network and then waits to be killed.
const pluginEnv = "CARRICK_KERNEL_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(pluginEnv); dir != "" {
		if err := plugin(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func plugin(dir string) error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err == nil {
		return fmt.Errorf("/proc/sys can be written: the test shows nothing")
	}
	k, err := kernel.New(kernel.Config{Dir: dir})
	if err != nil {
		return err
	}
	if err := k.Set(context.Background(), "network a", network(nil)); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = os.Stdin.Read(make([]byte, 1)) // until killed
	return err
}

// In a managed plugin /proc/sys is read-only and processes are numbered anew. What it makes survives it.
func TestSharedNamespaceSurvivesThePlugin(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	run := t.TempDir() // stands for /run/docker, a shared mount that the plugin has with rshared
	for _, args := range []string{"-t tmpfs tmpfs " + run, "--make-shared " + run} {
		if out, err := exec.Command("mount", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("mount %s: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(run, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	h.dir = filepath.Join(run, "carrick")
	const inside = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\""
	cmd := exec.Command("nsenter", "--net="+h.path(t), "unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork",
		"--kill-child", "sh", "-c", "mount --make-private /proc && mount -t proc proc /proc && "+inside, os.Args[0])
	cmd.Env = append(os.Environ(), pluginEnv+"="+h.dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("the plugin says %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	wantLines(t, h.shared(t).Run(t, "ip -br link show"), br, vx)
	checkSecure(t, h)
	h.start(t)
	lines, err := h.Plan("network a", network(t))
	if err != nil || len(lines) != 0 {
		t.Errorf("after the plugin: %v, %d things to do:\n%s", err, len(lines), strings.Join(lines, "\n"))
	}
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if entries, err := os.ReadDir(run); err != nil || len(entries) != 0 {
		t.Errorf("left below %s: %v, %v", run, entries, err)
	}
}

// checkSecure: no bridged frame meets a firewall, and nothing is routed.
func checkSecure(t *testing.T, h *host) {
	t.Helper()
	for _, key := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
		"net.bridge.bridge-nf-call-arptables", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if out := h.shared(t).Run(t, "sysctl -n %s", key); out != "0\n" {
			t.Errorf("%s is %s", key, out)
		}
	}
}

func TestSharedNamespaceIsKeptSecure(t *testing.T) {
	h := newHost(t)
	h.set(t, "network a", network(t))
	checkSecure(t, h)
	h.shared(t).Run(t, "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.ipv4.ip_forward=1") // as a module loaded later does
	h.set(t, "network a", network(t))
	checkSecure(t, h)
	h.set(t, "network a", kernel.State{})
}

// What is at the place of the pin when there is no namespace.
func TestSharedNamespacePin(t *testing.T) {
	h := newHost(t)
	one := kernel.State{Links: []kernel.Link{{Name: br, NS: kernel.Shared, Bridge: &kernel.Bridge{}}}}
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.pin(), nil, 0o600); err != nil { // after a reboot
		t.Fatal(err)
	}
	h.set(t, "a", kernel.State{}) // needs it not, and so looks away
	h.set(t, "a", one)
	h.set(t, "a", kernel.State{})

	if err := os.MkdirAll(h.pin(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.Set(t.Context(), "a", one); err == nil || !strings.Contains(err.Error(), h.pin()+": is in the way") {
		t.Errorf("a directory at the place of the pin: %v", err)
	}
	if err := os.RemoveAll(h.dir); err != nil {
		t.Fatal(err)
	}

	// Somebody unmounts it: it is pinned again, with what is in it.
	h.set(t, "a", one)
	if err := unix.Unmount(h.pin(), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if got := owned(t, h); len(got) != 1 || got[0].Owner != "a" {
		t.Errorf("owners after the namespace was unmounted: %v", got)
	}
	wantLines(t, h.shared(t).Run(t, "ip -br link show"), br)
	// Two use it. It stays for the second, and goes with it.
	two := kernel.State{Links: []kernel.Link{{Name: br2, NS: kernel.Shared, Bridge: &kernel.Bridge{}}}}
	h.set(t, "b", two)
	h.set(t, "a", kernel.State{})
	if got := owned(t, h); len(got) != 1 || got[0].Owner != "b" {
		t.Errorf("owners: %v", got)
	}
	h.set(t, "b", kernel.State{})
	if _, err := os.Stat(h.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", h.dir, err)
	}
	// A Set that fails at once leaves the namespace; the zero State takes it away.
	bad := kernel.State{Links: []kernel.Link{{Name: vx, NS: kernel.Shared, MTU: 1,
		VXLAN: &kernel.VXLAN{VNI: 1, Local: addr("198.51.100.1"), Port: 1}}}}
	err := h.Set(t.Context(), "a", bad)
	if err == nil || !strings.HasPrefix(err.Error(), "ip link add "+vx) {
		t.Errorf("mtu 1: %v", err)
	}
	t.Log(err)
	h.set(t, "a", kernel.State{})
	if _, err := os.Stat(h.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", h.dir, err)
	}
}

// No thread stays behind in a namespace that it entered: each that is used afterwards is where it was.
func TestThreadsComeBack(t *testing.T) {
	h := newHost(t)
	links := func() string {
		list, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range list {
			names = append(names, l.Attrs().Name)
		}
		return strings.Join(names, " ")
	}
	before := links()
	for range 20 {
		h.set(t, "network a", network(t))
		h.set(t, "network a", kernel.State{})
		done := make(chan string, 20)
		for range 20 {
			go func() { done <- links() }()
		}
		for range 20 {
			if after := <-done; after != before {
				t.Fatalf("a thread sees %s, not %s", after, before)
			}
		}
	}
}

// A process that is killed between the file of the pin and its mount, or between the end of the mount and that of the file, leaves
// a file or a directory, which go with the next change.
func TestLeftoverPinGoes(t *testing.T) {
	h := newHost(t)
	for name, left := range map[string]string{"a file": "mkdir %[1]s; touch %[1]s/shared", "a directory": "mkdir %[1]s"} {
		if out, err := exec.Command("sh", "-c", fmt.Sprintf(left, h.dir)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		h.start(t)
		h.set(t, "network a", kernel.State{})
		if _, err := os.Lstat(h.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: is there after a change that needs no namespace: %v", name, err)
		}
	}
}
