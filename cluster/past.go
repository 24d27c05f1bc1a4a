package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Reached is how far a store of this host has come.
type Reached struct {
	Name    string   // for sentences
	Store   [16]byte // another one, if it was begun anew; zero: not known
	Commits uint64   // that are on disk
}

// point is a Reached in few bytes.
type point struct {
	Store   uint32 `json:"s"` // the first bytes of Reached.Store; 0: not known
	Commits uint64 `json:"c"`
}

func pointsOf(all []Reached) []point {
	points := make([]point, len(all))
	for i, r := range all {
		points[i] = point{binary.BigEndian.Uint32(r.Store[:4]), r.Commits}
	}
	return points
}

// past is one start of a node, in its own record of them. Starts are counted, and each has a random number: a disk that went back
// counts to the same number again.
type past struct {
	Number uint64  `json:"n"`
	Random uint32  `json:"r"`
	Began  []point `json:"at"` // where the stores were
}

// maxPasts starts are remembered. Who went back further and has been started so often since is found by the number alone.
const maxPasts = 32

// mark is how far a node has come, as it tells others, who remember it and tell it to the node when that starts again. Only the node
// itself can make one.
type mark struct {
	number uint64 // of the start
	random uint32
	at     []point
}

// Format of a mark: version, number, random, count of points, points, and markSum bytes of an HMAC-SHA-256 (RFC 2104).
const (
	markVersion = 1
	markSum     = 16
	maxMark     = 256 // bytes
	labelMark   = "carrick disk"
)

func (m mark) encode(key []byte) []byte {
	e := encoder{markVersion}
	e.uint(m.number)
	e.uint(uint64(m.random))
	e.uint(uint64(len(m.at)))
	for _, p := range m.at {
		e.uint(uint64(p.Store))
		e.uint(p.Commits)
	}
	return append(e, sumOf(key, e)...)
}

func sumOf(key, content []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(content)
	return h.Sum(nil)[:markSum]
}

var errNotOurs = errors.New("this node has not made it")

// openMark reads a mark that this node has made.
func openMark(key, raw []byte) (mark, error) {
	content := len(raw) - markSum
	if content < 0 || !hmac.Equal(raw[content:], sumOf(key, raw[:content])) {
		return mark{}, errNotOurs
	}
	return decodeMark(raw)
}

// decodeMark reads anybody's.
func decodeMark(raw []byte) (mark, error) {
	if len(raw) > maxMark || len(raw) < markSum {
		return mark{}, fmt.Errorf("a mark of %d bytes, %d to %d are allowed", len(raw), markSum, maxMark)
	}
	d := decoder{rest: raw[:len(raw)-markSum]}
	d.expect(markVersion)
	m := mark{number: d.uint(), random: uint32(d.uint())}
	for n := d.uint(); n > 0 && d.err == nil; n-- {
		m.at = append(m.at, point{uint32(d.uint()), d.uint()})
	}
	return m, d.err
}

// after tells whether a node that made both has made m later, if its disk never went back.
func (m mark) after(o mark) bool {
	return m.number > o.number || m.number == o.number && slices.ContainsFunc(ahead(m.at, o.at), func(n uint64) bool { return n > 0 })
}

// ahead is by how many commits the stores in one list are ahead of those in another. Of a store that was begun anew between them
// nobody knows; that is damage, which others see to.
func ahead(a, b []point) []uint64 {
	by := make([]uint64, len(a))
	for i, p := range a {
		if i < len(b) && p.Store == b[i].Store && p.Store != 0 && p.Commits > b[i].Commits {
			by[i] = p.Commits - b[i].Commits
		}
	}
	return by
}

// lag says whether the disk of a node that has these starts behind it, the last one being this, is older than a mark of its own, and
// how many commits of each store are missing. All that it has done since it went back may have brought it further than the
// mark: what counts is where it was at the end of the start that the mark is of.
func lag(pasts []past, now []point, m mark) (missing []uint64, older bool) {
	if len(pasts) == 0 || m.number < pasts[0].Number {
		return nil, false
	}
	i := int(m.number - pasts[0].Number)
	switch {
	case i >= len(pasts): // it has no record of that start
		return ahead(m.at, pasts[len(pasts)-1].Began), true
	case pasts[i].Random != m.random: // that was another one
		return ahead(m.at, pasts[i].Began), true
	case i < len(pasts)-1:
		now = pasts[i+1].Began
	}
	missing = ahead(m.at, now)
	return missing, slices.ContainsFunc(missing, func(n uint64) bool { return n > 0 })
}

// nextPast adds a start to those that are behind.
func nextPast(pasts []past, random uint32, began []point) []past {
	next := append(slices.Clone(pasts), past{Number: lastNumber(pasts) + 1, Random: random, Began: began})
	return next[max(0, len(next)-maxPasts):]
}

// pastBeyond is where starts are counted from when the disk went back: of none before, and of none that a mark is of, anything is said
// any more.
func pastBeyond(pasts []past, m mark, random uint32, now []point) []past {
	return []past{{Number: max(lastNumber(pasts), m.number) + 1, Random: random, Began: now}}
}

func lastNumber(pasts []past) uint64 {
	if len(pasts) == 0 {
		return 0
	}
	return pasts[len(pasts)-1].Number
}

// missingText is "12 commits of leases and 30 of raft", or that it is not known how many.
func missingText(stores []Reached, missing []uint64) string {
	var parts []string
	for i, n := range missing {
		if n > 0 && i < len(stores) {
			parts = append(parts, fmt.Sprintf("%d of %s", n, stores[i].Name))
		}
	}
	if len(parts) == 0 {
		return "it is not known how many commits are missing"
	}
	return "missing are the last commits: " + strings.Join(parts, ", ")
}
