//go:build nemesis

package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// act is what a client has made the facts say of one network, in the words of who uses them.
type act struct {
	kind    string
	by      string // id of the node that proposed it
	network string // of contended; "" for all
	node    string // that it is about
	key     string // block or address
	value   string // subnet
	read    content
}

// content of the facts of one network, without what does not matter to who uses them:
//
//	network -> subnet          attend/NODE -> ""        want/ADDRESS -> NODE, or NODE no
//	reserve -> subnet          block/PREFIX -> NODE     fenced/NODE -> "" (of the cluster's, for all networks)
type content map[string]string

// contentOf reads a view.
func contentOf(v View, name string) content {
	c, id := content{}, NetworkID(name, nil)
	if n, ok := v.Network(id); ok {
		c["network"] = n.Subnets[0].Prefix.String()
	}
	if f, ok := v.Get("reserve/" + name + "/4"); ok {
		c["reserve"] = string(f.Value)
	}
	for _, node := range v.Attendants(id) {
		c["attend/"+node] = ""
	}
	for _, b := range v.Blocks(id) {
		c["block/"+b.Prefix.String()] = b.Node
	}
	for f := range v.Prefix("want/" + id + "/") {
		var w wantFact
		_ = json.Unmarshal(f.Value, &w) // what cannot be read is a want of nobody
		c["want/"+f.Key[strings.LastIndexByte(f.Key, '/')+1:]] = w.Node + strings.Repeat(" no", min(len(w.Denied), 1))
	}
	return c
}

// after is the content after an act, or false if the act cannot happen there.
func (c content) after(a act) (content, bool) {
	has := func(key string) bool { _, ok := c[key]; return ok }
	if has("fenced/" + a.by) {
		return nil, false
	}
	next := maps.Clone(c)
	ok := false
	switch a.kind {
	case "read":
		return c, maps.EqualFunc(a.read, c.shown(), func(x, y string) bool { return x == y })
	case "create":
		ok = !has("network")
		next["network"], next["attend/"+a.by] = a.value, ""
	case "join":
		ok = has("network")
		next["attend/"+a.by] = ""
	case "leave":
		ok = has("attend/" + a.by)
		next.leave(a.by)
	case "forget":
		ok = !has("fenced/" + a.node)
		if has("attend/" + a.node) {
			next.leave(a.node)
		}
		next.drop(a.node)
		next["fenced/"+a.node] = ""
	case "reserve":
		ok = !has("network") && !has("reserve")
		next["reserve"] = a.value
	case "claim":
		ok = has("attend/"+a.by) && !has("block/"+a.key)
		next["block/"+a.key] = a.by
	case "no block":
		ok = has("attend/"+a.by) && c.blocks() == contended[a.network].blocks
	case "ask":
		w, asked := c["want/"+a.key]
		ok = has("attend/"+a.by) && (!asked || strings.TrimSuffix(w, " no") == a.by)
		next["want/"+a.key] = a.by
	case "give":
		ok = c["want/"+a.key] == a.node && c.owner(a.key) == a.by
		delete(next, "want/"+a.key)
		if has("attend/" + a.node) {
			next["block/"+a.key+"/32"] = a.node
		}
	case "deny":
		ok = c["want/"+a.key] == a.node && c.owner(a.key) == a.by
		delete(next, "want/"+a.key)
		if has("attend/" + a.node) {
			next["want/"+a.key] = a.node + " no"
		}
	case "withdraw":
		ok = has("want/"+a.key) && strings.TrimSuffix(c["want/"+a.key], " no") == a.by
		delete(next, "want/"+a.key)
	}
	return next, ok
}

// leave takes a node off the network, and with the last one the network.
func (c content) leave(node string) {
	delete(c, "attend/"+node)
	c.drop(node)
	for key := range c {
		if strings.HasPrefix(key, "attend/") {
			return
		}
	}
	maps.DeleteFunc(c, func(key, _ string) bool { return !strings.HasPrefix(key, "fenced/") })
}

// drop removes what is a node's.
func (c content) drop(node string) {
	maps.DeleteFunc(c, func(key, value string) bool {
		return strings.HasPrefix(key, "block/") && value == node ||
			strings.HasPrefix(key, "want/") && strings.TrimSuffix(value, " no") == node
	})
}

// shown is what a view shows.
func (c content) shown() content {
	s := maps.Clone(c)
	maps.DeleteFunc(s, func(key, _ string) bool { return strings.HasPrefix(key, "fenced/") })
	return s
}

