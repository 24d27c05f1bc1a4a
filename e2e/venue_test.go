//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carricknet/carrick/lab"
)

const (
	plugin    = "carrick:latest"
	pluginDir = "../build/plugin"
	binary    = "/usr/local/bin/carrick"

	// tidyTimeout bounds what follows a scenario: removing what it made, and the comparison of dumps.
	tidyTimeout = 2 * time.Minute
)

// A venue is hosts of one engine, or of one each, on which one scenario after the other is played.
type venue struct {
	name    string // as lab.Chosen has it
	size    int    // hosts; 0: as many as most scenarios need, three
	scale   scale
	seed    uint64
	secret  string
	lab     *lab.Lab            // nil before the first scenario, and after one that spoiled it
	bare    map[string]lab.Dump // by host, before the plugin was installed
	empty   map[string]lab.Dump // by host, with the plugin in a cluster, without networks
	subnet  int                 // the last one given to a scenario
	took    []timing
	figures figures
}

// A timing is how long a scenario took, with what was done before and after it.
type timing struct {
	scenario           string
	opening, run, tidy time.Duration
}

// timetable lists what each scenario took, the longest first.
func (v *venue) timetable() string {
	var text strings.Builder
	var sum timing
	slices.SortStableFunc(v.took, func(a, b timing) int { return cmp.Compare(b.run+b.tidy, a.run+a.tidy) })
	line := func(what string, t timing) {
		fmt.Fprintf(&text, "\n%7.1f s, opening %5.1f, tidying %4.1f  %s", t.run.Seconds(), t.opening.Seconds(), t.tidy.Seconds(), what)
	}
	for _, t := range v.took {
		line(t.scenario, t)
		sum.opening, sum.run, sum.tidy = sum.opening+t.opening, sum.run+t.run, sum.tidy+t.tidy
	}
	line(fmt.Sprintf("all %d on engine %s, %s together", len(v.took), v.name, (sum.opening+sum.run+sum.tidy).Round(time.Second)), sum)
	return text.String()
}

// play runs one scenario on hosts that are as they should be, tidies up, and looks whether all is gone.
func (v *venue) play(t *testing.T, sc scenario) {
	ctx, cancel := context.WithTimeout(t.Context(), v.scale.timeout)
	defer cancel()
	took := timing{scenario: sc.name}
	if v.lab == nil {
		began := time.Now()
		v.open(ctx, t)
		took.opening = since(began)
	}
	probing, stopProbes := context.WithCancel(ctx)
	defer stopProbes()
	s := &scene{T: t, ctx: ctx, probing: probing, venue: v, hosts: v.lab.Hosts, logs: v.logSizes(), began: time.Now(),
		scale: v.scale, rand: random(v.seed, sc.name)}
	// Runs after the scenario even if that ended by FailNow; after one that failed the lab ends.
	defer func() {
		if s.Failed() {
			s.explain()
		}
		stopProbes()
		took.run = since(s.began)
		tidying := time.Now()
		if err := v.tidy(s); err != nil {
			v.figures.leaks.Add(1)
			explained := t.Failed()
			t.Errorf("after the scenario: %v", err)
			if !explained {
				s.explain()
			}
		}
		if t.Failed() { // who knows what it has left cut off, or switched off
			v.close(t)
		}
		took.tidy = since(tidying)
		v.took = append(v.took, took)
		v.figures.scenarios.Add(1)
		if t.Failed() {
			v.figures.failed.Add(1)
		}
	}()
	sc.run(s)
	t.Logf("%s on engine %s took %s", sc.name, v.name, since(s.began))
}

