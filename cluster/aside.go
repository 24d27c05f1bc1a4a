package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// keyAside in Config.Log is the sentence about what was put aside, until the node is in a cluster again and has been started
// since.
const keyAside = "aside"

// asidePrefix and a number are the names of what was put aside, in Config.Dir.
const asidePrefix = "damaged-"

// keptAside is how many of them are kept: a disk that fails at every start must not fill up.
const keptAside = 3

// clearAway moves away what has the name of a file of ours and is none, as a directory, a pipe or a link: reading a pipe never
// ends, and nothing can be written in the place of a directory.
func (c *Cluster) clearAway() error {
	dir := c.cfg.Dir
	if info, err := os.Stat(dir); exists(dir) && (err != nil || !info.IsDir()) {
		to := nextName(dir + "." + asidePrefix)
		if err := rename(dir, to); err != nil {
			return fmt.Errorf("cluster: %s is no directory: %w", dir, err)
		}
		forgetAside(dir + "." + asidePrefix)
		c.log.Errorf("cluster: %s was no directory, and is %s now", dir, to)
	}
	for _, name := range []string{keyFile, epochFile, cacheFile, snapshotDir} {
		path := filepath.Join(dir, name)
		if is := kindOf(path); is != 0 && is != wanted(name) {
			to, err := c.moveAside(name)
			if err != nil {
				return err
			}
			c.log.Errorf("cluster: %s was no file of ours, and is in %s now", path, to)
		}
		if is := kindOf(path + ".new"); is != 0 && is != regularFile {
			if err := removeAll(path + ".new"); err != nil {
				return fmt.Errorf("cluster: %w", err)
			}
		}
	}
	return nil
}

// fileKind is what has a name, 0 if nothing has.
type fileKind int

const (
	regularFile fileKind = iota + 1
	directory
	somethingElse
)

func kindOf(path string) fileKind {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return 0
	case info.Mode().IsRegular():
		return regularFile
	case info.IsDir():
		return directory
	}
	return somethingElse
}

func wanted(name string) fileKind {
	if name == snapshotDir {
		return directory
	}
	return regularFile
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// moveAside moves those of the names in Config.Dir that are there.
func (c *Cluster) moveAside(names ...string) (to string, err error) {
	to = nextName(filepath.Join(c.cfg.Dir, asidePrefix))
	if err := makeAll(to); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	for _, name := range names {
		err := rename(filepath.Join(c.cfg.Dir, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cluster: %w", err)
		}
	}
	forgetAside(filepath.Join(c.cfg.Dir, asidePrefix))
	return to, nil
}

// setAside keeps what this node was before it becomes another one, and returns the sentence about it. It is empty when there
// is nothing to be kept: a node that is new, or has left.
func (c *Cluster) setAside(why error) (string, error) {
	_, member := c.cfg.Log.Get(keyCluster)
	if !member && !exists(filepath.Join(c.cfg.Dir, keyFile)) {
		return "", nil
	}
	to, err := c.moveAside(keyFile, snapshotDir, cacheFile)
	if err != nil {
		return "", err
	}
	log := map[string][]byte{}
	for key, value := range c.cfg.Log.Prefix("") {
		log[key] = value
	}
	raw, err := json.Marshal(log)
	if err == nil {
		err = writeSynced(filepath.Join(to, "log.json"), raw)
	}
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	was := ""
	if id := log[keyNode]; len(id) > 0 {
		was = " " + string(id)
	}
	return fmt.Sprintf("what this host had as a node of the cluster was damaged (%s) and is in %s now; it joins as a new node, and its old one%s has to be forgotten: `carrick forget`",
		strings.ReplaceAll(why.Error(), "\n", "; "), to, was), nil
}

// tellAside is for the operator: until this node is in a cluster again, and for one life at least.
func (c *Cluster) tellAside(now bool) {
	text, ok := c.cfg.Log.Get(keyAside)
	if !ok {
		return
	}
	if _, member := c.cfg.Log.Get(keyCluster); member && !now {
		if err := c.cfg.Log.Apply(Write{Key: keyAside}); err != nil {
			c.log.WithError(err).Warn("cluster: what was put aside is told once more at the next start")
		}
		return
	}
	c.alarms.hold(keyAside, string(text))
}

// nextName is prefix and the first number after all that are there.
func nextName(prefix string) string {
	next := uint64(1)
	if all := asideNumbers(prefix); len(all) > 0 {
		next = all[len(all)-1] + 1
	}
	return prefix + strconv.FormatUint(next, 10)
}

// forgetAside removes all but the newest. What cannot be removed does no harm.
func forgetAside(prefix string) {
	all := asideNumbers(prefix)
	for len(all) > keptAside {
		_ = removeAll(prefix + strconv.FormatUint(all[0], 10))
		all = all[1:]
	}
}

// asideNumbers are the numbers of what has that prefix, ascending.
func asideNumbers(prefix string) []uint64 {
	entries, err := os.ReadDir(filepath.Dir(prefix))
	if err != nil {
		return nil
	}
	var all []uint64
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(prefix))
		n, err := strconv.ParseUint(number, 10, 62)
		if ok && err == nil && strconv.FormatUint(n, 10) == number {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}
