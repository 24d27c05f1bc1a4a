package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// DefaultDir holds the root file systems and the labs, unless Config.Dir or the environment's CARRICK_LAB_DIR differ.
const DefaultDir = "/var/tmp/carrick-lab"

// closeTimeout bounds Close, which waits for the kernel to let go of what killed processes held.
const closeTimeout = time.Minute

// ErrExists is returned by Start for a lab that is up, or that was left behind: Remove it first.
var ErrExists = errors.New("a lab of this name exists")

// ErrNotExist is returned by Open for a lab that nobody started.
var ErrNotExist = errors.New("no lab of this name")

// Config says which lab to start. The zero value is a lab named "carrick" with three hosts and the newest engine.
type Config struct {
	Name        string   // unique on the machine, part of paths and cgroups: lower case letters, digits and dashes, at most 32
	Hosts       int      // 1 to 89
	Engines     []string // families of the engines, as in Engines; the hosts take them in turn
	EngineFlags []string // given to every dockerd, at every start
	Dir         string   // where root file systems and labs are kept: a real file system, not an overlay
	Logf        func(format string, args ...any)
}

// A Lab is a switch and the hosts on it.
type Lab struct {
	Name  string
	Hosts []*Host

	layout  layout
	record  record
	cgroups []hierarchy
	logf    func(format string, args ...any)
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Start builds what is missing, starts a lab and returns when all its engines answer.
// If it fails it leaves nothing behind but root file systems.
func Start(ctx context.Context, cfg Config) (*Lab, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := needTools(ctx, "nsenter", "unshare", "ip", "nft", "tar"); err != nil {
		return nil, err
	}
	rec := record{Format: recordFormat, Name: cfg.Name, EngineFlags: cfg.EngineFlags}
	for i := range cfg.Hosts {
		family := cfg.Engines[i%len(cfg.Engines)]
		root, err := buildRoot(ctx, cfg.Dir, family, cfg.Logf)
		if err != nil {
			return nil, fmt.Errorf("root file system of engine %s: %w", family, err)
		}
		rec.Hosts = append(rec.Hosts, hostRecord{Engine: family, Root: root})
	}
	began := time.Now()
	l, err := newLab(cfg.Dir, rec, cfg.Logf)
	if err != nil {
		return nil, err
	}
	if err := l.create(); err != nil {
		return nil, err
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.logf("lab %s: %d hosts with engine %s up in %s", l.Name, len(l.Hosts), strings.Join(cfg.Engines, ", "), since(began))
	return l, nil
}

// Open attaches to a lab that was started by this or another process. An empty dir or name means the default.
func Open(dir, name string, logf func(format string, args ...any)) (*Lab, error) {
	cfg, err := Config{Dir: dir, Name: name, Logf: logf}.complete()
	if err != nil {
		return nil, err
	}
	rec, err := readRecord(layout{cfg.Dir, cfg.Name})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s in %s: %w", cfg.Name, cfg.Dir, ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return newLab(cfg.Dir, rec, cfg.Logf)
}

// Remove closes the lab if there is one, whoever started it and however far it came.
func Remove(dir, name string) error {
	l, err := Open(dir, name, nil)
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// Close ends every process of the lab and removes everything of it: namespaces, mounts, links, cgroups and files.
// The cached root file systems stay. It may be called again.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	began := time.Now()
	err := l.each(func(h *Host) error { return h.PowerOff(ctx) })
	err = errors.Join(err, l.stopNamespace(ctx, stranger), l.stopNamespace(ctx, "switch"))
	err = errors.Join(err, removeCgroup(ctx, l.cgroups, l.cgroup("")))
	if err != nil {
		return fmt.Errorf("lab %s: %w", l.Name, err)
	}
	if err := os.RemoveAll(l.layout.lab()); err != nil {
		return fmt.Errorf("lab %s: %w", l.Name, err)
	}
	l.logf("lab %s: down in %s", l.Name, since(began))
	return nil
}

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

func (c Config) complete() (Config, error) {
	if c.Name == "" {
		c.Name = "carrick"
	}
	if len(c.Engines) == 0 {
		c.Engines = []string{engines[len(engines)-1].family}
	}
	if c.Hosts == 0 {
		c.Hosts = max(3, len(c.Engines))
	}
	if c.Dir == "" {
		c.Dir = os.Getenv("CARRICK_LAB_DIR")
	}
	if c.Dir == "" {
		c.Dir = DefaultDir
	}
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
	}
	if !validName.MatchString(c.Name) {
		return c, fmt.Errorf("name %q: want lower case letters, digits and dashes, at most 32", c.Name)
	}
	if c.Hosts < 1 || c.Hosts > maxHosts {
		return c, fmt.Errorf("%d hosts: want 1 to %d", c.Hosts, maxHosts)
	}
	for _, family := range c.Engines {
		if _, err := findEngine(family); err != nil {
			return c, err
		}
	}
	dir, err := filepath.Abs(c.Dir)
	c.Dir = dir
	return c, err
}

func newLab(dir string, rec record, logf func(string, ...any)) (*Lab, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	l := &Lab{Name: rec.Name, layout: layout{dir, rec.Name}, record: rec, logf: logf, cgroups: parseHierarchies(string(mounts))}
	for i, r := range rec.Hosts {
		h := newHost(l, i+1, r)
		if err := h.readAddresses(); err != nil {
			return nil, err
		}
		l.Hosts = append(l.Hosts, h)
	}
	return l, nil
}

// create claims the name: of two processes that start the same lab, one makes the directory.
func (l *Lab) create() error {
	if err := os.MkdirAll(filepath.Dir(l.layout.lab()), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(l.layout.lab(), 0o755)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s in %s: %w", l.Name, l.layout.dir, ErrExists)
	}
	if err != nil {
		return err
	}
	return writeRecord(l.layout, l.record)
}

func (l *Lab) start(ctx context.Context) error {
	if err := l.startSwitch(ctx); err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	return l.each(func(h *Host) error {
		if err := h.PowerOn(ctx); err != nil {
			return err
		}
		return h.importImage(ctx)
	})
}

// each calls f for all hosts at once, since what they wait for is mostly not the processor.
func (l *Lab) each(f func(*Host) error) error {
	errs := make([]error, len(l.Hosts))
	var wg sync.WaitGroup
	for i, h := range l.Hosts {
		wg.Go(func() { errs[i] = f(h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
