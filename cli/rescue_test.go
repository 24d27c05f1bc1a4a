package cli

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/cluster"
)

func TestRecoverSaysWhatMayBeLost(t *testing.T) {
	const loss = `{"voters":[{"id":"bbbb","name":"host-b","addr":"192.0.2.11","alive":false,"suspended":true}],"others":[],"index":41}`
	dir, f := socketDir(t), &fake{answers: map[string]string{"Status": read(t, "member.json"), "Loss": loss}}
	serve(t, dir, aPlugin, f)
	got := command(t, dir, "no\n", "recover")
	if got.code != 1 || !strings.Contains(got.out, "voter host-b (192.0.2.11), silent since before this plugin was started\n") ||
		!strings.Contains(got.out, "its copy, which ends with entry 41.") || f.calls() != "POST Status {}; POST Loss {}" {
		t.Errorf("asked %s\n%s", f.calls(), got)
	}
	got = command(t, dir, "", "recover", "--yes")
	if got.code != 0 || !strings.Contains(got.out, "host-a votes alone, and the cluster decides again.") || !strings.Contains(f.calls(), "POST Recover {}") {
		t.Errorf("asked %s\n%s", f.calls(), got)
	}
	f.refuse = map[string]string{"Loss": "recover: the cluster has a quorum, and host-b leads it: there is nothing to recover"}
	if got := command(t, dir, "", "recover", "--yes"); got.code != 1 || !strings.Contains(got.err, "host-b leads it") {
		t.Errorf("%s", got)
	}
}

func TestLossText(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	node := func(name string, last byte, silent time.Duration, suspended bool) cluster.Node {
		return cluster.Node{Name: name, Addr: netip.AddrFrom4([4]byte{192, 0, 2, last}), Silent: now.Add(-silent), Suspended: suspended}
	}
	text := lossText(cluster.Status{Cluster: "9c1b5f20d3e4aa", Node: cluster.StatusNode{Name: "host-c"}}, cluster.Loss{
		Voters: []cluster.Node{node("host-a", 10, time.Hour, true), node("host-b", 11, 61*time.Second, false)},
		Others: []cluster.Node{node("host-d", 12, time.Minute, true)}, Index: 41, At: now.Add(-time.Hour),
	}, now)
	for _, want := range []string{
		"  voter host-a (192.0.2.10), silent for 1h0m0s (since 2026-01-02T02:04:05Z)\n",
		"  voter host-b (192.0.2.11), silent for 1m1s (since 2026-01-02T03:03:04Z); its HOST ANSWERS: is its plugin only disabled?\n",
		"  node  host-d (192.0.2.12)",
		"host-c becomes the only voter, and the cluster goes on with its copy, which ends with entry 41, decided at 2026-01-02T02:04:05Z.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestVotersLine(t *testing.T) {
	silent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := votersLine(cluster.Status{
		Node: cluster.StatusNode{Name: "a", ID: "1"}, Voters: []string{"a", "b", "c", "d", "5"},
		Nodes: []cluster.Node{{ID: "1", Name: "a"}, {ID: "2", Name: "b", Alive: true}, {ID: "3", Name: "c", Suspended: true, Silent: silent}, {ID: "4", Name: "d"}},
	})
	if want := "a, b, c (suspended since 2026-01-02T03:04:05Z), d (silent), 5"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
