package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ownNS is the namespace of the calling thread. It is asked of the kernel by this path, not by numbers of processes: those
// are wrong where /proc was mounted for another PID namespace.
const ownNS = "/proc/thread-self/ns/net"

// sharedSysctls hold in our namespace: nothing is routed in it, and no bridged frame meets a firewall. They are written
// again before each use, for bridge-nf-call-* begins at 1 in every namespace, also in one that was there already, when the
// module br_netfilter is loaded later. A key that is not there needs not be off.
var sharedSysctls = []string{
	"net/bridge/bridge-nf-call-iptables",
	"net/bridge/bridge-nf-call-ip6tables",
	"net/bridge/bridge-nf-call-arptables",
	"net/ipv4/ip_forward",
	"net/ipv6/conf/all/forwarding",
	"net/ipv6/conf/default/forwarding",
}

func (k *Kernel) pin() string { return filepath.Join(k.dir, string(Shared)) }

// prepareShared finds our namespace where it is pinned, and makes it if it is needed and not there.
func (k *Kernel) prepareShared(needed bool) error {
	fd, err := openPin(k.pin())
	if err != nil {
		return fmt.Errorf("namespace %s: %w", Shared, err)
	}
	if k.shared != nil && fd.IsOpen() && !fd.Equal(k.shared.fd) { // replaced by others
		k.shared.close()
		k.shared = nil
		k.forget()
	}
	switch {
	case k.shared != nil && !fd.IsOpen():
		if err := k.pinAgain(); err != nil {
			return fmt.Errorf("namespace %s: %w", Shared, err)
		}
	case k.shared != nil:
		_ = fd.Close()
	case fd.IsOpen():
		if err := k.openShared(fd); err != nil {
			return err
		}
		k.forget()
		k.log.WithField("namespace", k.pin()).Info("adopted the namespace of bridges and VXLAN devices")
	case needed:
		if fd, err = k.makeShared(); err != nil {
			return fmt.Errorf("namespace %s: %w", Shared, err)
		}
		if err := k.openShared(fd); err != nil {
			return err
		}
		k.log.WithField("namespace", k.pin()).Info("made the namespace of bridges and VXLAN devices")
		k.warnIfPrivate()
		return nil
	}
	if !needed {
		return nil
	}
	var changed []string
	err = inside(k.shared.fd, func() (err error) { changed, err = k.secure(); return err })
	if len(changed) != 0 {
		k.counted.add("sysctl", len(changed))
		k.log.WithField("namespace", k.pin()).Warnf("repaired what somebody else had changed: %s must be 0", strings.Join(changed, ", "))
	}
	if err != nil {
		return fmt.Errorf("namespace %s: %w", Shared, err)
	}
	return nil
}

// openShared takes fd over.
func (k *Kernel) openShared(fd netns.NsHandle) error {
	sp, err := openSpace(Shared, fd)
	if err != nil {
		return err
	}
	if k.listening {
		if err := sp.listen(k.heard, k.doubts.all); err != nil {
			sp.close()
			return err
		}
	}
	k.shared = sp
	return nil
}

// pinAgain pins the namespace that is open here: somebody has unmounted it, and it would end with this process.
func (k *Kernel) pinAgain() error {
	if err := k.makePin(); err != nil {
		return err
	}
	if err := inside(k.shared.fd, k.mountPin); err != nil {
		return errors.Join(err, k.removePin())
	}
	k.counted.add("namespace", 1)
	k.log.WithField("namespace", k.pin()).Warn("repaired what somebody else had changed: the namespace was not pinned any more")
	return nil
}

// mountPin pins the namespace of the calling thread. The mount point is on a shared mount, which carries it to the host. What is
// mounted is the namespace, not the path: it stays when the thread ends.
func (k *Kernel) mountPin() error {
	if err := mountOver(ownNS, k.pin()); err != nil {
		return fmt.Errorf("mount --bind %s %s: %w", ownNS, k.pin(), err)
	}
	return nil
}

// warnIfPrivate says beforehand what else would be noticed when the plugin is updated.
func (k *Kernel) warnIfPrivate() {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	if !onSharedMount(f, k.dir) {
		k.log.WithField("namespace", k.pin()).Warn("not on a mount that is shared with the host: bridges and VXLAN devices may end with this process")
	}
}

