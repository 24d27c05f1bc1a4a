//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/carricknet/carrick/lab"
)

var anyOrder = []scenario{
	{"ItIsOneNetworkAgainAfterAnyTwoMishaps", anyTwoMishaps},
}

// A mishap happens to one host, which is as before when it returns.
type mishap struct {
	name string
	// cuts: what runs on the host cannot be reached meanwhile. Traffic goes on through all other mishaps.
	cuts bool
	do   func(p *play, h *lab.Host, r *rand.Rand) error
}

var mishaps = []mishap{
	{"plugin killed", false, func(p *play, h *lab.Host, _ *rand.Rand) error { return p.killPlugin(h) }},
	{"plugin disabled", false, (*play).disabled},
	{"engine killed", true, (*play).engineKilled},
	{"host cut off", true, (*play).cutOff},
	{"containers started", false, (*play).start},
	{"containers removed", false, (*play).remove},
}

// most is how many containers come and go on a host, beside the one that stays.
const most = 4

// A play is what runs on the hosts while mishaps happen to them.
type play struct {
	*scene
	stays []*container   // one on each host
	goes  [][]*container // by host
	named int            // containers, by all hosts together: each has its own name
}

// anyTwoMishaps: two hosts have a mishap each at the same time, again and again. Whatever it was, afterwards the hosts are one
// cluster, everything reaches everything, and each host has what its containers have. The containers that stay, on hosts
// that were not cut off, have lost nothing meanwhile.
func anyTwoMishaps(s *scene) {
	s.network("blue")
	p := &play{scene: s, stays: s.runOnAll("stays", "--network", "blue", "--restart", "always"), goes: make([][]*container, len(s.hosts))}
	s.reach(allPairs("blue", p.stays...))
	for _, h := range s.hosts {
		s.must(p.start(h, s.rand))
	}
	for range s.scale.mishaps {
		p.step()
	}
}

func (p *play) step() {
	p.Helper()
	hosts := p.rand.Perm(len(p.hosts))[:2]
	var chosen []mishap
	var randoms []*rand.Rand
	calm := slices.Clone(p.stays)
	what := ""
	for _, i := range hosts {
		m := mishaps[p.rand.IntN(len(mishaps))]
		chosen = append(chosen, m)
		randoms = append(randoms, rand.New(rand.NewPCG(p.rand.Uint64(), 0)))
		what += fmt.Sprintf("%s: %s; ", p.hosts[i].Name, m.name)
		if m.cuts {
			calm = slices.DeleteFunc(calm, func(c *container) bool { return c.host == p.hosts[i] })
		}
	}
	p.named += 2 * most
	probes := p.probe(allPairs("blue", calm...))
	p.more(probes, 20)
	p.must(onAll([]int{0, 1}, func(i int) error { return chosen[i].do(p, p.hosts[hosts[i]], randoms[i]) }))
	p.joined(p.hosts...)
	p.stays = p.again(p.stays...)
	all := slices.Clone(p.stays)
	for i := range p.goes {
		p.goes[i] = p.again(p.goes[i]...)
		all = append(all, p.goes[i]...)
	}
	p.reach(allPairs("blue", all...))
	p.lossless(what+"the others meanwhile", probes, true)
	p.distinct("blue", all...)
	p.until("each host has what its containers have, and no more", func() error {
		return onAll(p.hosts, func(h *lab.Host) error { return p.hasEndpoints(h, 1+len(p.goes[p.index(h)])) })
	})
}

// briefly waits for up to a tenth of what a scenario waits in which that is the point.
func (p *play) briefly(r *rand.Rand) error {
	return p.rest(time.Duration(r.Int64N(int64(p.scale.away/10))) + 100*time.Millisecond)
}

func (p *play) disabled(h *lab.Host, r *rand.Rand) error {
	if _, err := h.Docker(p.ctx, "plugin", "disable", "-f", plugin); err != nil {
		return err
	}
	if err := p.briefly(r); err != nil {
		return err
	}
	_, err := h.Docker(p.ctx, "plugin", "enable", plugin)
	return err
}

func (p *play) engineKilled(h *lab.Host, r *rand.Rand) error {
	if err := p.killEngine(h); err != nil {
		return err
	}
	if err := p.briefly(r); err != nil {
		return err
	}
	return h.StartEngine(p.ctx)
}

func (p *play) cutOff(h *lab.Host, r *rand.Rand) error {
	if err := p.venue.lab.Cut(p.ctx, h); err != nil {
		return err
	}
	if err := p.briefly(r); err != nil {
		return err
	}
	return p.venue.lab.Heal(p.ctx, h)
}

// start starts containers, as many as there is room for. One that does not start leaves nothing: that the cluster has no
// quorum for a moment is a reason.
func (p *play) start(h *lab.Host, r *rand.Rand) error {
	i := p.index(h)
	for n := range 1 + r.IntN(most) {
		if len(p.goes[i]) == most {
			return nil
		}
		name := fmt.Sprint("goes", p.named+n)
		c, err := p.scene.start(h, name, "--network", "blue", "--restart", "always")
		if err == nil {
			p.goes[i] = append(p.goes[i], c)
			continue
		}
		p.Logf("%s on %s: %v", name, h.Name, reason(err))
		if _, err := h.Docker(p.ctx, "rm", "-f", name); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) remove(h *lab.Host, r *rand.Rand) error {
	i := p.index(h)
	r.Shuffle(len(p.goes[i]), func(a, b int) { p.goes[i][a], p.goes[i][b] = p.goes[i][b], p.goes[i][a] })
	for range r.IntN(len(p.goes[i]) + 1) {
		if _, err := h.Docker(p.ctx, "rm", "-f", p.goes[i][0].name); err != nil {
			return err
		}
		p.goes[i] = p.goes[i][1:]
	}
	return nil
}
