package cli

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoPlugin: what is the matter, and where to look.
func TestNoPlugin(t *testing.T) {
	empty := socketDir(t)
	disabled := socketDir(t)
	stale(t, disabled, aPlugin)
	two := socketDir(t)
	stale(t, two, aPlugin)
	stale(t, two, anotherPlugin)
	others := socketDir(t)
	if err := os.MkdirAll(filepath.Join(others, aPlugin), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(others, aPlugin, socketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(empty, "missing")
	for _, tt := range []struct{ dir, want string }{
		{missing, missing + " does not exist: is Docker running here?"},
		{empty, "there is no socket of Carrick's below " + empty + ": is the plugin installed and enabled? `docker plugin ls` tells"},
		{others, "there is no socket of Carrick's below " + others + ": is the plugin installed and enabled? `docker plugin ls` tells"},
		{disabled, "plugin 1f2e3d4c5b6a does not run: is it enabled? `docker plugin ls` tells"},
		{two, "none of the plugins 1f2e3d4c5b6a, 2f2e3d4c5b6a answers: are they enabled? `docker plugin ls` tells"},
	} {
		if got := command(t, tt.dir, "", "status"); got != (result{1, "", "carrick: " + tt.want + "\n"}) {
			t.Errorf("%swant %s", got, tt.want)
		}
	}
}

func TestSeveralPlugins(t *testing.T) {
	dir := socketDir(t)
	first, second := &fake{}, &fake{}
	serve(t, dir, "aaaa"+aPlugin, first)
	stale(t, dir, "bbbb"+aPlugin)
	if got := command(t, dir, "", "networks"); got.code != 1 || first.calls() != "POST Networks {}" {
		t.Errorf("one of two answers, asked %q: %s", first.calls(), got)
	}
	serve(t, dir, "cccc"+aPlugin, second)
	want := "carrick: several plugins answer, aaaa1f2e3d4c, cccc1f2e3d4c: say which with --plugin\n"
	if got := command(t, dir, "", "networks"); got != (result{2, "", want}) {
		t.Errorf("%swant %s", got, want)
	}
	second.answers = map[string]string{"Networks": "[]"}
	for _, args := range []string{"networks --plugin cccc", "networks --plugin=cccc" + aPlugin} {
		if got := command(t, dir, "", strings.Fields(args)...); got != (result{0, "no networks\n", ""}) {
			t.Errorf("%s: %s", args, got)
		}
	}
	want = "carrick: no plugin's ID begins with \"ffff\"; there are aaaa1f2e3d4c, bbbb1f2e3d4c, cccc1f2e3d4c\n"
	if got := command(t, dir, "", "networks", "--plugin", "ffff"); got != (result{2, "", want}) {
		t.Errorf("%swant %s", got, want)
	}
}

// TestNotRoot looks at the files as another user does; a thread has such an identity of its own (setfsuid(2)).
func TestNotRoot(t *testing.T) {
	closed, open := socketDir(t), socketDir(t)
	serve(t, open, aPlugin, &fake{})
	for path, mode := range map[string]os.FileMode{open: 0o755, filepath.Join(open, aPlugin): 0o755, filepath.Join(open, aPlugin, socketName): 0o600} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	_, first := sockets(closed)
	found, second := sockets(open)
	var third error
	if len(found) == 1 {
		_, third = dial(context.Background(), found[0])
	}
	if err := unix.Setfsuid(os.Geteuid()); err != nil {
		t.Fatal(err)
	}
	if first == nil || first.Error() != "only root may look into "+closed+": try sudo" {
		t.Errorf("%v", first)
	}
	if second != nil || third == nil || third.Error() != "only root may use "+found[0].path+": try sudo" {
		t.Errorf("%v, %v, %v", found, second, third)
	}
}

// TestInThePluginsContainer: there the socket is not in a directory of the plugin's own.
func TestInThePluginsContainer(t *testing.T) {
	dir, f := socketDir(t), &fake{answers: map[string]string{"Networks": "[]"}}
	serve(t, dir, "", f)
	if got := command(t, dir, "", "networks"); got != (result{0, "no networks\n", ""}) {
		t.Errorf("%s", got)
	}
}

func TestAPluginThatDoesNotAnswerAsOurs(t *testing.T) {
	for _, tt := range []struct {
		handler http.HandlerFunc
		want    string
	}{
		{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "what?", 404) }, "plugin 1f2e3d4c5b6a answers 404 Not Found, which is not Carrick's way: is it another version?"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "plugin 1f2e3d4c5b6a ended before it answered; whether it did what it was asked is not known"},
		{func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "the plugin's answer is not understood, is it another version? invalid character 'h' looking for beginning of value"},
	} {
		dir := socketDir(t)
		serve(t, dir, aPlugin, tt.handler)
		if got := command(t, dir, "", "status"); got != (result{1, "", "carrick: " + tt.want + "\n"}) {
			t.Errorf("%swant %s", got, tt.want)
		}
	}
}
