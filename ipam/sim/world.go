package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// world is one history while it is played.
type world struct {
	*rand.Rand
	plan   Plan
	now    time.Duration
	turn   uint64
	events events
	// What tasks run on, and which of it is free.
	coroutines, idle []*coroutine
	trace            func(string, ...any) // nil: nobody listens
	broken           error

	log    []cluster.View // by index
	hosts  []*host
	nets   []netDef
	shared []string // their identifiers, sorted
	faulty bool     // faults happen; at the end all is well
	long   bool     // for long, with a lull

	holders map[place]*container
	ended   map[string]time.Duration // when a record was deleted last, on any host
	serial  int
	calmed  time.Duration // when the last fault was over
	shaken  time.Duration // when a host was forgotten last
	// What has been checked, and what there is.
	checked      int
	disksChanged bool

	figures Figures
}

// place is an address in a network of the cluster.
type place struct {
	shared string
	addr   netip.Addr
}

// netDef is a network that hosts may have.
type netDef struct {
	subnets []cluster.Subnet
	shared  string // its identifier in the cluster
}

// definitions are the networks of which each history takes some: blocks of one, 16 and 64 addresses, ranges smaller than the
// subnet, both families, one that is drawn from, and one of two subnets.
func definitions() []netDef {
	var all []netDef
	for _, s := range []struct{ prefix, rng, second string }{
		{"10.1.0.0/28", "", ""}, {"10.2.0.0/24", "", ""}, {"10.3.0.0/24", "10.3.0.128/26", ""}, {"10.4.0.0/20", "", ""},
		{"fd00::/122", "", ""}, {"fd00:1::/64", "", ""}, {"10.5.0.0/29", "", ""}, {"10.6.0.0/24", "10.6.0.64/30", ""},
		{"10.7.0.0/28", "", "10.8.0.0/24"},
	} {
		var d netDef
		for _, text := range slices.DeleteFunc([]string{s.prefix, s.second}, func(text string) bool { return text == "" }) {
			prefix := netip.MustParsePrefix(text)
			d.subnets = append(d.subnets, cluster.Subnet{Prefix: prefix, Range: prefix, Gateway: prefix.Addr().Next()})
		}
		if s.rng != "" {
			d.subnets[0].Range = netip.MustParsePrefix(s.rng)
		}
		d.shared = cluster.NetworkID("", d.subnets)
		all = append(all, d)
	}
	return all
}

func newWorld(plan Plan) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(plan.Seed, 0)), plan: plan, log: []cluster.View{{}}, holders: map[place]*container{},
		ended: map[string]time.Duration{}, faulty: true,
	}
	all := definitions()
	w.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	w.nets = all[:1+w.IntN(3)]
	for _, n := range w.nets {
		w.shared = append(w.shared, n.shared)
	}
	slices.Sort(w.shared)
	for n := range plan.Hosts {
		w.hosts = append(w.hosts, newHost(w, fmt.Sprint("host", n+1)))
	}
	for _, h := range w.hosts {
		w.register(h)
	}
	for _, h := range w.hosts {
		h.at = w.head()
		h.boot()
	}
	return w
}

// chance is true with that probability.
func (w *world) chance(p float64) bool { return w.Float64() < p }

// within is a time between two.
func (w *world) within(from, to time.Duration) time.Duration {
	return from + time.Duration(w.Int64N(int64(to-from)+1))
}

func (w *world) say(format string, args ...any) {
	if w.trace != nil {
		w.trace("%8.3f "+format, append([]any{w.now.Seconds()}, args...)...)
	}
}

func (w *world) head() int { return len(w.log) - 1 }

func (w *world) newest() cluster.View { return w.log[w.head()] }

// register makes a host's identity one of the cluster's nodes.
func (w *world) register(h *host) {
	op := cluster.Op{Key: "node/" + h.id, Value: fmt.Appendf(nil, `{"v":1,"id":%q,"name":%q}`, h.id, h.name)}
	w.append(cluster.Txn{Then: []cluster.Op{op}}, "the cluster")
}

// append puts a transaction into the log, if its conditions hold.
func (w *world) append(txn cluster.Txn, who string) error {
	if w.plan.Flaw == FlawBlindLog {
		txn.If = nil
	}
	next, err := w.newest().Apply(txn)
	if w.trace != nil {
		var then []string
		for _, op := range txn.Then {
			then = append(then, strings.TrimSpace(op.Key+" "+string(op.Value)))
		}
		w.say("%s: log %d: %s: %v", who, w.head()+1, strings.Join(then, "; "), err)
	}
	if err != nil {
		return err
	}
	w.log = append(w.log, next)
	for _, h := range w.hosts {
		w.tell(h, w.head())
	}
	w.forgets(txn)
	return nil
}

// tell has a host hear of the log up to an index, soon.
func (w *world) tell(h *host, index int) {
	delay := w.within(time.Millisecond, 20*time.Millisecond)
	if w.faulty && w.chance(0.1) {
		delay = w.within(0, 3*time.Second)
	}
	w.after(max(delay, h.copies-w.now), func() {
		if h.process != nil && !h.cut && index > h.at {
			h.at = index
			h.process.news()
		}
	})
}

// quorum says whether a host reaches most of the others.
func (w *world) quorum(h *host) bool {
	if h.cut || h.process == nil || w.now < h.copies {
		return false
	}
	up := 0
	for _, other := range w.hosts {
		if other.process != nil && !other.cut {
			up++
		}
	}
	return 2*up > len(w.hosts)
}

// owner is the node that has an address, by the newest entry of the log.
func (w *world) owner(shared string, addr netip.Addr) string {
	node, _ := w.newest().Owners(shared).Of(addr)
	return node
}
