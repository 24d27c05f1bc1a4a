package cli

import (
	"strings"
	"testing"
)

func TestAddressesShown(t *testing.T) {
	for _, tt := range []struct{ method, answer, args, asked string }{
		{"Pools", "pools", "ipam pools", `{"pool":""}`},
		{"Pools", "pools", "ipam pools blue --json", `{"pool":"blue"}`},
		{"Pools", "none", "ipam pools", `{"pool":""}`},
		{"Blocks", "blocks", "ipam blocks 10.0.1.0/24", `{"pool":"10.0.1.0/24"}`},
		{"Blocks", "blocks", "ipam blocks --json", `{"pool":""}`},
		{"Blocks", "none", "ipam blocks", `{"pool":""}`},
		{"Leases", "leases", "ipam leases", `{"pool":""}`},
		{"Leases", "leases", "ipam leases --json blue", `{"pool":"blue"}`},
		{"Leases", "none", "ipam leases", `{"pool":""}`},
	} {
		t.Run(tt.args+" "+tt.answer, func(t *testing.T) {
			dir, f := socketDir(t), &fake{answers: map[string]string{tt.method: read(t, tt.answer+".json")}}
			serve(t, dir, aPlugin, f)
			got := command(t, dir, "", strings.Fields(tt.args)...)
			name := strings.NewReplacer(" ", "-", "--", "", "/", "-").Replace(tt.args + " " + tt.answer)
			golden(t, name+".golden", got.String())
			if want := "POST " + tt.method + " " + tt.asked; f.calls() != want {
				t.Errorf("asked %q", f.calls())
			}
		})
	}
}

// TestWhoIsShown: a sentence for each state of an address.
func TestWhoIsShown(t *testing.T) {
	const blue = `"subnet":"10.0.1.0/24","name":"blue","network":"7f3c9d2e8a41b605","shared":"9c1b5f20d3e4","mode":"overlay"`
	const ofBlue = "subnet   10.0.1.0/24, network 7f3c9d2e8a41 (blue)\n"
	const mine, theirs = `"block":"10.0.1.16/28","host":"host-a","host_state":"this node"`, `"block":"10.0.1.32/28","host":"host-b","host_state":"alive"`
	const ofMine, ofTheirs = "block    10.0.1.16/28 of host-a, this node\n", "block    10.0.1.32/28 of host-b, alive\n"
	for _, tt := range []struct{ answer, want string }{
		{blue + `,"state":"in use",` + mine + `,"here":true,"endpoint":"c0ffee0123456789","mac":"02:42:0a:00:01:11","holder":"web","since":"2026-01-02T03:04:05Z"`,
			ofBlue + ofMine + "holder   endpoint c0ffee012345 on this host, MAC 02:42:0a:00:01:11, container web, since 2026-01-02T03:04:05Z\n"},
		{blue + `,"state":"in use",` + theirs + `,"endpoint":"beefbeefbeef0000","mac":"02:42:0a:00:01:22"`,
			ofBlue + ofTheirs + "holder   endpoint beefbeefbeef on host-b, MAC 02:42:0a:00:01:22\n"},
		{blue + `,"state":"idle",` + mine + `,"here":true,"since":"2026-01-02T03:04:05Z"`,
			ofBlue + ofMine + "holder   nobody: handed out on this host since 2026-01-02T03:04:05Z, and no endpoint has it, yet or any more\n"},
		{blue + `,"state":"resting",` + mine + `,"here":true,"until":"2026-01-02T03:05:05Z"`,
			ofBlue + ofMine + "holder   nobody: resting until 2026-01-02T03:05:05Z on this host, unless nothing else is left\n"},
		{blue + `,"state":"gateway"`, ofBlue + "holder   gateway of 10.0.1.0/24\n"},
		{blue + `,"state":"auxiliary","holder":"printer"`, ofBlue + "holder   --aux-address printer of 10.0.1.0/24\n"},
		{blue + `,"state":"unusable"`, ofBlue + "holder   nobody: it is the network's, the broadcast or the anycast address of 10.0.1.0/24\n"},
		{blue + `,"state":"free","note":"in a block that no host has"`, ofBlue + "holder   nobody: free, in a block that no host has\n"},
		{blue + `,"state":"not used",` + theirs + `,"note":"as host-b tells"`, ofBlue + ofTheirs + "holder   nobody: not used, as host-b tells\n"},
		{`"subnet":"10.0.7.0/24","shared":"aabbccddeeff","state":"unknown","block":"10.0.7.16/28","host":"host-c","host_state":"suspended","silent":"2026-01-02T03:04:05Z","note":"its host does not answer"`,
			"subnet   10.0.7.0/24, network aabbccddeeff, not on this host\nblock    10.0.7.16/28 of host-c, suspended since 2026-01-02T03:04:05Z\nholder   not known: its host does not answer\n"},
		{`"subnet":"10.9.0.0/30","state":"free"`, "subnet   10.9.0.0/30, no network of Carrick's has it\nholder   nobody: free\n"},
	} {
		dir, f := socketDir(t), &fake{answers: map[string]string{"Who": `[{"addr":"10.0.1.17",` + tt.answer + `}]`}}
		serve(t, dir, aPlugin, f)
		got := command(t, dir, "", "ipam", "who", "10.0.1.17")
		if got != (result{0, "address  10.0.1.17\n" + tt.want, ""}) || f.calls() != `POST Who {"address":"10.0.1.17"}` {
			t.Errorf("%s: asked %s\n%swant\n%s", tt.answer, f.calls(), got, tt.want)
		}
	}
}

func TestWhoOfTwoPools(t *testing.T) {
	const answer = `[{"addr":"10.0.1.1","subnet":"10.0.1.0/24","state":"gateway"},{"addr":"10.0.1.1","subnet":"10.0.1.0/25","shared":"aabbccddeeff","state":"free"}]`
	dir, f := socketDir(t), &fake{answers: map[string]string{"Who": answer}}
	serve(t, dir, aPlugin, f)
	golden(t, "ipam-who.golden", command(t, dir, "", "ipam", "who", "10.0.1.1").String())
	golden(t, "ipam-who-json.golden", command(t, dir, "", "ipam", "who", "--json", "10.0.1.1").String())
	f.refuse = map[string]string{"Who": "address 192.0.2.7 is outside every pool; there are 10.0.1.0/24 (blue)"}
	want := result{1, "", "carrick: plugin 1f2e3d4c5b6a: address 192.0.2.7 is outside every pool; there are 10.0.1.0/24 (blue)\n"}
	if got := command(t, dir, "", "ipam", "who", "192.0.2.7"); got != want {
		t.Errorf("%s", got)
	}
}

func TestManyAddresses(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 253: "253", 1 << 32: "4294967296", 1<<32 + 1: "~2^32", 1 << 62: "~2^62", 1<<62 - 1: "~2^62", 1<<48 - 9: "~2^48"} {
		if got := many(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