// blocks counts those of the network's own size.
func (c content) blocks() int {
	count := 0
	for key := range c {
		if p, ok := strings.CutPrefix(key, "block/"); ok {
			prefix := netip.MustParsePrefix(p)
			if s, err := netip.ParsePrefix(c["network"]); err == nil && prefix.Bits() == (Subnet{Prefix: s}).BlockBits() {
				count++
			}
		}
	}
	return count
}

// owner has the longest block around an address.
func (c content) owner(addr string) string {
	a, bits, owner := netip.MustParseAddr(addr), -1, ""
	for key, node := range c {
		if p, ok := strings.CutPrefix(key, "block/"); ok {
			if prefix := netip.MustParsePrefix(p); prefix.Contains(a) && prefix.Bits() > bits {
				bits, owner = prefix.Bits(), node
			}
		}
	}
	return owner
}

// happened is an act in the history.
type happened struct {
	act
	client   int
	call     int64 // ns since the round began
	returned int64 // never: math.MaxInt64
	mark     string
	view     View // of a read
}

// chronicle of a round.
type chronicle struct {
	mu    sync.Mutex
	begin time.Time
	all   []happened
	lost  int // answers
}

func (h *chronicle) now() int64 { return int64(time.Since(h.begin)) }

func (h *chronicle) add(a happened) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.returned == math.MaxInt64 {
		h.lost++
	}
	h.all = append(h.all, a)
}

// settle finds out about the acts without an answer: what has left no mark in the newest view never happened, and what has was
// done before a read that saw the mark was.
func (h *chronicle) settle(newest View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = slices.DeleteFunc(h.all, func(a happened) bool {
		_, done := newest.Get(a.mark)
		return a.returned == math.MaxInt64 && !done
	})
	for i, a := range h.all {
		if a.returned != math.MaxInt64 {
			continue
		}
		for _, r := range h.all {
			if r.kind == "read" {
				if _, seen := r.view.Get(a.mark); seen {
					h.all[i].returned = min(h.all[i].returned, r.returned)
				}
			}
		}
	}
}

// checkTime bounds the search for an order of one network's acts.
const checkTime = 60 * time.Second

// check looks for an order in which each act could have happened between its beginning and its end. Networks are checked one by
// one, with all that is about every network among each: an order of the whole is one of each part.
func (h *chronicle) check(newest View) []string {
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(contended)) {
		var ops []porcupine.Operation
		for _, a := range h.all {
			if a.network == name || a.network == "" {
				ops = append(ops, porcupine.Operation{ClientId: a.client, Input: a.act, Call: a.call, Return: a.returned})
			}
		}
		switch porcupine.CheckOperationsTimeout(model, ops, checkTime) {
		case porcupine.Illegal:
			wrong = append(wrong, fmt.Sprintf("%s: there is no order in which all could have happened: %s", name, h.wrongInLog(name, newest)))
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("%s: no order was found within %v", name, checkTime))
		}
	}
	return wrong
}

var model = porcupine.Model{
	Init: func() any { return content{} },
	Step: func(state, input, _ any) (bool, any) {
		next, ok := state.(content).after(input.(act))
		return ok, next
	},
	Equal: func(a, b any) bool { return maps.Equal(a.(content), b.(content)) },
}

// wrongInLog is the first act that could not happen when the log has it, for who looks for the reason.
func (h *chronicle) wrongInLog(name string, newest View) string {
	var acts []happened
	index := map[string]uint64{}
	for _, a := range h.all {
		if a.network != name && a.network != "" {
			continue
		}
		f, ok := newest.Get(a.mark)
		switch {
		case a.kind == "read" || a.kind == "no block":
			index[a.mark] = a.view.Index()
		case !ok:
			return fmt.Sprintf("%+v has left no mark", a.act)
		default:
			index[a.mark] = f.Index
		}
		acts = append(acts, a)
	}
	slices.SortStableFunc(acts, func(a, b happened) int { return cmp.Compare(index[a.mark], index[b.mark]) })
	state := content{}
	for i, a := range acts {
		next, ok := state.after(a.act)
		if !ok {
			text := fmt.Sprintf("entry %d, %v … %v, %+v cannot follow on\n%v, where it came by", index[a.mark], time.Duration(a.call),
				time.Duration(a.returned), a.act, state)
			for _, b := range acts[max(0, i-12):i] {
				text += fmt.Sprintf("\n  entry %d, %v … %v: %+v", index[b.mark], time.Duration(b.call), time.Duration(b.returned), b.act)
			}
			return text
		}
		state = next
	}
	return "in the order of the log all could have happened, but not at the time"
}