// open starts the hosts, makes docker_gwbridge on them, which stays once it is there, and installs the plugin.
func (v *venue) open(ctx context.Context, t *testing.T) {
	t.Helper()
	size := cmp.Or(v.size, 3)
	name := cmp.Or(os.Getenv("CARRICK_E2E_LAB"), "e2e") + "-" + strings.ReplaceAll(v.name, ".", "-")
	if err := lab.Remove("", name); err != nil { // of a run that was interrupted
		t.Fatal(err)
	}
	l, err := lab.Start(ctx, lab.Config{Name: name, Hosts: size, Engines: lab.EnginesOf(v.name), Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	v.lab = l
	defer func() {
		if t.Failed() {
			v.close(t)
		}
	}()
	s := &scene{T: t, ctx: ctx, venue: v, hosts: l.Hosts, logs: v.logSizes(), began: time.Now(), scale: v.scale}
	s.all(s.makeGatewayBridge)
	s.all(s.likeARealHost)
	v.bare = s.dumps()
	secret, err := exec.CommandContext(ctx, filepath.Join(pluginDir, "rootfs/carrick"), "secret").Output()
	if err != nil {
		t.Fatalf("carrick secret: %v", err)
	}
	v.secret = strings.TrimSpace(string(secret))
	s.install(v.settings(), s.hosts...)
	s.joined(s.hosts...)
	v.empty = s.dumps()
}

// settings is the line that is the same on every host.
func (v *venue) settings() map[string]string {
	var addrs []string
	for _, h := range v.lab.Hosts {
		addrs = append(addrs, h.IPv4)
	}
	return map[string]string{"SECRET": v.secret, "JOIN": strings.Join(addrs, ",")}
}

// tidy removes what a scenario left, and reports what it could not.
func (v *venue) tidy(s *scene) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), tidyTimeout)
	defer cancel()
	s.ctx = ctx
	if s.spoiled {
		v.close(s.T)
		return nil
	}
	if err := s.unique(); err != nil {
		return err
	}
	if err := onAll(s.hosts, s.sweep); err != nil {
		return err
	}
	return onAll(s.hosts, func(h *lab.Host) error {
		if err := s.asBefore(h, v.empty[h.Name]); err != nil {
			return fmt.Errorf("the scenario has left something: %w", err)
		}
		return nil
	})
}

// ofOurs are the lines of a difference that name something of the plugin's.
var ofOurs = regexp.MustCompile(`(?m)^[+-].*(carrick|\bck[a-z][0-9a-f]{6}|\b4789\b).*$`)

// asBefore waits until a host's kernel holds what it held when the dump was taken: it frees namespaces in its own time.
func (s *scene) asBefore(h *lab.Host, before lab.Dump) error {
	_, err := s.wait(patience, func() error {
		now, err := h.Dump(s.ctx)
		if err != nil {
			return err
		}
		if diff := s.difference(before, now); diff != "" {
			return fmt.Errorf("%s: not as before:\n%s", h.Name, diff)
		}
		return nil
	})
	return err
}

// difference is what of a host's kernel is not as it was, as far as it matters.
func (s *scene) difference(before, now lab.Dump) string {
	diff := comparable(before).Diff(comparable(now))
	if s.littered {
		diff = strings.Join(ofOurs.FindAllString(diff, -1), "\n")
	}
	return diff
}

// comparable leaves out what an engine changes of its own. It puts its firewall rules in another order when it starts again,
// and the jump to DOCKER-USER twice when it makes several networks at once (it looks, and then inserts). One that finds the
// plugin alive ends it and starts it anew, and the unmounting of the old one's propagated mount, a bind of a directory to
// itself, may come after the mounting for the new one. (The plugin has a mount of its own of that directory, and keeps its
// state.)
func comparable(d lab.Dump) lab.Dump {
	d = slices.Clone(d)
	for i, section := range d {
		_, kind, _ := strings.Cut(section.Title, ": ")
		switch kind {
		case "iptables", "ip6tables", "nft":
			d[i].Lines = slices.CompactFunc(slices.Sorted(slices.Values(section.Lines)), func(a, b string) bool {
				return a == b && strings.HasSuffix(a, "DOCKER-USER")
			})
		case "mount":
			d[i].Lines = slices.DeleteFunc(slices.Clone(section.Lines), func(line string) bool {
				at, _, _ := strings.Cut(line, " ")
				return strings.HasPrefix(at, "/var/lib/docker/plugins/") && strings.HasSuffix(at, "/propagated-mount")
			})
		}
	}
	return d
}

func (v *venue) close(t *testing.T) {
	if v.lab == nil {
		return
	}
	if err := v.lab.Close(); err != nil {
		t.Errorf("close the lab: %v", err)
	}
	v.lab = nil
}

func (v *venue) logSizes() map[string]int {
	sizes := map[string]int{}
	for _, h := range v.lab.Hosts {
		text, err := h.EngineLog()
		if err == nil {
			sizes[h.Name] = len(text)
		}
	}
	return sizes
}

// makeGatewayBridge makes what the engine makes itself for the first container without a gateway, with the same options,
// and runs a container in each of the engine's own ways, since the first one leaves something: so that a dump taken now
// can be compared with one taken when containers have come and gone.
func (s *scene) makeGatewayBridge(h *lab.Host) error {
	const opt = "com.docker.network.bridge."
	if _, err := h.Docker(s.ctx, "network", "create", "-d", "bridge", "-o", opt+"name=docker_gwbridge",
		"-o", opt+"enable_icc=false", "-o", opt+"enable_ip_masquerade=true", "docker_gwbridge"); err != nil {
		return err
	}
	return s.runInEachWay(h)
}

