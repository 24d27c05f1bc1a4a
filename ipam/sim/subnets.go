package sim

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// A network of several subnets: the engine has a pool for each, asks the first for addresses that nobody asked for by name, and gives
// an address back to the pool that it had asked.

func (d netDef) String() string { return d.subnets[0].Prefix.String() }

// of is the subnet that an address lies in, and its place among the network's.
func (d netDef) of(addr netip.Addr) (cluster.Subnet, int) {
	n := slices.IndexFunc(d.subnets, func(s cluster.Subnet) bool { return s.Prefix.Contains(addr) })
	if n < 0 {
		return cluster.Subnet{}, 0
	}
	return d.subnets[n], n
}

// pool is the one of a network that an address lies in; "": it has not been asked for yet.
func (nw *network) pool(addr netip.Addr) string {
	if _, n := nw.def.of(addr); n < len(nw.pools) {
		return nw.pools[n]
	}
	return ""
}

// request asks for the pools of a network, and for the gateways.
func (e *engine) request(t *task, nw *network) error {
	for _, s := range nw.def.subnets {
		r := ledger.PoolRequest{Space: ledger.LocalSpace, Pool: s.Prefix.String(), V6: s.Prefix.Addr().Is6()}
		if s.Range != s.Prefix {
			r.SubPool = s.Range.String()
		}
		answer, err := t.retry(e.h, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.RequestPool(at, r, nil) })
		if err != nil {
			return err
		}
		nw.pools = append(nw.pools, answer.Pool)
		if _, err := t.retry(e.h, func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
			return l.RequestAddress(at, answer.Pool, "", gatewayOption)
		}); err != nil {
			return err
		}
	}
	return nil
}

// giveUp gives the pools of a network back.
func (e *engine) giveUp(t *task, nw *network) {
	for n, pool := range nw.pools {
		_, _ = t.retry(e.h, func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
			return l.ReleaseAddress(at, pool, nw.def.subnets[n].Gateway.String())
		})
		_, _ = t.retry(e.h, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.ReleasePool(at, pool) })
	}
}

// released checks that an address that came back is not the container's any more.
func (w *world) released(c *container) {
	if held := c.h.disk["lease/"+c.nw.pool(c.addr)+"/"+c.addr.String()]; w.calm() && bytes.Contains(held, []byte(c.mac)) {
		w.breaks("%s gave %s back, and it is still leased: %s", c, c.addr, held)
	}
}

// free is an address of a network that a host could give: its own or nobody's, and no container's.
func (w *world) free(h *host, d netDef) (string, bool) {
	for _, s := range d.subnets {
		for addr := s.Range.Addr(); s.Range.Contains(addr) && s.Range.Addr().BitLen()-s.Range.Bits() <= 8; addr = addr.Next() {
			owner := w.owner(d.shared, addr)
			if s.Usable(addr) && (owner == "" || owner == h.id) && !w.leasedAnywhere(d.shared, addr) && !w.frozenAnywhere(d.shared, addr) {
				return fmt.Sprint(addr), true
			}
		}
	}
	return "", false
}
