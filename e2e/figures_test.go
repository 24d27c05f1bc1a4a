//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/carricknet/carrick/lab"
)

// figures are what was done on a venue, and what came of it.
type figures struct {
	scenarios, failed        atomic.Int64
	pluginKills, engineKills atomic.Int64
	containers, addresses    atomic.Int64 // that containers were started with
	packets, lost            atomic.Int64 // of the probes that may lose none
	leaks                    atomic.Int64 // scenarios after which something was left
}

func (f *figures) String() string {
	return fmt.Sprintf("%d scenarios, %d failed; plugin killed %d times, engines %d times; %d containers with %d addresses; "+
		"%d packets, %d lost; something left %d times", f.scenarios.Load(), f.failed.Load(), f.pluginKills.Load(), f.engineKills.Load(),
		f.containers.Load(), f.addresses.Load(), f.packets.Load(), f.lost.Load(), f.leaks.Load())
}

// killEngine ends dockerd with SIGKILL.
func (s *scene) killEngine(h *lab.Host) error {
	s.venue.figures.engineKills.Add(1)
	return h.KillEngine(s.ctx)
}

// unique is an error if the plugins of two hosts have given the same address of a network that they share.
func (s *scene) unique() error {
	owners := map[string]string{}
	var errs []error
	for _, h := range s.hosts {
		var nets []netStatus
		if err := s.carrick(h, &nets, "networks"); err != nil {
			return err
		}
		shared := map[string]string{}
		for _, n := range nets {
			shared[n.ID] = n.Shared
		}
		here, err := s.local(h)
		if err != nil {
			return err
		}
		for _, e := range here {
			for _, a := range e.Addrs {
				where := fmt.Sprintf("%s endpoint %s", h.Name, e.ID)
				key := shared[e.Network] + " " + a
				if strings.HasPrefix(key, " ") {
					continue // a network within a host
				}
				if other := owners[key]; other != "" {
					errs = append(errs, fmt.Errorf("%s and %s both have %s", other, where, a))
				}
				owners[key] = where
			}
		}
	}
	return errors.Join(errs...)
}
