package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink/nl"
)

// A scope is what the requests of one Set share.
type scope struct {
	k     *Kernel
	owner string
	index map[ref]int // of every link there is, so that none is looked up twice
	rules map[NS]int  // how many rules, of all owners, our table has
}

func (s *scope) space(ns NS) *space {
	if ns == Shared {
		return s.k.shared
	}
	return s.k.host
}

func (s *scope) indexOf(r ref) (int, error) {
	if index, ok := s.index[r]; ok {
		return index, nil
	}
	return 0, fmt.Errorf("%s: %w", r, unix.ENODEV)
}

// change sets attributes of a link.
func (s *scope) change(r ref, attrs ...nl.NetlinkRequestData) error {
	index, err := s.indexOf(r)
	if err != nil {
		return err
	}
	return s.space(r.ns).setLink(index, attrs...)
}
