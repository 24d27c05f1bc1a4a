package sim

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/carricknet/carrick/cluster"
	"github.com/carricknet/carrick/ipam/ledger"
)

// retryTime is how long an engine repeats a call that the plugin did not answer.
const retryTime = 15 * time.Second

// engine is a host's Docker, and what our driver has on disk of its networks.
type engine struct {
	h    *host
	run  int                 // counts its starts: what an earlier one did is over
	nets map[string]*network // by the cluster's identifier
}

// network is one network on one host.
type network struct {
	def        netDef
	id         string // Docker's
	pools      []string
	half       bool // the driver has begun to make or to remove it
	made       bool
	underWay   bool // the engine is making or removing it
	removing   bool // the latter
	containers []*container
}

// container is one endpoint.
type container struct {
	h        *host
	nw       *network
	mac      string
	name     string // "": the engine is too old to tell it
	endpoint string
	pool     string // that the engine has asked
	explicit bool
	began    time.Duration // when its address was asked for
	making   bool          // the driver is at it
	used     bool          // the driver has it on disk
	addr     netip.Addr
	holds    bool   // it has the address, and nobody else may
	lease    string // the key of the record that says so
	lost     bool   // its host's disk went back, and its lease may be gone until it is taken over
}

func (c *container) place() place { return place{c.nw.def.shared, c.addr} }

func (c *container) String() string { return c.h.name + "/" + c.endpoint }

// retry calls the plugin, and again when it dies.
func (t *task) retry(h *host, start func(*ledger.Ledger, ledger.Moment) ledger.Move) (ledger.Answer, error) {
	began, run := t.w.now, h.engine.run
	for {
		answer, err := t.call(h.process, start)
		if !errors.Is(err, errDied) || t.w.now-began > retryTime {
			return answer, err
		}
		t.sleep(t.w.within(200*time.Millisecond, 2*time.Second))
		if h.engine.run != run {
			return answer, err // the engine is dead too
		}
	}
}

// decide makes a plan a fact.
func (t *task) decide(p *process, plan func(cluster.View) (cluster.Txn, error)) error {
	deadline := t.w.now + ledger.AnswerTime
	for {
		if p == nil || p.dead {
			return errDied
		}
		txn, err := plan(t.w.log[p.h.at])
		if err != nil || len(txn.Then) == 0 {
			return err
		}
		if err = t.propose(p, txn, deadline); !errors.Is(err, cluster.ErrConflict) {
			return err
		}
	}
}

// create is `docker network create`.
func (e *engine) create(t *task, def netDef) {
	if e.nets[def.shared] != nil {
		return
	}
	e.h.w.serial++
	nw := &network{def: def, id: fmt.Sprintf("%s-net%d", e.h.name, e.h.w.serial), underWay: true}
	e.nets[def.shared] = nw
	run := e.run
	err := e.make(t, nw)
	if e.run != run { // the engine that asked is no more; what is half is removed by the driver, now or at its next start
		if !nw.half && !nw.made && e.nets[def.shared] == nw {
			delete(e.nets, def.shared) // the driver has not heard of it
		}
		for nw.half && e.unbind(t, nw) != nil && e.h.process != nil && e.h.process.ready {
			t.sleep(time.Second)
		}
		return
	}
	nw.underWay = false
	if err == nil {
		e.h.w.say("%s: has network %s", e.h.name, def)
		return
	}
	e.h.w.say("%s: no network %s: %v", e.h.name, def, err)
	e.destroy(t, nw)
}

func (e *engine) make(t *task, nw *network) error {
	if err := e.request(t, nw); err != nil {
		return err
	}
	began, run := t.w.now, e.run
	for {
		if e.run != run {
			return errGone
		}
		nw.half = true
		err := e.driver(t, nw, e.enter)
		if err == nil {
			nw.half, nw.made = false, true
			return nil
		}
		if !errors.Is(err, errDied) || t.w.now-began > retryTime {
			return err
		}
		t.sleep(time.Second)
	}
}

var errGone = errors.New("it is gone")

// driver has the driver do something about a network. It does one thing at a time.
func (e *engine) driver(t *task, nw *network, do func(*task, *network) error) error {
	p, run := e.h.process, e.run
	for p != nil && !p.dead && p.turns[nw] {
		t.sleep(20 * time.Millisecond)
	}
	if e.run != run {
		return errDied // who has asked is no more; what comes next of its network waits behind it in truth, and finds it gone
	}
	if p == nil || p.dead {
		return errDied
	}
	if e.nets[nw.def.shared] != nw {
		return errGone
	}
	p.turns[nw] = true
	defer delete(p.turns, nw)
	return do(t, nw)
}

