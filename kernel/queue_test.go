package kernel

import (
	"testing"
	"testing/fstest"
)

func TestOneQueue(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  bool
	}{
		"one, not spread":  {fstest.MapFS{"e/device": file(""), "e/queues/rx-0/rps_cpus": file("0\n")}, true},
		"of a large host":  {fstest.MapFS{"e/device": file(""), "e/queues/rx-0/rps_cpus": file("00000000,00000000\n")}, true},
		"one, spread":      {fstest.MapFS{"e/device": file(""), "e/queues/rx-0/rps_cpus": file("3\n")}, false},
		"two":              {fstest.MapFS{"e/device": file(""), "e/queues/rx-0/rps_cpus": file("0\n"), "e/queues/rx-1/rps_cpus": file("0\n")}, false},
		"a virtual device": {fstest.MapFS{"e/queues/rx-0/rps_cpus": file("0\n")}, false},
		"another device":   {fstest.MapFS{"f/device": file(""), "f/queues/rx-0/rps_cpus": file("0\n")}, false},
	} {
		if got := oneQueue(c.files, "e"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
