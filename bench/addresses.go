package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// addressCell measures RequestAddress and ReleaseAddress, one after the other, on the socket that the engine calls. Both are on
// disk when they are answered.
func (s *site) addressCell() cell {
	c := cell{name: "address", of: map[string]sampler{}}
	for _, n := range s.networks(false) {
		if slices.Contains([]string{carrickBridge, carrickOverlay}, n.name) {
			c.of[n.name] = n.timeAddress
		}
	}
	return c
}

// timeAddress returns p50 and p99 of one address, in milliseconds.
func (n network) timeAddress(ctx context.Context) (map[string]float64, error) {
	h := n.hosts[0]
	pool := "carrick|" + n.subnet + "0/24|" // as the plugin has told the engine
	text, err := h.Run(ctx, "sh", "-euc", `exec "$0" address /run/docker/plugins/*/carrick.sock "$1" "$2"`, loadBinary, pool, sampleTime.String())
	if err != nil {
		return nil, err
	}
	var r struct{ P50, P99 float64 } // microseconds
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("load address: %w: %q", err, text)
	}
	return map[string]float64{"p50": r.P50 / 1000, "p99": r.P99 / 1000}, nil
}
