package kerneltest

import (
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NetNS is a network namespace of a test. It ends with the test.
type NetNS struct {
	fd netns.NsHandle
}

// NewNetNS makes a network namespace with its loopback device up. The test needs root; without, it fails.
func NewNetNS(t testing.TB) *NetNS {
	t.Helper()
	n := &NetNS{}
	err := abroad(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare --net: %w", err)
		}
		var err error
		n.fd, err = netns.GetFromPath(ownNS)
		return err
	}, loopbackUp)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.End)
	return n
}

// OpenNetNS opens a namespace that is pinned at path, such as the one that a Kernel makes below its Dir.
func OpenNetNS(t testing.TB, path string) *NetNS {
	t.Helper()
	fd, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	n := &NetNS{fd: fd}
	t.Cleanup(n.End)
	return n
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// End ends the namespace before the test does, as when a container dies; the kernel takes it apart in the background. It
// may be called twice.
func (n *NetNS) End() {
	if n.fd.IsOpen() {
		_ = n.fd.Close()
	}
}

// FD is a descriptor of the namespace, valid until the test ends.
func (n *NetNS) FD() int { return int(n.fd) }

// Do runs f on a thread that is in the namespace, and waits for it. Sockets that f opens stay there. f must not call
// t.Fatal: it is on another goroutine.
func (n *NetNS) Do(f func() error) error {
	return abroad(func() error { return netns.Set(n.fd) }, f)
}

const ownNS = "/proc/thread-self/ns/net"

// abroad lets a thread enter another namespace, runs f there and brings the thread back. Letting the runtime end the thread is
// for what cannot be brought back only: it never ends the process's first one, which would keep the namespace for good.
func abroad(enter, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		old, err := netns.GetFromPath(ownNS)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer old.Close()
		if err = enter(); err == nil {
			err = f()
		}
		if netns.Set(old) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Run runs a command in the namespace, with its words split at blanks, and gives back what it prints. It fails the test
// when the command fails.
func (n *NetNS) Run(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := n.Try(format, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try is Run for commands that may fail.
func (n *NetNS) Try(format string, args ...any) (string, error) {
	command := fmt.Sprintf(format, args...)
	var out []byte
	err := n.Do(func() error {
		words := strings.Fields(command)
		var err error
		out, err = exec.Command(words[0], words[1:]...).CombinedOutput() // a child begins where its thread is
		return err
	})
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Join lays a cable between two namespaces: a veth pair whose ends are named dev in both, up, with the given addresses
// (prefixes, any number, of which those of IPv6 are usable at once).
func Join(t testing.TB, a, b *NetNS, dev string, aAddrs, bAddrs []string) {
	t.Helper()
	err := a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: dev}, PeerName: dev, PeerNamespace: netlink.NsFd(b.fd),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		ns    *NetNS
		addrs []string
	}{{a, aAddrs}, {b, bAddrs}} {
		end.ns.Run(t, "ip link set %s up", dev)
		for _, addr := range end.addrs {
			nodad := ""
			if strings.Contains(addr, ":") {
				nodad = "nodad"
			}
			end.ns.Run(t, "ip addr add %s dev %s %s", addr, dev, nodad)
		}
	}
}

// Dump is everything a test can see of the namespace, without what changes by itself: for comparison before and after.
func (n *NetNS) Dump(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	for _, command := range []string{
		"ip -br link show", "ip -br addr show", "ip route show table all", "ip -6 route show table all",
		"bridge fdb show", "ip neigh show nud permanent", "nft list ruleset",
	} {
		fmt.Fprintf(&b, "# %s\n%s", command, n.Run(t, "%s", command))
	}
	return b.String()
}
