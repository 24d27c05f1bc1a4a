//go:build e2e

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildPlugin makes a directory that InstallPlugin takes.
func buildPlugin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "rootfs", "plugin"), "./testdata/plugin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config, err := os.ReadFile("testdata/plugin/config.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (lt labTest) plugin(t *testing.T) {
	const name = "toy:latest"
	if _, err := lt.b.PluginPID(lt.ctx, name); err == nil {
		t.Error("PluginPID of a plugin that is not there: no error")
	}
	if err := lt.b.InstallPlugin(lt.ctx, name, buildPlugin(t), map[string]string{"GREETING": "hello"}); err != nil {
		t.Fatal(err)
	}
	first, err := lt.b.PluginPID(lt.ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	environ := lt.run(t, lt.b, "cat", fmt.Sprintf("/proc/%d/environ", first))
	for _, want := range []string{"GREETING=hello\x00", "OTHER=kept\x00"} {
		if !strings.Contains(environ, want) {
			t.Errorf("the plugin's environment lacks %q: %q", want, environ)
		}
	}
	lt.docker(t, lt.b, "plugin", "disable", name)
	if pid, err := lt.b.PluginPID(lt.ctx, name); err == nil {
		t.Errorf("a disabled plugin is process %d", pid)
	}
	lt.docker(t, lt.b, "plugin", "enable", name)
	if first, err = lt.b.PluginPID(lt.ctx, name); err != nil {
		t.Fatal(err)
	}
	// The kill comes last: an engine that is told to disable a plugin while it starts it again waits for 10 s and more.
	if err := lt.b.KillPlugin(lt.ctx, name); err != nil {
		t.Fatal(err)
	}
	err = poll(lt.ctx, "the engine to start the plugin again", func() (bool, error) {
		pid, err := lt.b.PluginPID(lt.ctx, name)
		return err == nil && pid != first, nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (lt labTest) registry(t *testing.T) {
	addr, err := lt.a.StartRegistry(lt.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := lt.a.StartRegistry(lt.ctx); err != nil || again != addr {
		t.Errorf("started again: %s, %v; want %s", again, err, addr)
	}
	image := addr + "/pushed:1"
	lt.docker(t, lt.a, "tag", Image, image)
	lt.docker(t, lt.a, "push", "-q", image)
	lt.docker(t, lt.b, "run", "--rm", "--network", "none", "--pull", "always", image, "true")
	lt.docker(t, lt.b, "rmi", image)
}
