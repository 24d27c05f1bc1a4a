package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An ear is a socket on which a namespace tells of its changes.
type ear struct {
	file     *os.File
	fd       int
	protocol int
	groups   []int // RTNLGRP_… or NFNLGRP_…
	// noisy are those of groups that tell of what we do ourselves, entry by entry: nobody listens to them meanwhile.
	noisy []int
}

// listen opens the ears of a namespace. What they hear is handed to heard, from goroutines of their own, until close; lost says
// that something was missed.
func (sp *space) listen(heard func(sp *space, protocol int, m []byte), lost func()) error {
	ears := []*ear{
		{protocol: unix.NETLINK_ROUTE, groups: []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH}, noisy: []int{unix.RTNLGRP_NEIGH}},
		{protocol: unix.NETLINK_NETFILTER, groups: []int{unix.NFNLGRP_NFTABLES}, noisy: []int{unix.NFNLGRP_NFTABLES}},
	}
	for _, e := range ears {
		if sp.sockets[e.protocol] == nil {
			continue // a kernel without
		}
		if err := e.open(sp); err != nil {
			sp.stopListening()
			return fmt.Errorf("namespace %s: netlink socket for events: %w", nsName(sp.ns), err)
		}
		sp.ears = append(sp.ears, e)
		go e.run(sp, heard, lost)
	}
	return nil
}

func (sp *space) stopListening() {
	for _, e := range sp.ears {
		_ = e.file.Close()
	}
	sp.ears = nil
}

func (e *ear) open(sp *space) error {
	err := inside(sp.fd, func() (err error) {
		e.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, e.protocol)
		return err
	})
	if err != nil {
		return err
	}
	e.file = os.NewFile(uintptr(e.fd), "netlink")
	err = unix.Bind(e.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range e.groups {
		err = errors.Join(err, unix.SetsockoptInt(e.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	if err != nil {
		_ = e.file.Close()
	}
	return err
}

// run ends when the file is closed.
func (e *ear) run(sp *space, heard func(sp *space, protocol int, m []byte), lost func()) {
	buf := make([]byte, 32<<10) // the kernel's own limit for one message with several links
	for {
		n, err := e.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // ENOBUFS: more came than there was room for
			lost()
			continue
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.SizeofNlMsghdr || size > len(rest) {
				break
			}
			heard(sp, e.protocol, rest[:size])
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
}

// quietly does something of ours that would be told of entry by entry. What others do meanwhile is found by the next audit.
func (k *Kernel) quietly(f func() error) error {
	set := func(option int) {
		for _, sp := range k.spaces() {
			for _, e := range sp.ears {
				for _, group := range e.noisy {
					_ = unix.SetsockoptInt(e.fd, unix.SOL_NETLINK, option, group) // fails for no group that it was joined to
				}
			}
		}
	}
	set(unix.NETLINK_DROP_MEMBERSHIP)
	defer set(unix.NETLINK_ADD_MEMBERSHIP)
	return f()
}

// heard looks whether an event is one of something that we keep, and that is not as it is wanted. Most are not: containers
// come and go.
func (k *Kernel) heard(sp *space, protocol int, m []byte) {
	kind, body := binary.NativeEndian.Uint16(m[4:]), m[unix.SizeofNlMsghdr:]
	if protocol == unix.NETLINK_NETFILTER {
		if aboutOurTable(body) {
			k.doubts.rules()
		}
		return
	}
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) >= unix.SizeofIfInfomsg {
			k.heardOfLink(sp, body, kind == unix.RTM_DELLINK)
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeighbour(body)
		forwarding := n.Family == unix.AF_BRIDGE
		// What bridges learn and forget is not ours. A neighbour is told to have failed when it is deleted (neigh_delete).
		if ok && (n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 || kind == unix.RTM_DELNEIGH && !forwarding) {
			k.doubts.entry(place{ns: sp.ns, index: int(n.Index)}, forwarding)
		}
	}
}

func (k *Kernel) heardOfLink(sp *space, body []byte, gone bool) {
	at := place{ns: sp.ns, index: int(nl.DeserializeIfInfomsg(body).Index)}
	if body[0] != unix.AF_BRIDGE {
		d, err := parseDevice(sp.ns, body)
		k.doubts.link(at, d, gone || err != nil)
		return
	}
	attrs, err := nl.ParseRouteAttr(body[unix.SizeofIfInfomsg:])
	if err != nil {
		return
	}
	var d device
	for _, a := range attrs {
		if a.Attr.Type&^unix.NLA_F_NESTED != unix.IFLA_PROTINFO {
			continue
		}
		if flags, err := nl.ParseRouteAttr(a.Value); err == nil {
			d.parsePort(flags)
			k.doubts.port(at, d.Link, false)
		}
	}
	if gone {
		k.doubts.port(at, d.Link, true)
	}
}

// aboutOurTable says whether an event of nftables, struct nfgenmsg and attributes, is about our table. In each kind of them the
// first attribute is the name of the table.
func aboutOurTable(body []byte) bool {
	if len(body) < nl.SizeofNfgenmsg {
		return false
	}
	attrs, err := nl.ParseRouteAttr(body[nl.SizeofNfgenmsg:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.NFTA_TABLE_NAME {
			return body[0] == unix.NFPROTO_INET && unix.ByteSliceToString(a.Value) == table
		}
	}
	return false // of a generation: which ruleset it is, and no more
}
