package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/carricknet/carrick/lab"
)

// A network to start containers on. Each has a resident container on each of its hosts.
type network struct {
	name   string
	hosts  []*lab.Host
	driver string
	subnet string // without its last octet
	flags  []string
}

// networks are all that are measured. The names of those of one contestant begin with its name.
func (s *site) networks(swarm bool) []network {
	carrick, docker, bridges := s.carrick[:], s.docker[:], []*lab.Host{s.bridges}
	internal := "--internal"
	all := []network{
		{carrickOverlay, carrick, plugin, "10.80.1.", nil},
		{carrickOverlay + "-internal", carrick, plugin, "10.80.2.", []string{internal}},
		{carrickBridge, bridges, plugin, "10.80.3.", []string{"-o", "mode=bridge"}},
		{carrickBridge + "-internal", bridges, plugin, "10.80.4.", []string{"-o", "mode=bridge", internal}},
		{dockerBridge, bridges, "bridge", "10.80.5.", nil},
		{dockerBridge + "-internal", bridges, "bridge", "10.80.6.", []string{internal}},
	}
	if swarm {
		all = append(all,
			network{dockerOverlay, docker, "overlay", "10.80.7.", []string{"--attachable"}},
			network{dockerOverlay + "-internal", docker, "overlay", "10.80.8.", []string{"--attachable", internal}})
	}
	return all
}

// makeNetworks creates the networks and their residents, and finds the paths between these.
func (s *site) makeNetworks(ctx context.Context, swarm bool) error {
	for _, n := range s.networks(swarm) {
		for _, h := range n.hosts {
			if n.driver == "overlay" && h != n.hosts[0] {
				continue // Swarm makes it where a container wants it
			}
			if err := n.create(ctx, h); err != nil {
				return err
			}
		}
		var at []place
		for i, h := range n.hosts {
			p, err := n.reside(ctx, h, resident+"-"+n.name, i)
			if err != nil {
				return err
			}
			at = append(at, p)
		}
		switch {
		case len(at) == 2:
			s.paths[n.name] = path{at[0], at[1]}
		default: // a second one on the same host
			p, err := n.reside(ctx, n.hosts[0], resident+"2-"+n.name, 1)
			if err != nil {
				return err
			}
			s.local[n.name] = path{at[0], p}
		}
	}
	for name, p := range s.paths {
		if err := s.reaches(ctx, name, p); err != nil {
			return err
		}
	}
	for name, p := range s.local {
		if err := s.reaches(ctx, name, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) reaches(ctx context.Context, name string, p path) error {
	return s.until(ctx, name+" works", func() error {
		_, err := p.from.run(ctx, "ping", "-n", "-c", "1", "-W", "1", p.to.addr.String())
		return err
	})
}

func (n network) create(ctx context.Context, h *lab.Host) error {
	args := []string{"network", "create", "-d", n.driver, "--subnet", n.subnet + "0/24"}
	if n.driver == plugin {
		args = append(args, "--ipam-driver", plugin)
	}
	_, err := h.Docker(ctx, append(append(args, n.flags...), n.name)...)
	return err
}

// reside starts a container that stays.
func (n network) reside(ctx context.Context, h *lab.Host, name string, i int) (place, error) {
	ip := n.subnet + strconv.Itoa(11+i)
	if _, err := h.Docker(ctx, "run", "-d", "--name", name, "--network", n.name, "--ip", ip, lab.Image); err != nil {
		return place{}, err
	}
	return n.inspect(ctx, h, name)
}

func (n network) inspect(ctx context.Context, h *lab.Host, name string) (place, error) {
	text, err := h.Docker(ctx, "container", "inspect", name)
	if err != nil {
		return place{}, err
	}
	var all []struct {
		State           struct{ Pid int }
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress netip.Addr }
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
		return place{}, fmt.Errorf("%s: docker inspect %s: %w: %s", h.Name, name, err, text)
	}
	enter := []string{"nsenter", "--target", strconv.Itoa(all[0].State.Pid), "--net", "--"}
	return place{h, enter, all[0].NetworkSettings.Networks[n.name].IPAddress}, nil
}

// find returns the network of that name.
func find(all []network, name string) (network, bool) {
	i := slices.IndexFunc(all, func(n network) bool { return n.name == name })
	if i < 0 {
		return network{}, false
	}
	return all[i], true
}
