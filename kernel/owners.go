package kernel

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Owners lists, in order of name, everybody who has a link or a rule. A container that is dead is told by its owner's not
// being there: the container end dies with the sandbox and takes the host's end along. Devices that are nobody's are
// reported as Unclaimed.
func (k *Kernel) Owners(ctx context.Context) ([]Owned, error) {
	if err := k.lock(ctx); err != nil {
		return nil, err
	}
	defer k.unlock()
	if err := k.prepareShared(false); err != nil {
		return nil, err
	}
	devices, err := k.devices()
	if err != nil {
		return nil, fmt.Errorf("owners: %w", err)
	}
	k.remember(devices)
	found := make(map[string]Owned)
	for _, d := range devices {
		owner, marked := strings.CutPrefix(d.alias, aliasPrefix)
		if !marked {
			if !d.unclaimed(devices) {
				continue
			}
			owner = Unclaimed
		}
		o := found[owner]
		found[owner] = Owned{Owner: owner, Waiting: o.Waiting || d.waiting()}
	}
	for _, sp := range k.spaces() {
		rules, err := sp.readRules()
		if err != nil {
			return nil, fmt.Errorf("owners: %w", err)
		}
		for _, r := range rules {
			if r.owner != "" {
				found[r.owner] = Owned{Owner: r.owner, Waiting: found[r.owner].Waiting}
			}
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Owned) int { return cmp.Compare(a.Owner, b.Owner) }), nil
}

// waiting says whether the device is the host's end of a pair whose container end is in the host's namespace.
func (d device) waiting() bool {
	return d.Veth != nil && d.Veth.PeerNS == Host && strings.HasPrefix(d.Veth.Peer, KindContainerEnd)
}