func (s *scene) runInEachWay(h *lab.Host) error {
	for _, network := range []string{"docker_gwbridge", "bridge", "host", "none"} {
		if _, err := h.Docker(s.ctx, "run", "--rm", "--network", network, lab.Image, "true"); err != nil {
			return err
		}
	}
	return nil
}

// likeARealHost checks what makes the lab's hosts worth testing on: both are what users have.
func (s *scene) likeARealHost(h *lab.Host) error {
	rules, err := h.Run(s.ctx, "iptables", "-S", "FORWARD")
	if err != nil {
		return err
	}
	if policy, _, _ := strings.Cut(rules, "\n"); policy != "-P FORWARD DROP" {
		return fmt.Errorf("%s: the policy of FORWARD is %q, on real hosts it is DROP", h.Name, policy)
	}
	filter, err := h.Run(s.ctx, "cat", "/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err == nil && filter != "1" {
		err = fmt.Errorf("%s: bridge-nf-call-iptables is %s, on real hosts it is 1", h.Name, filter)
	}
	return err
}

// install makes the plugin on hosts, with the command line beside it.
func (s *scene) install(settings map[string]string, hosts ...*lab.Host) {
	s.Helper()
	s.on(hosts, func(h *lab.Host) error {
		if err := h.Copy(s.ctx, filepath.Join(pluginDir, "rootfs/carrick"), binary); err != nil {
			return err
		}
		return h.InstallPlugin(s.ctx, plugin, pluginDir, settings)
	})
}

// uninstall removes the plugin and its state.
func (s *scene) uninstall(hosts ...*lab.Host) {
	s.Helper()
	s.on(hosts, func(h *lab.Host) error {
		if _, err := h.Docker(s.ctx, "plugin", "disable", "-f", plugin); err != nil && !strings.Contains(err.Error(), "already disabled") {
			return err
		}
		_, err := h.Docker(s.ctx, "plugin", "rm", "-f", plugin)
		return err
	})
}

// joined waits until the plugins of these hosts are members of one cluster with a quorum.
func (s *scene) joined(hosts ...*lab.Host) {
	s.Helper()
	s.until("hosts are members of one cluster with a quorum", func() error {
		return onAll(hosts, func(h *lab.Host) error {
			st, err := s.status(h)
			if err != nil {
				return err
			}
			return st.joined(len(hosts))
		})
	})
}

// status is what `carrick status --json` says.
func (s *scene) status(h *lab.Host) (status, error) {
	var st status
	err := s.carrick(h, &st, "status")
	return st, err
}

// carrick runs the command line on a host and reads its JSON. A status that is not well is told by the exit status as well,
// so that only an answer that cannot be read is an error.
func (s *scene) carrick(h *lab.Host, into any, args ...string) error {
	text, err := h.Run(s.ctx, append(append([]string{binary}, args...), "--json")...)
	if jsonErr := json.Unmarshal([]byte(text), into); jsonErr != nil {
		return errors.Join(fmt.Errorf("%s: carrick %s --json: %w: %q", h.Name, strings.Join(args, " "), jsonErr, text), err)
	}
	return nil
}

// dumps of all hosts.
func (s *scene) dumps() map[string]lab.Dump {
	s.Helper()
	got := make([]lab.Dump, len(s.hosts))
	s.all(func(h *lab.Host) (err error) {
		for i := range s.hosts {
			if s.hosts[i] == h {
				got[i], err = h.Settled(s.ctx)
			}
		}
		return err
	})
	dumps := map[string]lab.Dump{}
	for i, h := range s.hosts {
		dumps[h.Name] = got[i]
	}
	return dumps
}

// sweep removes all containers and all networks of ours from a host.
func (s *scene) sweep(h *lab.Host) error {
	_, err := h.Run(s.ctx, "sh", "-euc", `
		containers=$(docker ps -aq)
		[ -z "$containers" ] || docker rm -f $containers >/dev/null
		networks=$(docker network ls -q --filter driver="$0")
		[ -z "$networks" ] || docker network rm $networks >/dev/null`, plugin)
	if err != nil {
		return err
	}
	var networks []netStatus
	if err := s.carrick(h, &networks, "networks"); err != nil {
		return err
	}
	pools, err := s.pools(h)
	if err == nil && len(networks)+len(pools) > 0 {
		err = fmt.Errorf("%s: networks and pools that Docker does not have any more: %+v, %+v", h.Name, networks, pools)
	}
	return err
}
