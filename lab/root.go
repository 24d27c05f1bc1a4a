package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An engine is a family of Docker engines and the release of Debian that has it.
type engine struct {
	family   string
	suite    string
	packages []string // what this release needs beyond rootPackages
}

// engines is in the order of their age; the last is the default.
var engines = []engine{
	{family: "20.10", suite: "bookworm"}, // its docker.io holds the client
	{family: "26.1", suite: "trixie", packages: []string{"docker-cli"}},
	{family: "28.5", suite: "forky", packages: []string{"docker-cli"}},
}

// rootPackages are what a host needs to run, then what tests and people like to find on it.
var rootPackages = []string{
	"docker.io", "iptables", "nftables", "iproute2", "iputils-ping", "procps", "kmod", "ca-certificates", "tini", "busybox-static",
	"conntrack", "tcpdump", "ethtool", "curl", "socat", "iperf3",
}

// imageScript makes the image inside a new root file system.
//
//go:embed image.sh
var imageScript string

// Engines returns the families that Config.Engines may name, the oldest first.
func Engines() []string {
	var names []string
	for _, e := range engines {
		names = append(names, e.family)
	}
	return names
}

// Mix is what CARRICK_ENGINES calls hosts of which each has another engine.
const Mix = "mix"

// Chosen returns what tests run on: the families of the environment's CARRICK_ENGINES, separated by commas, and Mix; or
// the oldest, the newest, and Mix, where each of those between has a host.
func Chosen() ([]string, error) {
	list := os.Getenv("CARRICK_ENGINES")
	if list == "" {
		all := Engines()
		return []string{all[0], all[len(all)-1], Mix}, nil
	}
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != Mix {
			if _, err := findEngine(name); err != nil {
				return nil, fmt.Errorf("CARRICK_ENGINES: %w, or %s", err, Mix)
			}
		}
		names = append(names, name)
	}
	return names, nil
}

// EnginesOf returns the families of what Chosen returned.
func EnginesOf(chosen string) []string {
	if chosen == Mix {
		return Engines()
	}
	return []string{chosen}
}

func findEngine(family string) (engine, error) {
	i := slices.IndexFunc(engines, func(e engine) bool { return e.family == family })
	if i < 0 {
		return engine{}, fmt.Errorf("engine %q: want one of %s", family, strings.Join(Engines(), ", "))
	}
	return engines[i], nil
}

func (e engine) include() []string { return append(slices.Clone(rootPackages), e.packages...) }

// rootName changes when what the root file system is made from does.
func (e engine) rootName() string {
	sum := sha256.Sum256([]byte(e.suite + strings.Join(e.include(), ",") + imageScript))
	return fmt.Sprintf("%s-%x", e.suite, sum[:4])
}

// buildRoot makes the root file system of an engine's family, unless it is there, and returns its path.
func buildRoot(ctx context.Context, dir, family string, logf func(string, ...any)) (string, error) {
	e, err := findEngine(family)
	if err != nil {
		return "", err
	}
	root := rootPath(dir, e)
	if err := os.MkdirAll(rootsDir(dir), 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, root+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := needTools(ctx, "debootstrap"); err != nil {
		return "", err
	}
	began := time.Now()
	logf("building the root file system of engine %s from %s", e.family, e.suite)
	tmp := root + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := debootstrap(ctx, e, tmp, root+".log"); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	logf("root file system of engine %s built in %s", e.family, since(began))
	return root, os.Rename(tmp, root)
}

func debootstrap(ctx context.Context, e engine, root, logPath string) error {
	archive, err := mirror("/etc/apt")
	if err != nil {
		return err
	}
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"--variant=minbase", "--include=" + strings.Join(e.include(), ","), e.suite, root, archive}
	if _, err := os.Stat("/usr/share/debootstrap/scripts/" + e.suite); err != nil {
		args = append(args, "sid") // a release younger than the machine's debootstrap is made as unstable is
	}
	if err := runLogged(ctx, log, "debootstrap", args...); err != nil {
		return err
	}
	return runLogged(ctx, log, "chroot", root, "sh", "-euc", imageScript)
}

// runLogged runs a command in a mount namespace of its own: what it mounts is gone when it ends, however it ends.
func runLogged(ctx context.Context, log *os.File, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if proxy := aptProxy(ctx); proxy != "" {
		cmd.Env = append(cmd.Env, "http_proxy="+proxy)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: unix.CLONE_NEWNS}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Run(); err != nil {
		text, readErr := tail(log.Name(), 0)
		return errors.Join(fmt.Errorf("%s: %w: %s", name, err, text), readErr)
	}
	return nil
}

// aptProxy is the proxy that apt is set to use, which debootstrap would not know of.
func aptProxy(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%v", "Acquire::http::Proxy").Output()
	if err != nil {
		return "" // no apt-config, no proxy; a wrong guess fails at the first download, with a log
	}
	return strings.TrimSpace(string(out))
}

// needTools installs the Debian packages of those programs that the machine lacks.
func needTools(ctx context.Context, names ...string) error {
	packages := map[string]string{"nsenter": "util-linux", "unshare": "util-linux", "ip": "iproute2", "nft": "nftables"}
	var lacking []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if p, ok := packages[name]; ok {
			name = p
		}
		lacking = append(lacking, name)
	}
	if len(lacking) == 0 {
		return nil
	}
	install := append([]string{"apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"}, lacking...)
	for _, args := range [][]string{{"apt-get", "update"}, install} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// lockFile waits for an exclusive lock, which ends with the process at the latest.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, "the lock "+path, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// Clean removes the cached root file systems. It refuses while there are labs, which stand on them.
// An empty dir means the default.
func Clean(dir string) error {
	cfg, err := Config{Dir: dir}.complete()
	if err != nil {
		return err
	}
	labs, err := List(cfg.Dir)
	if err != nil {
		return err
	}
	if len(labs) > 0 {
		return fmt.Errorf("labs are up: %s", strings.Join(labs, ", "))
	}
	return os.RemoveAll(cfg.Dir)
}

// List names the labs that are up or were left behind.
func List(dir string) ([]string, error) {
	cfg, err := Config{Dir: dir}.complete()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(cfg.Dir, "labs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// tailLines is what of a log is of use in an error; the whole is in the file.
const tailLines = 20

// tail returns the last lines of a file, of those beyond offset.
func tail(path string, offset int64) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data[min(offset, int64(len(data))):]))
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n"), nil
}
