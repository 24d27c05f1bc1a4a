package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// neighLimits bound the neighbour tables, one for each family and for all namespaces of a host: how many entries are left alone,
// are cut after 5 s, and are all there may be. Permanent entries such as ours do not count (neigh_alloc, Linux 5.0), but what
// containers find out about one another does, and the kernel's own limit is 1024. These are Docker's for its overlay, so that the
// two never disagree.
var neighLimits = map[string]int{"gc_thresh1": 8192, "gc_thresh2": 49152, "gc_thresh3": 65536}

// limitsFile holds what was there before, beside the pin: on a file system that a reboot empties, as it does the limits.
const limitsFile = "limits"

// raiseLimits raises what is lower, and notes what it was. In namespaces other than the host's first there are no such keys, and
// nothing to do.
func (k *Kernel) raiseLimits() error {
	noted, err := k.readLimits()
	if err != nil {
		return err
	}
	raise := make(map[string]int)
	err = inside(k.host.fd, func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			for name, limit := range neighLimits {
				key := "net/" + family + "/neigh/default/" + name
				now, err := k.readNumber(key)
				if errors.Is(err, unix.ENOENT) {
					continue
				}
				if err != nil {
					return fmt.Errorf("sysctl %s: %w", key, err)
				}
				if now >= limit {
					continue
				}
				raise[key] = limit
				if _, known := noted[key]; !known {
					noted[key] = now
				}
			}
		}
		return nil
	})
	if err != nil || len(raise) == 0 {
		return err
	}
	var text strings.Builder
	for key, was := range noted {
		fmt.Fprintf(&text, "%s %d\n", key, was)
	}
	if err := writeFile(k.limitsPath(), []byte(text.String())); err != nil {
		return err
	}
	k.log.WithField("file", k.limitsPath()).Info("raised the limits of the neighbour tables; the file says what they were")
	return k.writeNumbers(raise)
}

// restoreLimits puts back what was there before, where it is still what we made it.
func (k *Kernel) restoreLimits() error {
	noted, err := k.readLimits()
	if err != nil || len(noted) == 0 {
		return err
	}
	err = inside(k.host.fd, func() error {
		for key := range noted {
			now, err := k.readNumber(key)
			if err != nil || now != neighLimits[filepath.Base(key)] {
				delete(noted, key)
			}
		}
		return nil
	})
	return errors.Join(err, k.writeNumbers(noted), removeFile(k.limitsPath()))
}

func (k *Kernel) limitsPath() string { return filepath.Join(k.dir, limitsFile) }

// readLimits reads what was noted. Lines that are none of ours are left out.
func (k *Kernel) readLimits() (map[string]int, error) {
	noted := make(map[string]int)
	text, err := os.ReadFile(k.limitsPath())
	if errors.Is(err, os.ErrNotExist) {
		return noted, nil
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, numeric := strconv.Atoi(value)
		if neighLimits[filepath.Base(key)] != 0 && numeric == nil {
			noted[key] = n
		}
	}
	return noted, err
}

// readNumber is called inside the host's namespace.
func (k *Kernel) readNumber(key string) (int, error) {
	text, err := k.proc.read(key)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func (k *Kernel) writeNumbers(values map[string]int) error {
	return inside(k.host.fd, func() error {
		var errs []error
		for key, value := range values {
			if err := k.proc.write(key, strconv.Itoa(value)); err != nil {
				errs = append(errs, fmt.Errorf("sysctl -w %s=%d: %w", key, value, err))
			}
		}
		return errors.Join(errs...)
	})
}
