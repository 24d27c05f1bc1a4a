package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"github.com/carricknet/carrick/kernel"
)

const noLimits = "ipv4 128 512 1024, ipv6 128 512 1024"

// limits stand for those of the machine, which no test changes.
type limits string

func newLimits(t *testing.T) limits {
	dir := limits(t.TempDir())
	for _, family := range []string{"ipv4", "ipv6"} {
		if err := os.MkdirAll(filepath.Join(string(dir), "sys/net", family, "neigh/default"), 0o700); err != nil {
			t.Fatal(err)
		}
		for i, value := range []string{"128", "512", "1024"} {
			dir.write(t, family, i+1, value)
		}
	}
	return dir
}

func (l limits) path(family string, n int) string {
	return filepath.Join(string(l), "sys/net", family, "neigh/default", fmt.Sprint("gc_thresh", n))
}

func (l limits) write(t *testing.T, family string, n int, value string) {
	t.Helper()
	if err := os.WriteFile(l.path(family, n), []byte(value+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l limits) String() string {
	var all []string
	for _, family := range []string{"ipv4", "ipv6"} {
		line := family
		for n := range 3 {
			value, err := os.ReadFile(l.path(family, n+1))
			if err != nil {
				value = []byte(err.Error())
			}
			line += " " + strings.TrimSpace(string(value))
		}
		all = append(all, line)
	}
	return strings.Join(all, ", ")
}

// tunnels is a network that needs no sysctl.
func tunnels(t *testing.T) kernel.State {
	s := network(t)
	s.Sysctls = nil
	return s
}

// The limits are raised while there is an overlay network, also over a restart, and then are as they were, but for what others have
// made of them.
func TestNeighbourLimits(t *testing.T) {
	h, l := newHost(t), newLimits(t)
	check := func(when, want string) {
		t.Helper()
		if got := l.String(); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	restart := func() {
		t.Helper()
		h.start(t)
		if err := h.FakeProc(string(l)); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	h.set(t, "bridge", kernel.State{Links: []kernel.Link{{Name: br2, NS: kernel.Shared, Bridge: &kernel.Bridge{}}}})
	check("with a bridge", noLimits)
	h.set(t, "network a", tunnels(t))
	const raised = "ipv4 8192 49152 65536, ipv6 8192 49152 65536"
	check("with an overlay network", raised)
	restart()
	h.set(t, "network a", tunnels(t))
	h.set(t, "network a", kernel.State{})
	check("while a network is left", raised)
	h.set(t, "bridge", kernel.State{})
	check("after the last", noLimits)

	l.write(t, "ipv4", 3, "1000000")
	h.set(t, "network a", tunnels(t))
	check("with one that was higher", "ipv4 8192 49152 1000000, ipv6 8192 49152 65536")
	l.write(t, "ipv6", 1, "4096")
	h.set(t, "network a", kernel.State{})
	check("with one that was changed meanwhile", "ipv4 128 512 1000000, ipv6 4096 512 1024")
}

// Where there are no such limits, in any namespace but the first, there is nothing to say.
func TestNoNeighbourLimits(t *testing.T) {
	h := newHost(t)
	h.Close()
	log, hook := logtest.NewNullLogger()
	err := h.Do(func() (err error) {
		h.Kernel, err = kernel.New(kernel.Config{Dir: h.dir, Logger: log})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.set(t, "network a", network(t))
	h.set(t, "network a", kernel.State{})
	for _, e := range hook.AllEntries() {
		if e.Level <= logrus.WarnLevel && !strings.Contains(e.Message, "not on a mount that is shared") {
			t.Errorf("logged: %s %v", e.Message, e.Data)
		}
	}
}
