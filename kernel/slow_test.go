package kernel_test

import (
	"strings"
	"testing"

	"github.com/carricknet/carrick/kernel"
	"github.com/carricknet/carrick/kernel/kerneltest"
)

// What is switched off is warned of, and no longer when it is on.
func TestSlowDevices(t *testing.T) {
	h := newHost(t)
	kerneltest.Join(t, h.NetNS, kerneltest.NewNetNS(t), "u0", nil, nil)
	for _, c := range []struct{ feature, kind string }{{"gro", kernel.WarnGRO}, {"tx-udp_tnl-segmentation", kernel.WarnOffload}} {
		for _, state := range []string{"on", "off"} {
			h.Run(t, "ethtool -K u0 %s %s", c.feature, state)
			warned := false
			for _, w := range h.Slow("u0") {
				if w.Kind == c.kind {
					warned = strings.Contains(w.Text, "u0") && strings.Contains(w.Text, c.feature)
				}
			}
			if warned != (state == "off") {
				t.Errorf("%s %s: warnings are %+v", c.feature, state, h.Slow("u0"))
			}
		}
	}
	if all := h.Slow("none"); len(all) != 0 {
		t.Errorf("of a device that there is not: %+v", all)
	}
}
