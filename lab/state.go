package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// recordFormat is raised when a record of an older program can no longer be read as it is.
const recordFormat = 2

// A record is what another process needs to know of a lab. It does not change while the lab is up: what does change,
// the first process of each host, has a file of its own, so that no process holds an old copy of it.
type record struct {
	Format      int
	Name        string
	EngineFlags []string `json:",omitempty"`
	Hosts       []hostRecord
}

type hostRecord struct {
	Engine string // family
	Root   string // directory of the root file system
}

// layout names the files of a lab.
type layout struct{ dir, name string }

func (p layout) lab() string    { return filepath.Join(p.dir, "labs", p.name) }
func (p layout) record() string { return filepath.Join(p.lab(), "lab.json") }
func (p layout) of(elem ...string) string {
	return filepath.Join(append([]string{p.lab()}, elem...)...)
}
func (p layout) initPID(of string) string  { return p.of(of + ".pid") }
func rootsDir(dir string) string           { return filepath.Join(dir, "roots") }
func rootPath(dir string, e engine) string { return filepath.Join(rootsDir(dir), e.rootName()) }

func readRecord(p layout) (record, error) {
	data, err := os.ReadFile(p.record())
	if errors.Is(err, os.ErrNotExist) {
		// A lab that was interrupted before its record was written has nothing but its directory.
		if _, dirErr := os.Stat(p.lab()); dirErr == nil {
			return record{Format: recordFormat, Name: p.name}, nil
		}
	}
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("%s: %w", p.record(), err)
	}
	if r.Format != recordFormat {
		return record{}, fmt.Errorf("%s: format %d, want %d", p.record(), r.Format, recordFormat)
	}
	if r.Name != p.name || len(r.Hosts) < 1 || len(r.Hosts) > maxHosts {
		return record{}, fmt.Errorf("%s: lab %q of %d hosts, want %q", p.record(), r.Name, len(r.Hosts), p.name)
	}
	return r, nil
}

func writeRecord(p layout, r record) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(p.record(), append(data, '\n'))
}

// writeProcess remembers the first process of a host or of the switch.
func writeProcess(path string, p process) error {
	return writeFile(path, fmt.Appendf(nil, "%d %d\n", p.pid, p.start))
}

// readProcess returns the zero process if there is none or it has ended.
func readProcess(path string) (process, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return process{}, nil
	}
	if err != nil {
		return process{}, err
	}
	var p process
	if _, err := fmt.Sscanf(string(data), "%d %d\n", &p.pid, &p.start); err != nil {
		return process{}, fmt.Errorf("%s: %q: %w", path, data, err)
	}
	if !p.alive() {
		return process{}, nil
	}
	return p, nil
}

// writeFile replaces a file whole, so that a reader never sees half of it.
func writeFile(path string, data []byte) error {
	tmp := path + "." + strconv.Itoa(os.Getpid()) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