// openPin opens a namespace that is mounted at path. A closed handle means that there is none.
func openPin(path string) (netns.NsHandle, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) {
		return netns.None(), nil
	}
	if err != nil {
		return netns.None(), fmt.Errorf("%s: %w", path, err)
	}
	if fs.Type != unix.NSFS_MAGIC { // a stale pin: the file of a mount that a reboot has ended
		return netns.None(), nil
	}
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return netns.None(), fmt.Errorf("%s: %w", path, err)
	}
	if kind, err := unix.IoctlRetInt(int(fd), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		_ = fd.Close()
		return netns.None(), fmt.Errorf("%s: is a namespace, but not of the network", path)
	}
	return fd, nil
}

// makeShared makes the namespace and pins it. It is set up before it is pinned, so that whoever finds the pin finds it
// complete; a crash before leaves nothing but an empty file.
func (k *Kernel) makeShared() (netns.NsHandle, error) {
	if err := k.makePin(); err != nil {
		return netns.None(), err
	}
	var fd netns.NsHandle
	err := fresh(func() error {
		if _, err := k.secure(); err != nil {
			return err
		}
		if err := k.mountPin(); err != nil {
			return err
		}
		var err error
		fd, err = netns.GetFromPath(ownNS)
		return err
	})
	if err != nil {
		return netns.None(), errors.Join(err, k.removePin())
	}
	return fd, nil
}

// makePin makes the empty file to mount over. One that is there is the rest of a mount: it is taken away and made anew
// only if it is an empty file.
func (k *Kernel) makePin() error {
	if err := makeDir(k.dir); err != nil {
		return err
	}
	if info, err := os.Lstat(k.pin()); err == nil {
		if !info.Mode().IsRegular() || info.Size() != 0 {
			return fmt.Errorf("%s: is in the way, and is not the empty file of a mount", k.pin())
		}
		if err := removeFile(k.pin()); err != nil {
			return err
		}
	}
	return makeFile(k.pin())
}

// secure writes sharedSysctls where they differ, in the namespace of the calling thread, and says which did.
func (k *Kernel) secure() (changed []string, err error) {
	for _, key := range sharedSysctls {
		value, err := k.proc.read(key)
		if errors.Is(err, unix.ENOENT) || err == nil && value == "0" {
			continue
		}
		if err == nil {
			err = k.proc.write(key, "0")
		}
		if err != nil {
			return changed, fmt.Errorf("sysctl -w %s=0: %w", key, err)
		}
		changed = append(changed, key)
	}
	return changed, nil
}

// dropShared removes our namespace when nothing of ours is left in it.
func (k *Kernel) dropShared(s *scope) error {
	if k.shared == nil {
		return k.clearPin()
	}
	if k.othersShare() {
		return nil
	}
	devices, err := k.shared.devices()
	if err != nil {
		return fmt.Errorf("namespace %s: %w", Shared, err)
	}
	for _, d := range devices {
		if isOurs(d.Name) || strings.HasPrefix(d.alias, aliasPrefix) {
			return nil
		}
	}
	if len(s.rules[Shared]) != 0 {
		return nil
	}
	k.shared.close()
	k.shared = nil
	k.raised = false
	if err := k.restoreLimits(); err != nil {
		k.log.WithError(err).Warn("the limits of the neighbour tables are not as they were before")
	}
	if err := k.removePin(); err != nil {
		return fmt.Errorf("namespace %s: %w", Shared, err)
	}
	k.log.WithField("namespace", k.pin()).Info("removed the namespace of bridges and VXLAN devices")
	return nil
}

// clearPin removes what is left of a pin where no namespace is: the process was killed between the file and the mount, or between
// the end of the mount and that of the file.
func (k *Kernel) clearPin() error {
	info, err := os.Lstat(k.pin())
	switch {
	case err == nil && (!info.Mode().IsRegular() || info.Size() != 0):
		return nil // it is not ours
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("namespace %s: %w", Shared, err)
	case err != nil:
		if _, err := os.Lstat(k.dir); err != nil {
			return nil
		}
	}
	if err := k.removePin(); err != nil {
		return fmt.Errorf("namespace %s: %w", Shared, err)
	}
	return nil
}

// removePin unmounts the namespace, as often as it is mounted, and removes the file and our directory if it is empty.
func (k *Kernel) removePin() error {
	for {
		fd, err := openPin(k.pin())
		if err != nil {
			return err
		}
		if !fd.IsOpen() {
			break
		}
		_ = fd.Close()
		if err := unmount(k.pin()); err != nil {
			return fmt.Errorf("umount %s: %w", k.pin(), err)
		}
	}
	if err := removeFile(k.pin()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = removeFile(k.dir) // not empty: others have something there
	return nil
}
