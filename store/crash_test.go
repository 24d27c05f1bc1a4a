package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// resum makes the checksum of a file's header right.
func resum(b []byte) []byte {
	note := int(binary.LittleEndian.Uint32(b[fileHeaderSize-8:]))
	sum := crc32.Update(crc32.Checksum(b[:fileHeaderSize-4], castagnoli), castagnoli, b[fileHeaderSize:fileHeaderSize+note])
	binary.LittleEndian.PutUint32(b[fileHeaderSize-4:], sum)
	return b
}

// powerDisk remembers what a power cut would leave: names as of the last fsync of the directory, contents as of the last
// fsync of the file. Before every step it calls crash.
type powerDisk struct {
	dir   string
	names map[string]uint64 // durable: name to inode
	files map[uint64][]byte // durable: inode to contents
	crash func(step string)
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (p *powerDisk) disk() disk {
	return disk{
		boot: thisBoot,
		write: func(f *os.File, b []byte) (int, error) {
			p.crash("write")
			n, err := f.Write(b[:len(b)/2])
			if err != nil {
				return n, err
			}
			p.crash("half written")
			m, err := f.Write(b[len(b)/2:])
			return n + m, err
		},
		sync: func(f *os.File) error {
			p.crash("fsync")
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if !info.IsDir() {
				b, err := os.ReadFile(f.Name())
				if errors.Is(err, os.ErrNotExist) { // renamed meanwhile
					b, err = os.ReadFile(strings.TrimSuffix(f.Name(), ".tmp"))
				}
				p.files[inode(info)] = b
				return err
			}
			if f.Name() != p.dir {
				return nil
			}
			p.names = map[string]uint64{}
			entries, err := os.ReadDir(p.dir)
			for _, e := range entries {
				if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
					p.names[e.Name()] = inode(info)
				}
			}
			return err
		},
		rename: func(from, to string) error {
			p.crash("rename")
			return os.Rename(from, to)
		},
	}
}

// durable is what a power cut leaves of a file.
func (p *powerDisk) durable(name string) []byte { return p.files[p.names[name]] }

// newestMark is what the lock file holds, if there is one.
func newestMark(dir string) []byte {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil
	}
	return b
}

// leave writes into dir what a power cut leaves.
func (p *powerDisk) leave(t *rapid.T, dir string) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, inode := range p.names {
		if err := os.WriteFile(filepath.Join(dir, name), p.files[inode], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingAcknowledgedIsLost does random commits, generations and reopenings, and looks at every step at what a kill
// and what a power cut would leave: the acknowledged state, or that with the commit under way.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	top := t.TempDir()
	runs, crashes := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(top, fmt.Sprint("run", runs), "s")
		acked, pending := map[string]string{}, map[string]string{}
		var s *Store
		var told Position // at any moment
		p := &powerDisk{dir: dir, files: map[uint64][]byte{}}
		look := func(what, copied string, d disk) {
			s, err := open(copied, d)
			if err != nil {
				t.Fatal(err)
			}
			got := contents(s)
			if s.Damage() != "" || !maps.Equal(got, acked) && !maps.Equal(got, pending) {
				t.Fatalf("%s: damage %q, contents %v, acknowledged %v, under way %v", what, s.Damage(), got, acked, pending)
			}
			if now := s.Position(); told != (Position{}) && (now.ID != told.ID || now.Commits < told.Commits) {
				t.Fatalf("%s: it is at %+v, and %+v was told", what, now, told)
			}
			s.Close()
			os.RemoveAll(copied)
		}
		p.crash = func(step string) {
			crashes++
			if s != nil {
				told = s.Position()
			}
			cut := filepath.Join(top, "powercut", "s")
			p.leave(t, cut)
			look("power cut before "+step, cut, bootedDisk)
			if mark := newestMark(dir); !bytes.Equal(mark, p.durable(lockName)) { // it may have reached the disk by itself
				p.leave(t, cut)
				if err := os.WriteFile(filepath.Join(cut, lockName), mark, 0o600); err != nil {
					t.Fatal(err)
				}
				look("power cut, with the newest mark, before "+step, cut, bootedDisk)
			}
			killed := filepath.Join(top, "kill", "s")
			if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			look("kill before "+step, killed, fastDisk)
		}
		var err error
		if s, err = open(dir, p.disk()); err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close() }()
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				generation(t, s)
			case 1:
				s.Close()
				if s, err = open(dir, p.disk()); err != nil {
					t.Fatal(err)
				}
			default:
				writes := drawWrites(t)
				pending = after(acked, writes)
				if err := s.Apply(writes...); err != nil {
					t.Fatal(err)
				}
				acked = pending
			}
			if got := contents(s); !maps.Equal(got, acked) {
				t.Fatalf("contents %v, acknowledged %v", got, acked)
			}
		}
	})
	if crashes < 1000 {
		t.Errorf("only %d crash points were seen", crashes)
	}
}

