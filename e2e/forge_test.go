//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/carricknet/carrick/e2e/forge"
	"github.com/carricknet/carrick/lab"
)

const (
	forgeBuilt = "../build/forge"
	forgePath  = "/usr/local/bin/forge" // on the hosts
	sharedPath = "/run/docker/carrick/shared"

	vxlanPort = 4789
	someMAC   = "02:66:66:66:66:66" // nobody's
	// burst is how many frames make one forgery: more than a busy machine loses.
	burst = 20
)

// armed gives a container the forge: as /forge, under the capabilities that every container has.
var armed = []string{"-v", forgePath + ":/forge:ro"}

// arm builds the forge and puts it on the hosts.
func (s *scene) arm() {
	s.Helper()
	build := exec.CommandContext(s.ctx, "go", "build", "-o", forgeBuilt, "./forge/cmd/forge")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.Fatalf("build the forge: %v: %s", err, out)
	}
	s.all(func(h *lab.Host) error { return h.Copy(s.ctx, forgeBuilt, forgePath) })
}

// A sender sends what an order says from somewhere, and fails if nothing left.
type sender func(o forge.Order) error

func sending(run func(order string) (string, error)) sender {
	return func(o forge.Order) error {
		order, err := json.Marshal(o)
		if err != nil {
			return err
		}
		text, err := run(string(order))
		if err != nil {
			return err
		}
		var sent forge.Sent
		if err := json.Unmarshal([]byte(text), &sent); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
		if sent.Sent == 0 {
			return fmt.Errorf("nothing was sent: %s", sent.Last)
		}
		return nil
	}
}

// stranger is somebody on the switch who is no host.
func (s *scene) stranger() (*lab.Stranger, sender) {
	s.Helper()
	st, err := s.venue.lab.Stranger(s.ctx)
	s.must(err)
	return st, sending(func(order string) (string, error) { return st.Run(s.ctx, forgeBuilt, "send", order) })
}

// from is a host itself.
func (s *scene) from(h *lab.Host) sender {
	return sending(func(order string) (string, error) { return h.Run(s.ctx, forgePath, "send", order) })
}

// by is a process in an armed container, with no more rights than that has.
func (s *scene) by(c *container) sender {
	return sending(func(order string) (string, error) {
		return c.host.Docker(s.ctx, "exec", c.name, "/forge", "send", order)
	})
}

// friendly is root of the host in the container's network namespace.
func (s *scene) friendly(c *container) sender {
	return sending(func(order string) (string, error) { return c.host.Run(s.ctx, c.in(forgePath, "send", order)...) })
}

// A watching is a watch that runs.
type watching struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// watch starts a command of the forge and returns when it misses nothing more.
func (s *scene) watch(cmd *exec.Cmd) watching {
	s.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	w := watching{cmd, bufio.NewReader(out)}
	if line, err := w.out.ReadString('\n'); line != "ready\n" {
		s.Fatalf("forge watch: %q, %v", line, err)
	}
	return w
}

func (w watching) end() (seen forge.Seen, err error) {
	text, err := io.ReadAll(w.out)
	if err == nil {
		err = json.Unmarshal(text, &seen)
	}
	if end := w.cmd.Wait(); end != nil {
		err = end
	}
	return seen, err
}

// device is the name of a container's interface on a network.
func (s *scene) device(c *container, network string) string {
	s.Helper()
	out, err := c.host.Run(s.ctx, c.in("ip", "-o", "link")...)
	s.must(err)
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(line, c.nets[network].mac) {
			name, _, _ := strings.Cut(rest, "@")
			return name
		}
	}
	s.Fatalf("%s has no interface with %s:\n%s", c, c.nets[network].mac, out)
	return ""
}

// A forgery is something that nobody should be able to send.
type forgery struct {
	name  string
	by    sender
	order forge.Order
	// harmless is what does not arrive without our defence either.
	harmless bool
}