var gatewayOption = map[string]string{"RequestAddressType": "com.docker.network.gateway"}

// enter is what the driver does of the creation, and again after a start: the cluster is told, and the pools are bound.
func (e *engine) enter(t *task, nw *network) error {
	p := e.h.process
	if err := t.member(p, nw.def.shared); err != nil {
		return err
	}
	want := cluster.Network{Mode: "overlay", MTU: 1450, Subnets: nw.def.subnets}
	err := t.decide(p, func(v cluster.View) (cluster.Txn, error) {
		_, txn, err := cluster.PlanJoin(v, named(want), cluster.Defaults{}, e.h.id)
		return txn, err
	})
	p.memberDone(nw.def.shared)
	if err != nil {
		return err
	}
	_, err = t.call(p, func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
		return l.Bind(at, nw.id, nw.def.shared, nw.def.subnets)
	})
	return err
}

// named gives a network the identifier that its subnets have.
func named(n cluster.Network) cluster.Network {
	n.Version, n.ID = 1, cluster.NetworkID("", n.Subnets)
	return n
}

// member takes the turn of what joins and leaves a network.
func (t *task) member(p *process, shared string) error {
	for p != nil && !p.dead && p.members[shared] {
		t.sleep(20 * time.Millisecond)
	}
	if p == nil || p.dead {
		return errDied
	}
	p.members[shared] = true
	return nil
}

func (p *process) memberDone(shared string) { delete(p.members, shared) }

// remove is `docker network rm`.
func (e *engine) remove(t *task, nw *network) {
	if nw.underWay || len(nw.containers) > 0 || e.nets[nw.def.shared] != nw {
		return
	}
	nw.underWay, nw.made, nw.removing = true, false, true
	e.destroy(t, nw)
}

// destroy is the end of a network, made or not.
func (e *engine) destroy(t *task, nw *network) {
	began, run := t.w.now, e.run
	for {
		err := e.unbind(t, nw)
		if err == nil || errors.Is(err, errGone) {
			break
		}
		if t.w.now-began > retryTime { // the engine forgets it whatever it is answered; the driver goes on
			break
		}
		t.sleep(500 * time.Millisecond)
		if e.run != run { // the engine is dead; what the driver has begun it finishes by itself
			return
		}
	}
	e.giveUp(t, nw)
	nw.underWay = false
}

// unbind is what the driver does of the removal.
func (e *engine) unbind(t *task, nw *network) error { return e.driver(t, nw, e.exit) }

func (e *engine) exit(t *task, nw *network) error {
	nw.half, nw.made = true, false
	if _, err := t.call(e.h.process, func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Unbind(at, nw.id) }); err != nil {
		return err
	}
	if e.nets[nw.def.shared] == nw {
		e.h.w.say("%s: network %s is gone", e.h.name, nw.def)
		delete(e.nets, nw.def.shared)
	}
	return nil
}

// leaveAll tells the cluster which networks, of those that it counts this host among, are not on it.
func (p *process) leaveAll(t *task) {
	here := func(shared string) bool {
		nw := p.h.engine.nets[shared]
		return nw != nil && (nw.half || nw.made)
	}
	for _, shared := range t.w.shared {
		if _, counted := t.w.log[p.h.at].Get("attend/" + shared + "/" + p.h.id); !counted || here(shared) {
			continue
		}
		if t.member(p, shared) != nil {
			return
		}
		if !here(shared) { // what cannot be told now is told in the next round
			_ = t.decide(p, func(v cluster.View) (cluster.Txn, error) { return cluster.PlanLeave(v, shared, p.h.id), nil })
		}
		if p.dead {
			return
		}
		p.memberDone(shared)
	}
}

// live is the life of a container.
func (e *engine) live(t *task, nw *network, lifetime time.Duration) {
	var asked netip.Addr
	if e.h.w.chance(0.2) {
		asked = e.h.w.someAddress(nw.def.subnets[e.h.w.IntN(len(nw.def.subnets))].Prefix)
	}
	e.lives(t, nw, asked, lifetime)
}

