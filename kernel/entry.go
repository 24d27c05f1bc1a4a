package kernel

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// An entry is one request about a forwarding or neighbour table.
type entry struct {
	do       verb
	announce bool // of a neighbour: whoever is on the bridge is told
	mac      MAC
	dev      ref
	ip       netip.Addr // of a forwarding entry its destination
}

type verb uint8

const (
	replaceBoth   verb = iota // the device's entry and the bridge's, in one request
	replaceSelf               // the device's alone
	appendSelf                // one more destination of what goes to all
	replaceMaster             // the bridge's alone
	deleteSelf
	deleteMaster
	replaceNeigh
	deleteNeigh
)

// requests are the verbs in the terms of rtnetlink(7), as bridge(8) and ip(8) send them. "static" is NUD_NOARP: with
// NUD_PERMANENT the bridge would take the address for one of its own. A VXLAN device wants NUD_PERMANENT or NUD_REACHABLE,
// and never forgets an entry with NUD_NOARP (vxlan_fdb_add, vxlan_cleanup).
var requests = [...]struct {
	kind, flags uint16
	state       uint16
	table       uint8 // NTF_…
	mac, dst    bool  // which attributes it has
}{
	replaceBoth:   {unix.RTM_NEWNEIGH, replace, unix.NUD_NOARP | unix.NUD_REACHABLE, unix.NTF_SELF | unix.NTF_MASTER, true, true},
	replaceSelf:   {unix.RTM_NEWNEIGH, replace, unix.NUD_NOARP | unix.NUD_REACHABLE, unix.NTF_SELF, true, true},
	appendSelf:    {unix.RTM_NEWNEIGH, unix.NLM_F_CREATE | unix.NLM_F_APPEND, unix.NUD_PERMANENT, unix.NTF_SELF, true, true},
	replaceMaster: {unix.RTM_NEWNEIGH, replace, unix.NUD_NOARP, unix.NTF_MASTER, true, false},
	deleteSelf:    {unix.RTM_DELNEIGH, 0, unix.NUD_PERMANENT, unix.NTF_SELF, true, true},
	deleteMaster:  {unix.RTM_DELNEIGH, 0, unix.NUD_NOARP, unix.NTF_MASTER, true, false},
	replaceNeigh:  {unix.RTM_NEWNEIGH, replace, unix.NUD_PERMANENT, 0, true, true},
	deleteNeigh:   {unix.RTM_DELNEIGH, 0, unix.NUD_PERMANENT, 0, false, true},
}

const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

func (e entry) String() string {
	bridge, ip := in("bridge", e.dev.ns)+" fdb", in("ip", e.dev.ns)+" neigh"
	switch e.do {
	case replaceBoth:
		return fmt.Sprintf("%s replace %s dev %s dst %s self master static", bridge, e.mac, e.dev.name, e.ip)
	case replaceSelf:
		return fmt.Sprintf("%s replace %s dev %s dst %s self static", bridge, e.mac, e.dev.name, e.ip)
	case appendSelf:
		return fmt.Sprintf("%s append %s dev %s dst %s self permanent", bridge, e.mac, e.dev.name, e.ip)
	case replaceMaster:
		return fmt.Sprintf("%s replace %s dev %s master static", bridge, e.mac, e.dev.name)
	case deleteSelf:
		return fmt.Sprintf("%s del %s dev %s dst %s self", bridge, e.mac, e.dev.name, e.ip)
	case deleteMaster:
		return fmt.Sprintf("%s del %s dev %s master", bridge, e.mac, e.dev.name)
	case replaceNeigh:
		return fmt.Sprintf("%s replace %s lladdr %s dev %s nud permanent", ip, e.ip, e.mac, e.dev.name)
	default:
		return fmt.Sprintf("%s del %s dev %s", ip, e.ip, e.dev.name)
	}
}

// setEntries are all requests about entries of a Set. There may be hundreds of thousands.
type setEntries []entry

func (o setEntries) String() string {
	lines := make([]string, len(o))
	for i, e := range o {
		lines[i] = e.String()
	}
	return strings.Join(lines, "\n")
}

// apply goes on over entries that the kernel refuses: one of them must not keep the others away.
func (o setEntries) apply(s *scope) error {
	var no refusals
	for rest := o; len(rest) > 0; {
		n := 1
		for n < min(len(rest), maxBatch) && rest[n].dev.ns == rest[0].dev.ns {
			n++
		}
		if err := s.send(rest[:n], &no); err != nil {
			return fmt.Errorf("%s (and %d more): %w", rest[0], len(rest)-1, err)
		}
		rest = rest[n:]
	}
	return no.err()
}

// send sends entries of one namespace at once.
func (s *scope) send(list []entry, no *refusals) error {
	b, err := s.space(list[0].dev.ns).openBulk()
	if err != nil {
		return err
	}
	var last ref
	index := 0
	for _, e := range list {
		if e.dev != last || index == 0 {
			if index, err = s.indexOf(e.dev); err != nil {
				return err
			}
			last = e.dev
		}
		b.add(e, index)
	}
	return s.space(list[0].dev.ns).step(setEntries(list), func() error {
		return b.flush(func(i int, err error) {
			if list[i].done(err) {
				return
			}
			no.add(fmt.Errorf("%s: %w", list[i], err))
		})
	})
}
