package cli

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/carricknet/carrick/ipam"
)

// show asks about the pools that were named, and shows a table of the answer, or the answer as it is.
func show[T any](ctx context.Context, s *session, method, what string, head []string, row func(T) []string) error {
	raw, err := s.call(ctx, method, map[string]string{"pool": s.param})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(raw)
	}
	var all []T
	if err := understand(raw, &all); err != nil {
		return err
	}
	var rows [][]string
	for _, v := range all {
		rows = append(rows, row(v))
	}
	return s.table(what, head, rows)
}

func showPools(ctx context.Context, s *session) error {
	head := []string{"SUBNET", "NETWORK", "NAME", "MODE", "GATEWAY", "USABLE", "USED HERE", "FREE HERE", "USED ELSEWHERE", "UNCLAIMED", "STRANDED", "NOTES"}
	return show(ctx, s, "Pools", "pools", head, func(p ipam.PoolStatus) []string {
		network := p.Network
		if p.Absent() {
			network = p.Shared
		}
		unclaimed, stranded := "", ""
		if p.Shared != "" {
			unclaimed, stranded = many(p.Unclaimed), many(p.Stranded)
		}
		return []string{
			p.Subnet.String(), short(network), p.Name, p.Mode, orEmpty(p.Gateway), many(p.Usable), strconv.Itoa(p.Used), many(p.Free),
			told(p.Told), unclaimed, stranded, strings.Join(poolNotes(p), "; "),
		}
	})
}

// poolNotes are what few pools have.
func poolNotes(p ipam.PoolStatus) []string {
	var notes []string
	switch {
	case p.Absent():
		notes = append(notes, "not on this host")
	case p.Network == "":
		notes = append(notes, "no network of Carrick's has it")
	}
	if p.Stale {
		notes = append(notes, "who has which block is not known")
	}
	if p.Range != p.Subnet {
		notes = append(notes, "addresses from "+p.Range.String())
	}
	if p.Frozen > 0 {
		notes = append(notes, many(p.Frozen)+" frozen")
	}
	return notes
}

func showBlocks(ctx context.Context, s *session) error {
	head := []string{"BLOCK", "SUBNET", "NETWORK", "HOST", "STATE", "ADDRESSES", "USED", "FREE", "LOG ENTRY", "NOTES"}
	return show(ctx, s, "Blocks", "blocks: no network of a cluster", head, func(b ipam.BlockStatus) []string {
		network, free, note := b.Network, "", ""
		if network == "" {
			network = b.Shared
		}
		switch {
		case b.Frozen:
			note = "frozen"
		case b.GivenUp:
			note = "being given back"
		case b.Mine:
			free = many(b.Free)
		case b.Stranded:
			note = "stranded"
		}
		return []string{
			b.Prefix.String(), b.Subnet.String(), short(network), b.Host, b.State + sinceThen(b.Silent), many(b.Size), told(b.Used), free,
			strconv.FormatUint(b.Entry, 10), note,
		}
	})
}

func showLeases(ctx context.Context, s *session) error {
	head := []string{"ADDRESS", "SUBNET", "NETWORK", "STATE", "MAC", "ENDPOINT", "NAME", "SINCE"}
	return show(ctx, s, "Leases", "leases", head, func(l ipam.LeaseStatus) []string {
		state := string(l.State)
		if !l.Until.IsZero() {
			state += " until " + l.Until.UTC().Format(time.RFC3339)
		}
		return []string{l.Addr.String(), l.Subnet.String(), short(l.Network), state, l.MAC, short(l.Endpoint), l.Name, when(l.Since)}
	})
}

func showWho(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "Who", map[string]string{"address": s.param})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(raw)
	}
	var all []ipam.AddressStatus
	if err := understand(raw, &all); err != nil {
		return err
	}
	for n, a := range all {
		if n > 0 {
			if err := s.print("\n"); err != nil {
				return err
			}
		}
		if err := s.rows(whoRows(a)); err != nil {
			return err
		}
	}
	return nil
}

func whoRows(a ipam.AddressStatus) [][2]string {
	rows := [][2]string{{"address", a.Addr.String()}, {"subnet", a.Subnet.String() + ", " + networkOf(a)}}
	if a.Block.IsValid() {
		state := a.HostState + sinceThen(a.Silent)
		if state != "" {
			state = ", " + state
		}
		rows = append(rows, [2]string{"block", a.Block.String() + " of " + a.Host + state})
	}
	return append(rows, [2]string{"holder", holder(a)})
}

func networkOf(a ipam.AddressStatus) string {
	name := a.Network
	if name == "" {
		name = a.Shared
	}
	if name == "" {
		return "no network of Carrick's has it"
	}
	text := "network " + short(name)
	if a.Name != "" {
		text += " (" + a.Name + ")"
	}
	if a.Network == "" {
		text += ", not on this host"
	}
	return text
}

// holder says who has an address, or why nobody has it.
func holder(a ipam.AddressStatus) string {
	switch a.State {
	case ipam.StateUsed:
		where := "on " + a.Host
		if a.Here {
			where = "on this host"
		}
		text := "endpoint " + short(a.Endpoint) + " " + where
		if a.MAC != "" {
			text += ", MAC " + a.MAC
		}
		if a.Holder != "" {
			text += ", container " + a.Holder
		}
		if !a.Since.IsZero() {
			text += "," + sinceThen(a.Since)
		}
		return text
	case ipam.StateIdle:
		return "nobody: handed out on this host" + sinceThen(a.Since) + ", and no endpoint has it, yet or any more"
	case ipam.StateResting:
		return "nobody: resting until " + when(a.Until) + " on this host, unless nothing else is left"
	case ipam.StateGateway:
		return "gateway of " + a.Subnet.String()
	case ipam.StateAuxiliary:
		return strings.TrimSuffix("--aux-address "+a.Holder, " ") + " of " + a.Subnet.String()
	case ipam.StateUnusable:
		return "nobody: it is the network's, the broadcast or the anycast address of " + a.Subnet.String()
	case ipam.StateFree, ipam.StateUnused:
		return strings.TrimSuffix("nobody: "+string(a.State)+", "+a.Note, ", ")
	}
	return "not known: " + a.Note
}

// many shows a number of addresses; that of a large IPv6 subnet as the nearest power of two.
func many(n uint64) string {
	const readable = 1 << 32 // all of IPv4
	if n > readable {
		return fmt.Sprintf("~2^%.0f", math.Log2(float64(n)))
	}
	return strconv.FormatUint(n, 10)
}

// told shows what is not known as nothing.
func told(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

func orEmpty(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