// lives is the life of a container that asks for an address; zero: for any.
func (e *engine) lives(t *task, nw *network, by netip.Addr, lifetime time.Duration) {
	w, h, run := t.w, e.h, e.run
	if len(nw.pools) < len(nw.def.subnets) {
		return // it was removed meanwhile
	}
	w.serial++
	c := &container{
		h: h, nw: nw, began: w.now, mac: fmt.Sprintf("02:00:00:%02x:%02x:%02x", w.serial>>16&255, w.serial>>8&255, w.serial&255),
		endpoint: fmt.Sprint("endpoint", w.serial),
	}
	asked := ""
	c.pool = nw.pools[0]
	if by.IsValid() {
		asked, c.explicit, c.pool = by.String(), true, nw.pool(by)
	}
	c.name = e.freeName()
	nw.containers = append(nw.containers, c)
	over := func() bool { return e.run != run }
	defer func() {
		if !over() {
			nw.containers = slices.DeleteFunc(nw.containers, func(o *container) bool { return o == c })
		}
	}()
	options := map[string]string{"com.docker.network.endpoint.macaddress": c.mac}
	if c.name != "" {
		options["com.docker.network.endpoint.name"] = c.name
	}
	request := func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
		return l.RequestAddress(at, c.pool, asked, options)
	}
	answer, err := t.retry(h, request)
	if over() {
		return
	}
	if err != nil {
		w.refused(c, asked, err)
		return
	}
	c.addr = answer.Prefix.Addr()
	w.given(c)
	if w.faulty && w.chance(0.05) {
		if again, err := t.retry(h, request); err == nil && again != answer && !over() && c.holds && !c.lost {
			w.breaks("%s asked twice and got %s and %s", c, answer.Prefix, again.Prefix)
		}
	}
	if w.faulty && w.chance(0.2) {
		t.sleep(w.within(0, 3*time.Second)) // the engine has more to do before it makes the endpoint
	}
	err = errGone
	for n := 0; !over(); n++ {
		c.making = true
		_, err = t.call(h.process, func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
			return l.Use(at, nw.id, c.endpoint, []netip.Addr{c.addr})
		})
		c.making = false
		if !errors.Is(err, errDied) || n > 5 {
			break
		}
		t.sleep(time.Second)
	}
	if c.used = err == nil; c.used {
		c.lost = false
	}
	if c.used && !over() {
		t.sleep(lifetime)
	}
	if over() {
		return
	}
	e.end(t, c)
}

// hurries starts containers while the plugin is about to end: some have their address, and have not heard of it.
func (e *engine) hurries(t *task) {
	for _, shared := range t.w.shared {
		if nw := e.nets[shared]; nw != nil && nw.made && t.w.faulty {
			for range 3 {
				t.w.start(func(t *task) { e.live(t, nw, t.w.within(0, 5*time.Second)) })
			}
		}
	}
	t.sleep(t.w.within(0, 8*time.Millisecond))
}

// freeName is one that no container of the host has. Of the engines every second one tells it.
func (e *engine) freeName() string {
	if slices.Index(e.h.w.hosts, e.h)%2 == 1 {
		return ""
	}
	taken := map[string]bool{}
	for _, nw := range e.nets {
		for _, c := range nw.containers {
			taken[c.name] = true
		}
	}
	n := e.h.w.IntN(8)
	for taken[fmt.Sprint("name", n)] {
		n++
	}
	return fmt.Sprint("name", n)
}

// end is the end of a container: its endpoint is deleted, and its address released, once or more often or never.
func (e *engine) end(t *task, c *container) {
	w, run := t.w, e.run
	w.lets(c)
	for c.making {
		t.sleep(50 * time.Millisecond)
	}
	c.used = false
	unuse := func(l *ledger.Ledger, at ledger.Moment) ledger.Move { return l.Unuse(at, c.endpoint) }
	for _, err := t.retry(e.h, unuse); err != nil; _, err = t.retry(e.h, unuse) {
		t.sleep(time.Second) // the driver knows that the endpoint is gone, and goes on whatever the engine does
	}
	if w.faulty && w.chance(0.05) || e.run != run || !c.addr.IsValid() {
		return
	}
	release := func(l *ledger.Ledger, at ledger.Moment) ledger.Move {
		return l.ReleaseAddress(at, c.pool, c.addr.String())
	}
	if _, err := t.retry(e.h, release); err == nil {
		w.released(c)
	}
}

// someAddress is one that users would name: near the beginning.
func (w *world) someAddress(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	host := len(b)*8 - p.Bits()
	b[len(b)-1] |= byte(w.IntN(40)) & byte(1<<min(8, host)-1)
	a, _ := netip.AddrFromSlice(b)
	return a
}
