package kernel

import (
	"bufio"
	"io"
	"strings"
)

// onSharedMount says whether a path lies on a mount that is shared with other mount namespaces, by the text of
// /proc/self/mountinfo (proc_pid_mountinfo(5)): of the mounts it lies below the last one of the longest mount point.
func onSharedMount(mountinfo io.Reader, path string) bool {
	best, shared := -1, false
	for lines := bufio.NewScanner(mountinfo); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		const mountPoint, optional = 4, 6 // of the fields, from 0
		if len(fields) <= optional {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[mountPoint])
		below := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if !below || len(point) < best {
			continue
		}
		best, shared = len(point), false
		for _, f := range fields[optional:] {
			if f == "-" {
				break
			}
			shared = shared || strings.HasPrefix(f, "shared:")
		}
	}
	return shared
}
