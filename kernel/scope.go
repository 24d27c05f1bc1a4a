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
	index map[ref]int         // of the links that matter, so that none is looked up for each entry
	rules map[NS][]markedRule // of all owners, in our table
	mute  bool                // an announcement has failed, and the next would too
}

func (s *scope) space(ns NS) *space { return s.k.space(ns) }

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
