package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// delLinks removes links of one namespace. The kernel waits for readers of a device that goes, 20 ms and more, once a request:
// a thousand pairs one by one take 18 s, as a group 0.44 s (Linux 6.18).
type delLinks []ref

func (o delLinks) String() string {
	lines := make([]string, len(o))
	for i, r := range o {
		lines[i] = fmt.Sprintf("%s link del %s", in("ip", r.ns), r.name)
	}
	return strings.Join(lines, "\n")
}

// together makes one request of the removals in each namespace.
func together(gone []ref) (ops []op) {
	for _, ns := range []NS{Shared, Host} {
		of := slices.DeleteFunc(slices.Clone(gone), func(r ref) bool { return r.ns != ns })
		if len(of) != 0 {
			ops = append(ops, delLinks(of))
		}
	}
	return ops
}

// apply puts the links into a group of their own and removes that, in our namespace. In the host's, where groups are other
// people's business, they go one by one. Their owner has been read from their aliases, and an index is never another link's.
func (o delLinks) apply(s *scope) error {
	sp := s.space(o[0].ns)
	if len(o) == 1 || sp.ns == Host {
		return o.single(s, sp)
	}
	group, err := sp.freeGroup()
	if err != nil {
		return err
	}
	grouped := 0
	for _, r := range o {
		index, err := s.indexOf(r)
		if err != nil {
			return err
		}
		delete(s.index, r)
		err = sp.setLink(index, attr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
		if errors.Is(err, unix.ENODEV) { // a sandbox died meanwhile, and the pair with it
			continue
		}
		if err != nil {
			return err
		}
		grouped++
	}
	if grouped == 0 {
		return nil
	}
	err = sp.do(unix.RTM_DELLINK, 0, nl.NewIfInfomsg(unix.AF_UNSPEC), attr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (o delLinks) single(s *scope, sp *space) error {
	for _, r := range o {
		index, err := s.indexOf(r)
		if err != nil {
			return err
		}
		head := nl.NewIfInfomsg(unix.AF_UNSPEC)
		head.Index = int32(index)
		delete(s.index, r)
		if err := sp.do(unix.RTM_DELLINK, 0, head); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// freeGroup is a number that no link of the namespace has for its group. It is chosen at random, so that nobody else chooses
// the same; 0 is the group of all links.
func (sp *space) freeGroup() (uint32, error) {
	used := make(map[uint32]bool)
	msgs, err := sp.list(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		attr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	if err != nil {
		return 0, err
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_GROUP {
				used[binary.NativeEndian.Uint32(a.Value)] = true
			}
		}
	}
	for {
		if group := rand.Uint32() >> 1; group != 0 && !used[group] {
			return group, nil
		}
	}
}