// arrived lets everybody send, and says of how many frames of each forgery came in to a container: until a datagram of a
// friend came in, who sent it when all had sent.
func (s *scene) arrived(network string, victim, friend *container, all []forgery) []int {
	s.Helper()
	mark := fmt.Sprintf("%x", time.Now().UnixNano())
	w := forge.Watch{Device: s.device(victim, network), Until: mark + " marker", Limit: patience}
	for i := range all {
		w.Texts = append(w.Texts, fmt.Sprintf("%s forgery %d.", mark, i))
	}
	what, err := json.Marshal(w)
	s.must(err)
	watching := s.watch(victim.host.Command(s.ctx, victim.in(forgePath, "watch", string(what))...))
	for i, f := range all {
		if f.order.Frame != nil { // the caller's stays as it is
			frame := *f.order.Frame
			frame.Text = w.Texts[i]
			f.order.Frame = &frame
		} else {
			f.order.Text = w.Texts[i]
		}
		if f.order.Count == 0 {
			f.order.Count = burst
		}
		if err := f.by(f.order); err != nil {
			s.Errorf("%s: %v", f.name, err)
		}
	}
	s.must(s.friendly(friend)(forge.Order{Count: 3, To: netip.AddrPortFrom(victim.nets[network].v4, 9), Text: w.Until}))
	seen, err := watching.end()
	s.must(err)
	if !seen.Ended {
		s.Errorf("%s did not receive what %s sent", victim, friend)
	}
	counts := make([]int, len(all))
	for i, text := range w.Texts {
		counts[i] = seen.Counts[text]
	}
	return counts
}

// kept demands that no forgery arrives, that each does while the hosts that are named are open, and that then none does again.
func (s *scene) kept(network string, victim, friend *container, open []*lab.Host, all []forgery) {
	s.Helper()
	closed := func(when string) {
		for i, n := range s.arrived(network, victim, friend, all) {
			if n != 0 {
				s.Errorf("%s %s: %d of %d frames arrived in %s", all[i].name, when, n, burst, victim)
			}
		}
	}
	closed("as it is")
	s.open(open, func() {
		// Again and again: a sender whose gateway is new, and does not answer yet (RFC 4862 section 5.4), sends later.
		s.until(fmt.Sprintf("%d forgeries come in without the defence", dangerous(all)), func() error {
			for i, n := range s.arrived(network, victim, friend, all) {
				switch {
				case n == 0 && !all[i].harmless:
					return fmt.Errorf("%s: does not arrive in %s without the defence either, so that this proves nothing", all[i].name, victim)
				case n != 0 && all[i].harmless:
					s.Errorf("%s: %d frames arrived in %s without the defence: so it was that which kept it", all[i].name, n, victim)
				}
			}
			return nil
		})
	})
	closed("after the defence was off")
	s.Logf("%d forgeries of %d frames against %s: none arrived; %d ways that are open without the defence", len(all), burst, victim, dangerous(all))
}

func dangerous(all []forgery) (n int) {
	for _, f := range all {
		if !f.harmless {
			n++
		}
	}
	return n
}

// open switches the firewall of hosts off while f runs: with a rule at its head that accepts everything, which the plugin
// leaves alone because it is not its own.
func (s *scene) open(hosts []*lab.Host, f func()) {
	s.Helper()
	type rule struct {
		host          *lab.Host
		chain, handle string
	}
	var rules []rule
	for _, h := range hosts {
		for _, chain := range []string{"prerouting", "forward"} {
			out, err := h.Run(s.ctx, "nft", "--echo", "--handle", "insert", "rule", "inet", "carrick", chain, "accept")
			s.must(err)
			_, handle, ok := strings.Cut(out, "# handle ")
			if !ok {
				s.Fatalf("%s: nft says %q", h.Name, out)
			}
			rules = append(rules, rule{h, chain, strings.Fields(handle)[0]})
		}
	}
	f()
	for _, r := range rules {
		_, err := r.host.Run(s.ctx, "nft", "delete", "rule", "inet", "carrick", r.chain, "handle", r.handle)
		s.must(err) // it was there all the time
	}
}

// vtep is the address by which the others reach a host.
func vtep(h *lab.Host, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(h.IPv6)
	}
	return netip.MustParseAddr(h.IPv4)
}

// vni of a network of a host.
func (s *scene) vni(h *lab.Host, network string) uint32 {
	s.Helper()
	id := s.docker(h, "network", "inspect", "-f", "{{.Id}}", network)
	for _, n := range s.networks(h) {
		if n.ID == id {
			return n.VNI
		}
	}
	s.Fatalf("%s: carrick networks does not know %s", h.Name, network)
	return 0
}

// entered is how many frames have come in to a host by the VXLAN device of a network.
func (s *scene) entered(h *lab.Host, network string) int {
	s.Helper()
	id := s.docker(h, "network", "inspect", "-f", "{{.Id}}", network)
	out, err := h.Run(s.ctx, "nsenter", "--net="+sharedPath, "ip", "-j", "-s", "link", "show", "ckx"+id[:12])
	s.must(err)
	var links []struct {
		Stats64 struct{ Rx struct{ Packets int } }
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		s.Fatalf("%s: %v: %s", h.Name, err, out)
	}
	return links[0].Stats64.Rx.Packets
}
