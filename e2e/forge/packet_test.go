package forge

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The frames, byte by byte as the RFCs draw them; the checksums were worked out by other programs.
func TestFrames(t *testing.T) {
	const mac, other = "02:00:00:00:00:09", "02:00:00:00:00:07"
	a4, b4, a6 := netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd09::9")
	for name, c := range map[string]struct {
		frame Frame
		want  string
	}{
		"ARP announcement": {Frame{Src: mac, From: a4, Claim: true}, `
			ff ff ff ff ff ff  02 00 00 00 00 09  08 06
			00 01  08 00  06  04  00 01
			02 00 00 00 00 09  0a 09 00 09
			ff ff ff ff ff ff  0a 09 00 09`},
		"ARP reply": {Frame{Dst: other, Src: mac, From: a4, To: b4, Claim: true, Text: "!"}, `
			02 00 00 00 00 07  02 00 00 00 00 09  08 06
			00 01  08 00  06  04  00 02
			02 00 00 00 00 09  0a 09 00 09
			02 00 00 00 00 07  0a 09 00 07  21`},
		"neighbour advertisement": {Frame{Src: mac, From: a6, Claim: true}, `
			33 33 00 00 00 01  02 00 00 00 00 09  86 dd
			60 00 00 00  00 20  3a  ff
			fd 09 00 00 00 00 00 00 00 00 00 00 00 00 00 09
			ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 01
			88 00 5a 71  20 00 00 00
			fd 09 00 00 00 00 00 00 00 00 00 00 00 00 00 09
			02 01  02 00 00 00 00 09`},
	} {
		got, err := c.frame.encode()
		if want := strings.Join(strings.Fields(c.want), ""); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %v\ngot  %x\nwant %s", name, err, got, want)
		}
	}
}

// What the encoder writes, the reader of the watch finds, and a receiver's sum over it is as it should be.
func TestDatagrams(t *testing.T) {
	for _, pair := range [][2]string{{"10.9.0.9", "10.9.0.7"}, {"fd09::9", "fd09::7"}} {
		from, to := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		for _, text := range []string{"odd", "even", strings.Repeat("long", 300)} {
			frame, err := Frame{Src: "02:00:00:00:00:09", From: from, To: to, Text: text}.encode()
			if err != nil {
				t.Fatal(err)
			}
			if got := payloadTo(9, frame); string(got) != text {
				t.Errorf("%s: read %q", from, got)
			}
			if payloadTo(10, frame) != nil {
				t.Errorf("%s: taken for one to another port", from)
			}
			d := datagram(from, to, 9, 9, []byte(text))
			if sum := checksum(from, to, unix.IPPROTO_UDP, d); sum != 0 {
				t.Errorf("%s: the receiver's sum is %04x", from, sum)
			}
			whole := packet(from, to, unix.IPPROTO_UDP, 64, d)
			if from.Is4() && fold(sumOf(0, whole[:20])) != 0xffff {
				t.Errorf("%s: the header's sum is wrong", from)
			}
			header := len(whole) - len(d)
			parts := fragments(from, to, unix.IPPROTO_UDP, d)
			skip := header
			if from.Is6() {
				skip += 8
			}
			if joined := append(bytes.Clone(parts[0][skip:]), parts[1][skip:]...); !bytes.Equal(joined, d) || len(parts[0]) != skip+8 {
				t.Errorf("%s: the fragments are %x", from, parts)
			}
		}
	}
}

func TestHeaderOfVXLAN(t *testing.T) {
	if got := hex.EncodeToString(vxlan(8, 0x123456, []byte{0xaa})); got != "0800000012345600aa" {
		t.Errorf("the header is %s", got)
	}
}
