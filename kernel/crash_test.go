package kernel_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/kernel"
)

// Killed after any of its requests, a Set is finished by the next process, or taken back by it.
func TestSetKilledBetweenRequests(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	h.Run(t, "mkdir -p %s", h.dir)
	changed := network(t)
	changed.Links[1].VXLAN.VNI++
	changed.FDB = changed.FDB[:1]
	for _, from := range []kernel.State{{}, changed} {
		for _, to := range []kernel.State{network(t), {}} {
			h.set(t, "network a", from)
			ops, err := h.Plan("network a", to)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d requests", len(ops))
			for n := range len(ops) + 1 {
				for _, then := range []kernel.State{to, {}} {
					h.set(t, "network a", from)
					if err := h.SetPart("network a", to, n); err != nil {
						t.Fatal(err)
					}
					h.start(t)
					h.set(t, "network a", then)
				}
			}
		}
	}
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A crash between the creation of a device and its mark leaves a device that has a name of ours and no alias. It is nobody's
// until its owner wants it again.
func TestUnmarkedDevices(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	h.set(t, "network b", kernel.State{Links: []kernel.Link{{Name: br2, NS: kernel.Shared, Bridge: &kernel.Bridge{}}}})
	shared := h.shared(t)
	shared.Run(t, "ip link add %s type bridge", br)
	h.Run(t, "ip link add %s type vxlan id 5 local 198.51.100.1 dstport 4789", vx) // half way, as another version may have left it
	owners := func() string {
		list, err := h.Owners(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range list {
			names = append(names, o.Owner)
		}
		return strings.Join(names, ", ")
	}
	if got := owners(); got != "network b, unclaimed" {
		t.Errorf("owners: %s", got)
	}
	want := network(t)
	ops, err := h.Plan("network a", want)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ops, "ip link del "+vx) || !slices.Contains(ops, "ip -n shared link set "+br+" addrgenmode none alias carrick") {
		t.Errorf("the bridge is not adopted, or the device half way is not removed:\n%s", strings.Join(ops, "\n"))
	}
	h.set(t, "network a", want)
	if got := owners(); got != "network a, network b" {
		t.Errorf("owners: %s", got)
	}
	h.set(t, "network a", kernel.State{})
	shared.Run(t, "ip link add %s type veth peer name %s", vh, vc)
	h.Run(t, "ip link add %s type bridge", br)
	h.set(t, kernel.Unclaimed, kernel.State{})
	if got := owners(); got != "network b" {
		t.Errorf("owners: %s", got)
	}
	h.set(t, "network b", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// An owner's container is waiting, taken, given back, and dead.
func TestOwnersFollowTheContainerEnd(t *testing.T) {
	h := newHost(t)
	h.set(t, "network a", network(t))
	h.set(t, "endpoint b", endpoint(t))
	expect := func(when string, want ...kernel.Owned) {
		t.Helper()
		got, err := h.Owners(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	net := kernel.Owned{Owner: "network a"}
	expect("made", kernel.Owned{Owner: "endpoint b", Waiting: true}, net)
	sandbox := newSandbox(t)
	h.Run(t, "ip link set %s netns %s", vc, sandbox.path)
	sandbox.Run(t, "ip link set %s name eth0", vc)
	sandbox.Run(t, "ip link set eth0 up")
	expect("taken", kernel.Owned{Owner: "endpoint b"}, net)
	h.set(t, "endpoint b", endpoint(t))
	sandbox.Run(t, "ip link set eth0 down")
	sandbox.Run(t, "ip link set eth0 name %s", vc)
	h.Run(t, "nsenter --net=%s ip link set %s netns %s", sandbox.path, vc, h.path(t))
	expect("given back", kernel.Owned{Owner: "endpoint b", Waiting: true}, net)
	h.set(t, "endpoint b", endpoint(t))
	h.Run(t, "ip link set %s netns %s", vc, sandbox.path)
	h.set(t, "endpoint b", endpoint(t))
	sandbox.End()
	start := time.Now()
	for len(owned(t, h)) != 1 && time.Since(start) < patience { // the kernel takes a namespace apart in the background
		<-time.After(time.Millisecond)
	}
	t.Logf("taken apart after %v", time.Since(start).Round(time.Millisecond))
	expect("dead", net)
	h.set(t, "network a", kernel.State{})
}

func owned(t *testing.T, h *host) []kernel.Owned {
	t.Helper()
	list, err := h.Owners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Both ends of a pair may be wanted, one in each namespace: the way out of a network.
func TestSetBothEndsOfAPair(t *testing.T) {
	h := newHost(t)
	before := h.Dump(t)
	out, in := kernel.Name(kernel.KindHostEnd, id1), kernel.Name(kernel.KindHostEnd, id2)
	want := network(t)
	want.Links = append(want.Links,
		kernel.Link{Name: out, MTU: 1450, Up: true, Veth: &kernel.Veth{Peer: in, PeerNS: kernel.Shared, PeerMTU: 1450}},
		kernel.Link{Name: in, NS: kernel.Shared, MTU: 1450, Master: br, Up: true, NeighSuppress: true, Veth: &kernel.Veth{Peer: out}})
	h.set(t, "network a", want)
	wantLines(t, h.shared(t).Run(t, "ip -d link show %s", in), "master "+br, "neigh_suppress on", "alias carrick network a", "LOWER_UP")
	want.Links[2].Veth.PeerMAC, want.Links[3].MAC = mac(t, "02:00:00:00:03:01"), mac(t, "02:00:00:00:03:01")
	h.set(t, "network a", want)
	wantLines(t, h.shared(t).Run(t, "ip link show %s", in), "02:00:00:00:03:01")
	h.set(t, "network a", network(t))
	h.set(t, "network a", want)
	h.set(t, "network a", kernel.State{})
	if after := h.Dump(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
