package kerneltest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

func TestFake(t *testing.T) {
	ctx := t.Context()
	var f kerneltest.Fake
	bridge := kernel.Name(kernel.KindBridge, "0123456789ab")
	net := kernel.State{Links: []kernel.Link{{Name: bridge, NS: kernel.Shared, Up: true, Bridge: &kernel.Bridge{}}}}
	end := kernel.State{Links: []kernel.Link{{Name: kernel.Name(kernel.KindHostEnd, "0123456789ab"), NS: kernel.Shared, Master: bridge,
		Veth: &kernel.Veth{Peer: kernel.Name(kernel.KindContainerEnd, "0123456789ab")}}}}
	for owner, want := range map[string]kernel.State{"net": net, "end": end} {
		if err := f.Set(ctx, owner, want); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, want ...kernel.Owned) {
		t.Helper()
		if got, err := f.Owners(ctx); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", when, got, err, want)
		}
	}
	expect("made", kernel.Owned{Owner: "end", Waiting: true}, kernel.Owned{Owner: "net"})
	const text = "# end\nip -n shared link add ckh0123456789ab type veth peer name ckc0123456789ab netns host\n" +
		"ip -n shared link set ckh0123456789ab master ckb0123456789ab\n" +
		"# net\nip -n shared link add ckb0123456789ab type bridge mcast_snooping 0\nip -n shared link set ckb0123456789ab up\n"
	if got := f.String(); got != text {
		t.Errorf("got:\n%s\nwant:\n%s", got, text)
	}
	f.Take("end")
	expect("taken", kernel.Owned{Owner: "end"}, kernel.Owned{Owner: "net"})
	if err := f.Set(ctx, "end", end); err != nil {
		t.Error(err)
	}
	expect("set again", kernel.Owned{Owner: "end"}, kernel.Owned{Owner: "net"})
	f.GiveBack("end")
	expect("given back", kernel.Owned{Owner: "end", Waiting: true}, kernel.Owned{Owner: "net"})
	f.Die("end")
	expect("dead", kernel.Owned{Owner: "net"})
	if !f.State("end").Empty() || f.State("net").Empty() {
		t.Error("State does not agree with Owners")
	}

	broken := errors.New("broken")
	f.FailNth(2, broken)
	if err := f.Set(ctx, "net", net); err != nil {
		t.Error(err)
	}
	if err := f.Set(ctx, "net", kernel.State{}); !errors.Is(err, broken) || f.State("net").Empty() {
		t.Errorf("the second call: %v", err)
	}
	if err := f.Set(ctx, "net", kernel.State{}); err != nil || f.Calls() != 3 || f.String() != "" {
		t.Errorf("the third call: %v, %d calls, left %s", err, f.Calls(), f.String())
	}
	if err := f.Set(ctx, "bad", kernel.State{Links: []kernel.Link{{Name: "eth0"}}}); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("a bad state: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.Set(ended, "net", net); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
}
