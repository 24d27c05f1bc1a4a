package ipam

import (
	"errors"
	"testing"
)

// While another host has this one's identity, nothing new is handed out of a network of the cluster, neither any address nor
// one that is asked for nor one that Docker says it knows; what was handed out is repeated and taken back; networks of this
// host alone go on.
func TestNothingNewWhileTheIdentityIsDisputed(t *testing.T) {
	h := newHost(t, newWorld().node("a"))
	shared, _, err := h.create("net1", PoolRequest{Pool: "10.1.0.0/16"}, true)
	if err != nil {
		t.Fatal(err)
	}
	alone, _, err := h.create("net2", PoolRequest{Pool: "10.2.0.0/16"}, false)
	if err != nil {
		t.Fatal(err)
	}
	first := addressOf(t, h, shared, "", 1)
	h.node.dispute(errors.New("192.0.2.9 has the identity of this host as well"))
	_, err = h.RequestAddress(t.Context(), shared, "", macOptions(mac(2)))
	want(t, err, "10.1.0.0/16", "192.0.2.9 has the identity")
	_, err = h.RequestAddress(t.Context(), shared, "10.1.200.7", macOptions(mac(3)))
	want(t, err, "192.0.2.9 has the identity")
	_, err = h.RequestAddress(t.Context(), shared, "10.1.200.8", nil)
	want(t, err, "192.0.2.9 has the identity")
	if again := addressOf(t, h, shared, "", 1); again != first {
		t.Errorf("the same request again has %s, before %s", again, first)
	}
	if _, err := h.RequestAddress(t.Context(), shared, first, nil); err != nil {
		t.Errorf("the engine's replay: %v", err)
	}
	addressOf(t, h, alone, "", 4)
	if err := h.ReleaseAddress(t.Context(), shared, first); err != nil {
		t.Error(err)
	}
	h.node.dispute(nil)
	addressOf(t, h, shared, "", 2)
}

// A host that has got another identity, and has heard nothing of the cluster yet, owns nothing of what its old one owned: that
// may have been given to others. What it handed out stays as it is.
func TestReceiptsAreOfOneIdentity(t *testing.T) {
	h := newHost(t, newWorld().node("a"))
	pool, _, err := h.create("net1", PoolRequest{Pool: "10.1.0.0/16"}, true)
	if err != nil {
		t.Fatal(err)
	}
	first := addressOf(t, h, pool, "", 1)
	for i, c := range []struct {
		id   string
		more bool
	}{{"a", true}, {"b", false}} {
		h.node = newWorld().node(c.id) // nothing is heard
		h.restart(false)
		if _, err := h.RequestAddress(t.Context(), pool, first, nil); err != nil {
			t.Errorf("%s: the engine's replay: %v", c.id, err)
		}
		if _, err = h.RequestAddress(t.Context(), pool, "", macOptions(mac(2+i))); (err == nil) != c.more {
			t.Errorf("%s: another address: %v", c.id, err)
		}
	}
}