func drawWrites(t *rapid.T) []Write {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Write {
		w := Write{Key: rapid.StringOfN(rapid.RuneFrom([]rune("abc/")), 0, 3, -1).Draw(t, "key")}
		if rapid.Bool().Draw(t, "set") {
			w.Value = rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "value")
		}
		return w
	}), 1, 4).Draw(t, "writes")
}

func after(state map[string]string, writes []Write) map[string]string {
	state = maps.Clone(state)
	for _, w := range writes {
		if w.Value == nil {
			delete(state, w.Key)
		} else {
			state[w.Key] = string(w.Value)
		}
	}
	return state
}

// TestCrashWhileDamageIsPutAside: the damage is told, however far it got.
func TestCrashWhileDamageIsPutAside(t *testing.T) {
	sample := t.TempDir()
	example(t, sample)
	edit(t, filepath.Join(sample, "journal-3"), func(b []byte) []byte { b[90] ^= 1; return b })
	steps := 0
	for fail := 1; ; fail++ {
		dir := filepath.Join(t.TempDir(), filepath.Base(sample))
		copyDir(t, sample, dir)
		n := 0
		count := func() error {
			if n++; n >= fail {
				return syscall.EIO
			}
			return nil
		}
		d := disk{
			boot: thisBoot,
			write: func(f *os.File, b []byte) (int, error) {
				return failOr(count(), func() (int, error) { return f.Write(b) })
			},
			sync: func(f *os.File) error { return errors.Join(count()) },
			rename: func(from, to string) error {
				_, err := failOr(count(), func() (int, error) { return 0, os.Rename(from, to) })
				return err
			},
		}
		s, err := open(dir, d)
		if err == nil {
			s.Close()
		}
		again := mustOpen(t, dir)
		if again.Damage() == "" || len(contents(again)) != 0 {
			t.Fatalf("failure at step %d: damage %q, contents %v", fail, again.Damage(), contents(again))
		}
		if files, err := list(dir); err != nil || len(files.journals) != 1 || len(files.snapshots) != 0 {
			t.Fatalf("failure at step %d: files are left over: %+v %v", fail, files, err)
		}
		again.Close()
		if n < fail {
			break
		}
		steps++
	}
	if steps < 5 {
		t.Errorf("only %d steps", steps)
	}
}

func failOr(err error, do func() (int, error)) (int, error) {
	if err != nil {
		return 0, err
	}
	return do()
}

// TestErrorsOfTheDisk lets every step fail once or for good, and compares with what was acknowledged.
func TestErrorsOfTheDisk(t *testing.T) {
	top := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(top, fmt.Sprint(runs))
		rate := rapid.IntRange(2, 20).Draw(t, "one step in … fails")
		fails := func() error {
			if rapid.IntRange(1, rate).Draw(t, "step") == 1 {
				return syscall.EIO
			}
			return nil
		}
		d := disk{
			boot: thisBoot,
			write: func(f *os.File, b []byte) (int, error) {
				if err := fails(); err != nil {
					n, _ := f.Write(b[:rapid.IntRange(0, len(b)).Draw(t, "written")])
					return n, err
				}
				return f.Write(b)
			},
			sync:   func(f *os.File) error { return fails() },
			rename: func(from, to string) error { return errors.Join(fails(), os.Rename(from, to)) },
		}
		acked := map[string]string{}
		for range rapid.IntRange(1, 4).Draw(t, "lives") {
			s, err := open(dir, d)
			if err != nil {
				continue
			}
			possible := []map[string]string{acked}
			for range rapid.IntRange(0, 6).Draw(t, "commits") {
				writes := drawWrites(t)
				next := after(acked, writes)
				err := s.Apply(writes...)
				switch {
				case err == nil:
					acked = next
					possible = []map[string]string{acked}
				case errors.Is(err, ErrBroken):
					possible = append(possible, next)
				}
				if got := contents(s); !maps.Equal(got, acked) {
					t.Fatalf("contents %v, acknowledged %v", got, acked)
				}
				if rapid.IntRange(0, 3).Draw(t, "generation") == 0 && s.broken == nil {
					_ = s.nextGeneration() // it fails as everything does
				}
			}
			s.Close()
			s, err = open(dir, fastDisk)
			if err != nil {
				t.Fatal(err)
			}
			got, found := contents(s), false
			for _, state := range possible {
				found = found || maps.Equal(got, state)
			}
			if s.Damage() != "" || !found {
				t.Fatalf("damage %q, contents %v, possible %v", s.Damage(), got, possible)
			}
			acked = got
			s.Close()
		}
	})
}
