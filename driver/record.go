package driver

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/carricknet/carrick/kernel"
)

// wireVersion is the first byte of an endpoint's record between hosts.
const wireVersion = 1

// maxAddrs bounds the addresses of a record: one of each family now, with room for networks of several subnets.
const maxAddrs = 16

// encodeRecord is what other hosts need to reach an endpoint, in 12 to 35 bytes usually, so that ten thousand fit in one
// pull of some hundred kilobytes:
//
//	version (1) | MAC (6) | number of addresses (1) | for each: prefix length (1), length 4 or 16 (1), address
func encodeRecord(e Endpoint) []byte {
	b := append([]byte{wireVersion}, e.MAC[:]...)
	b = append(b, byte(len(e.Addrs)))
	for _, p := range e.Addrs {
		a := p.Addr().AsSlice()
		b = append(b, byte(p.Bits()), byte(len(a)))
		b = append(b, a...)
	}
	return b
}

// decodeRecord is the reverse of encodeRecord, for bytes that a stranger may have written. Bytes after the known ones are a
// later version's and are ignored.
func decodeRecord(b []byte) (Endpoint, error) {
	if len(b) < 8 || b[0] != wireVersion {
		return Endpoint{}, errors.New("endpoint record: too short or of another version")
	}
	e := Endpoint{Version: recordVersion, MAC: kernel.MAC(b[1:7])}
	if e.MAC[0]&1 != 0 || e.MAC == (kernel.MAC{}) { // the zero MAC stands for all unknown frames in the kernel
		return Endpoint{}, fmt.Errorf("endpoint record: MAC %s is not that of one device", e.MAC)
	}
	n, b := int(b[7]), b[8:]
	if n > maxAddrs {
		return Endpoint{}, fmt.Errorf("endpoint record: %d addresses, at most %d", n, maxAddrs)
	}
	for range n {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return Endpoint{}, errors.New("endpoint record: an address is cut off")
		}
		addr, ok := netip.AddrFromSlice(b[2 : 2+int(b[1])])
		p := netip.PrefixFrom(addr, int(b[0]))
		if !ok || !p.IsValid() || addr.Is4In6() || addr.IsMulticast() || addr.IsUnspecified() {
			return Endpoint{}, fmt.Errorf("endpoint record: %x is no address of an endpoint", b[2:2+int(b[1])])
		}
		e.Addrs = append(e.Addrs, p)
		b = b[2+int(b[1]):]
	}
	return e, nil
}
