package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Kinds of links that Name knows: a bridge, a VXLAN device, and the host's and the container's end of a veth pair.
const (
	KindBridge       = "ckb"
	KindVXLAN        = "ckx"
	KindHostEnd      = "ckh"
	KindContainerEnd = "ckc"
)

// Unclaimed is the owner of devices that carry a name of ours but no alias: what a crash between the two requests that
// make a link leaves behind. Owners reports it; Set(ctx, Unclaimed, State{}) removes them all. A Set of the owner that
// wants such a device adopts it instead.
const Unclaimed = "unclaimed"

// nameDigits fills a name of ours up to the 15 bytes that IFNAMSIZ leaves.
const nameDigits = 12

// Name is the device name of an object: its kind and twelve hexadecimal digits of its id. Ids of Docker's are
// hexadecimal and keep their first twelve digits, as `docker network ls` prints them; any other id (Swarm's have 25
// digits of base 36) gives those of its SHA-256.
func Name(kind, id string) string {
	if len(id) >= nameDigits && isHex(id) {
		return kind + id[:nameDigits]
	}
	sum := sha256.Sum256([]byte(id))
	return kind + hex.EncodeToString(sum[:])[:nameDigits]
}

// isOurs says whether a device of this name can only be one of ours.
func isOurs(name string) bool {
	for _, kind := range []string{KindBridge, KindVXLAN, KindHostEnd, KindContainerEnd} {
		if digits, ok := strings.CutPrefix(name, kind); ok {
			return len(digits) == nameDigits && isHex(digits)
		}
	}
	return false
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// hasPart says whether name is one of the parts of a sysctl's key.
func hasPart(key, name string) bool {
	return strings.Contains("/"+key+"/", "/"+name+"/")
}
