package kernel

import (
	"strings"
	"testing"
)

func TestOnSharedMount(t *testing.T) {
	const mountinfo = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:5 / /run rw - tmpfs tmpfs rw
31 30 0:6 / /run/docker rw shared:7 master:1 - tmpfs tmpfs rw
32 22 0:7 / /with\040blank rw master:3 - tmpfs shared:9 rw
33 22 0:7 / /twice rw - tmpfs tmpfs rw
34 33 0:8 / /twice rw shared:8 - tmpfs tmpfs rw
short
`
	for path, want := range map[string]bool{
		"/etc": true, "/run": false, "/run/x": false, "/run/docker": true, "/run/docker/carrick": true, "/run/dockerx": false,
		"/with blank/x": false, "/twice/x": true,
	} {
		if got := onSharedMount(strings.NewReader(mountinfo), path); got != want {
			t.Errorf("%s: shared %v, want %v", path, got, want)
		}
	}
	if onSharedMount(strings.NewReader(""), "/") {
		t.Error("nothing is known, and shared")
	}
}
