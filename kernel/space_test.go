package kernel

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestThreadsComeBack: a thread that stayed in a new namespace would keep it, and the first thread of a process stays for ever.
func TestThreadsComeBack(t *testing.T) {
	home := func(path string) string {
		t.Helper()
		ns, err := os.Readlink(path)
		if err != nil {
			t.Fatalf("the thread has ended: %v", err)
		}
		return ns
	}
	want := home("/proc/self/ns/net")
	var thread, there string
	err := fresh(func() (err error) {
		thread = fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		there, err = os.Readlink(thread)
		return err
	})
	if err != nil || there == want {
		t.Fatalf("in %s, %v", there, err)
	}
	if got := home(thread); got != want {
		t.Errorf("the thread is in %s still, want %s", got, want)
	}
}
