//go:build e2e

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carricknet/carrick/lab"
)

// install puts the managed plugin on every host, with the same line.
func (d *demo) install() error {
	d.title("The same plugin with the same settings on each of them")
	hosts := d.lab.Hosts
	const binary, build = "/usr/local/bin/carrick", "/root/carrick"
	var join []string
	for _, h := range hosts {
		join = append(join, h.IPv4)
		if err := h.Copy(d.ctx, pluginDir, build); err != nil {
			return err
		}
		if err := h.Copy(d.ctx, pluginDir+"/rootfs/carrick", binary); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "  %s # carrick secret\n", hosts[0].Name)
	secret, err := hosts[0].Run(d.ctx, binary, "secret")
	if err != nil {
		return err
	}
	for _, h := range hosts {
		for _, args := range [][]string{
			{"plugin", "create", plugin, build},
			{"plugin", "set", plugin, "SECRET=" + secret, "JOIN=" + strings.Join(join, ",")},
			{"plugin", "enable", plugin},
		} {
			if _, err := d.docker(h, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// join waits for the hosts to be members of one cluster.
func (d *demo) join() error {
	d.title("They find each other; there is no store to run beside them")
	began := time.Now()
	waiting := "nothing was said yet"
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if waiting = d.notJoined(); waiting == "" {
			fmt.Fprintf(d.out, "  all three are members after %s\n\n", time.Since(began).Round(100*time.Millisecond))
			return d.carrick(d.lab.Hosts[0], "status")
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("the hosts do not find each other: %s", waiting)
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
	}
}

// notJoined says what is missing, or nothing.
func (d *demo) notJoined() string {
	for _, h := range d.lab.Hosts {
		text, err := h.Run(d.ctx, "carrick", "status", "--json")
		if err != nil {
			return err.Error()
		}
		var st struct {
			Cluster struct {
				State  string
				Quorum bool
				Nodes  []struct{ Alive bool }
			}
		}
		if err := json.Unmarshal([]byte(text), &st); err != nil {
			return fmt.Sprintf("%s: %v: %s", h.Name, err, text)
		}
		alive := 0
		for _, n := range st.Cluster.Nodes {
			if n.Alive {
				alive++
			}
		}
		if st.Cluster.State != "member" || !st.Cluster.Quorum || alive != len(d.lab.Hosts) {
			return fmt.Sprintf("%s: %s", h.Name, text)
		}
	}
	return ""
}

// carrick prints what the command line says.
func (d *demo) carrick(h *lab.Host, verb string) error {
	fmt.Fprintf(d.out, "  %s # carrick %s\n", h.Name, verb)
	text, err := h.Run(d.ctx, "carrick", verb)
	for line := range strings.Lines(text) {
		fmt.Fprint(d.out, "    ", line)
	}
	fmt.Fprintln(d.out)
	return err
}

func (d *demo) network() error {
	d.title("One network, IPv4 and IPv6: hosts that name the same subnets share it")
	for _, h := range d.lab.Hosts {
		if _, err := d.docker(h, "network", "create", "-d", plugin, "--ipam-driver", plugin,
			"--ipv6", "--subnet", subnet4, "--subnet", subnet6, network); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) containers() error {
	d.title("A container on each host")
	for i, h := range d.lab.Hosts {
		c := container{host: h, name: fmt.Sprint("web", i+1)}
		if _, err := d.docker(h, "run", "-d", "--network", network, "--name", c.name, "--hostname", c.name, lab.Image,
			"sh", "-c", "hostname >/var/www/index.html; exec httpd -f -h /var/www"); err != nil {
			return err
		}
		// Not printed: it is how the demo finds out, not what a user does.
		text, err := h.Docker(d.ctx, "inspect", "-f",
			"{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", c.name)
		if err != nil {
			return err
		}
		addrs := strings.Fields(text)
		if len(addrs) != 2 {
			return fmt.Errorf("%s: has %q, want an IPv4 and an IPv6 address", c.name, text)
		}
		c.v4, c.v6 = addrs[0], addrs[1]
		d.made = append(d.made, c)
	}
	fmt.Fprintln(d.out)
	for _, c := range d.made {
		fmt.Fprintf(d.out, "  %s on %s has %s and %s\n", c.name, c.host.Name, c.v4, c.v6)
	}
	return nil
}

// ping goes from each container to each other one in both families.
func (d *demo) ping() error {
	d.title("Each reaches each other, in both families")
	var failed []error
	for _, from := range d.made {
		for _, to := range d.made {
			if from.name == to.name {
				continue
			}
			for _, addr := range []string{to.v4, to.v6} {
				out, err := d.docker(from.host, "exec", from.name, "ping", "-n", "-c", "1", "-W", "5", addr)
				if err != nil {
					failed = append(failed, err)
				}
				for line := range strings.Lines(out) {
					if strings.Contains(line, "bytes from") {
						fmt.Fprint(d.out, "    ", line)
					}
				}
			}
		}
	}
	return errors.Join(failed...)
}

func (d *demo) fetch() error {
	d.title("HTTP across hosts")
	for i, from := range d.made {
		to := d.made[(i+1)%len(d.made)]
		for _, url := range []string{"http://" + to.v4 + "/", "http://[" + to.v6 + "]/"} {
			got, err := d.docker(from.host, "exec", from.name, "wget", "-q", "-T", "5", "-O", "-", url)
			if err != nil {
				return err
			}
			fmt.Fprintln(d.out, "    "+got)
			if got != to.name {
				return fmt.Errorf("%s: answered %q, want %q", url, got, to.name)
			}
		}
	}
	return nil
}

func (d *demo) show() error {
	d.title("What Carrick knows")
	for _, verb := range []string{"networks", "endpoints"} {
		if err := d.carrick(d.lab.Hosts[0], verb); err != nil {
			return err
		}
	}
	return nil
}

// remove takes away what was made, as a user would.
func (d *demo) remove() error {
	d.title("Containers, network and plugin are removed")
	for _, c := range d.made {
		for _, args := range [][]string{{"rm", "-f", c.name}, {"network", "rm", network}, {"plugin", "disable", plugin}, {"plugin", "rm", plugin}} {
			if _, err := d.docker(c.host, args...); err != nil {
				return err
			}
		}
	}
	return nil
}
