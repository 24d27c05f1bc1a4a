//go:build e2e

package lab

import (
	"strings"
	"testing"
)

func (lt labTest) readdress(t *testing.T) {
	was4, was6 := lt.b.IPv4, lt.b.IPv6
	for _, bad := range [][2]string{{"198.51.100.1", was6}, {"192.0.2.1", was6}, {lt.a.IPv4, was6}, {"host9", was6}, {was6, was4}} {
		if err := lt.b.Readdress(lt.ctx, bad[0], bad[1]); err == nil {
			t.Errorf("%q are no addresses for a host, and are taken", bad)
		}
	}
	lt.docker(t, lt.b, "run", "-d", "--name", "stays", Image)
	began := lt.docker(t, lt.b, "inspect", "-f", "{{.State.StartedAt}}", "stays")
	if err := lt.b.Readdress(lt.ctx, "198.51.100.77", "2001:db8::77"); err != nil {
		t.Fatal(err)
	}
	lt.answers(t, map[string]bool{"198.51.100.77": true, "2001:db8::77": true, "host2": true, was4: false, was6: false})
	if !reaches(lt.ctx, lt.b, gateway4, true) || !reaches(lt.ctx, lt.b, gateway6, true) {
		t.Error("host2 does not reach its routers")
	}
	for _, family := range []string{"-4", "-6"} {
		if got := lt.run(t, lt.b, "ip", family, "route", "show", "default"); !strings.Contains(got, "dev eth0") {
			t.Errorf("default route %s: %q", family, got)
		}
	}
	if got := lt.docker(t, lt.b, "inspect", "-f", "{{.State.StartedAt}}", "stays"); got != began {
		t.Errorf("the container was started at %s, now at %s", began, got)
	}
	lt.docker(t, lt.b, "rm", "-f", "stays")
	if other, err := Open(lt.lab.layout.dir, lt.lab.Name, nil); err != nil || other.Host("host2").IPv4 != "198.51.100.77" {
		t.Errorf("another process does not hear of it: %v", err)
	}
	// A host that is off boots with the address that it is given meanwhile.
	if err := lt.b.PowerOff(lt.ctx); err != nil {
		t.Fatal(err)
	}
	if err := lt.b.Readdress(lt.ctx, was4, was6); err != nil {
		t.Fatal(err)
	}
	if err := lt.b.PowerOn(lt.ctx); err != nil {
		t.Fatal(err)
	}
	lt.answers(t, map[string]bool{"198.51.100.77": false, "2001:db8::77": false, "host2": true, was4: true, was6: true})
}

// answers says which addresses host1 is to reach.
func (lt labTest) answers(t *testing.T, want map[string]bool) {
	t.Helper()
	for addr, is := range want {
		if got := reaches(lt.ctx, lt.a, addr, is); got != is {
			t.Errorf("%s answers: %t, want %t", addr, got, is)
		}
	}
}

func (lt labTest) link(t *testing.T) {
	routes := func() string {
		return lt.run(t, lt.b, "ip", "-4", "route") + "\n" + lt.run(t, lt.b, "ip", "-6", "route", "show", "default")
	}
	before := routes()
	if err := lt.b.LinkDown(lt.ctx); err != nil {
		t.Fatal(err)
	}
	lt.answers(t, map[string]bool{lt.b.IPv4: false, lt.b.IPv6: false})
	if routes() == before {
		t.Error("a link that is down has its routes")
	}
	if err := lt.b.LinkUp(lt.ctx); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{lt.b.IPv4, lt.b.IPv6} { // neighbours look for each other again
		if err := poll(lt.ctx, addr, func() (bool, error) { return pings(lt.ctx, lt.a, addr), nil }); err != nil {
			t.Error(err)
		}
	}
	if got := routes(); got != before {
		t.Errorf("routes:\n%s\nbefore:\n%s", got, before)
	}
}

func (lt labTest) mtu(t *testing.T) {
	large := func(from, to *Host) bool {
		_, err := from.Run(lt.ctx, "ping", "-c1", "-W0.3", "-s1472", "-Mdo", to.IPv4)
		return err == nil
	}
	for _, step := range []struct {
		bytes int
		want  bool
	}{{1400, false}, {1500, true}} {
		if err := lt.b.SetMTU(lt.ctx, step.bytes); err != nil {
			t.Fatal(err)
		}
		if large(lt.a, lt.b) != step.want || large(lt.b, lt.a) != step.want {
			t.Errorf("with %d bytes, packets of 1500 pass: want %t", step.bytes, step.want)
		}
		lt.answers(t, map[string]bool{lt.b.IPv4: true, lt.b.IPv6: true})
	}
}

func (lt labTest) disks(t *testing.T) {
	files := func(h *Host) string {
		return lt.run(t, h, "sh", "-c", "cat /root/kept /var/lib/docker/kept 2>/dev/null || true")
	}
	lt.run(t, lt.a, "sh", "-c", "echo of host1 | tee /root/kept /var/lib/docker/kept")
	lt.docker(t, lt.a, "create", "--name", "stays", Image)
	if err := lt.b.Clone(lt.ctx, lt.a); err == nil {
		t.Error("the disk of a host that is on was copied")
	}
	for _, h := range []*Host{lt.a, lt.b} {
		if err := h.PowerOff(lt.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := lt.b.Clone(lt.ctx, lt.a); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{lt.a, lt.b} {
		if err := h.PowerOn(lt.ctx); err != nil {
			t.Fatal(err)
		}
		if got := files(h); got != "of host1\nof host1" {
			t.Errorf("%s: files %q", h.Name, got)
		}
		if got := lt.run(t, h, "hostname"); got != h.Name {
			t.Errorf("%s calls itself %s", h.Name, got)
		}
		lt.docker(t, h, "start", "stays")
		lt.docker(t, h, "rm", "-f", "stays")
	}
	lt.answers(t, map[string]bool{lt.b.IPv4: true, lt.b.IPv6: true})
	if err := lt.b.Reinstall(lt.ctx); err != nil {
		t.Fatal(err)
	}
	if got := files(lt.b); got != "" {
		t.Errorf("a new disk has %q", got)
	}
	lt.docker(t, lt.b, "run", "--rm", Image, "true")
	lt.answers(t, map[string]bool{lt.b.IPv4: true, lt.b.IPv6: true})
}
