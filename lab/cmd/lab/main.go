// Command lab makes several real Docker hosts on this machine, and does to them what happens to hosts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/carricknet/carrick/lab"
)

const usage = `usage: lab [--name NAME] [--dir DIR] VERB

  up [--engine %s[,…]] [--hosts N] [--engine-flag FLAG]…
                               start a lab; root file systems are built the first time
  down                         remove it, whoever started it
  status                       hosts, addresses, engines; without a lab: the labs there are
  exec HOST COMMAND…           run a command on a host
  cut HOST [HOST]              take a host off the switch, or two off each other
  heal HOST [HOST]             undo it
  power-off HOST, power-on HOST, reboot HOST
  readdress HOST IPV4 IPV6     other addresses, as DHCP may bring them; a host that is off boots with them
  link-down HOST, link-up HOST switch eth0 off and on
  mtu HOST BYTES               MTU of eth0, until the next boot
  reinstall HOST               put an empty disk into it
  clone HOST OF                make its disk a copy of another's; both have to be off
  kill-engine HOST             SIGKILL to dockerd; containers live on
  stop-engine HOST, start-engine HOST, restart-engine HOST
  kill-plugin HOST NAME        SIGKILL to a managed plugin
  log HOST                     what dockerd wrote
  dump HOST                    everything the kernel holds for a host
  diff FILE FILE               compare two dumps
  clean                        remove the root file systems
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	var exit exitStatus
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.As(err, &exit):
		os.Exit(int(exit))
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// exitStatus is how a command on a host ended, which is then how we end.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// command is a verb's surroundings, and what its own arguments are.
type command struct {
	ctx  context.Context
	dir  string
	name string
	args []string
	out  io.Writer
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func run(ctx context.Context, args []string, out io.Writer) error {
	c := command{ctx: ctx, out: out}
	flags := c.flags("lab")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return flag.ErrHelp
	}
	verb, rest := flags.Arg(0), flags.Args()[1:]
	c.args = rest
	verbs := map[string]func() error{
		"up": c.up, "down": c.down, "status": c.status, "clean": c.clean, "exec": c.exec, "diff": c.diff,
		"cut": c.cut, "heal": c.heal, "dump": c.dump, "log": c.log,
		"power-off":      c.onHost((*lab.Host).PowerOff),
		"power-on":       c.onHost((*lab.Host).PowerOn),
		"reboot":         c.onHost((*lab.Host).Reboot),
		"kill-engine":    c.onHost((*lab.Host).KillEngine),
		"stop-engine":    c.onHost((*lab.Host).StopEngine),
		"start-engine":   c.onHost(func(h *lab.Host, ctx context.Context) error { return h.StartEngine(ctx) }),
		"restart-engine": c.onHost(func(h *lab.Host, ctx context.Context) error { return h.RestartEngine(ctx) }),
		"kill-plugin":    c.killPlugin,
		"link-down":      c.onHost((*lab.Host).LinkDown),
		"link-up":        c.onHost((*lab.Host).LinkUp),
		"reinstall":      c.onHost((*lab.Host).Reinstall),
		"readdress":      c.readdress, "mtu": c.mtu, "clone": c.clone,
	}
	do, ok := verbs[verb]
	if !ok {
		flags.Usage()
		return fmt.Errorf("unknown verb %q", verb)
	}
	return do()
}

// flags makes a set with the flags that every verb takes, before or after it.
func (c *command) flags(of string) *flag.FlagSet {
	f := flag.NewFlagSet(of, flag.ContinueOnError)
	f.StringVar(&c.name, "name", c.name, "name of the lab (default carrick)")
	f.StringVar(&c.dir, "dir", c.dir, "where labs are kept (default $CARRICK_LAB_DIR or "+lab.DefaultDir+")")
	f.Usage = func() { fmt.Fprintf(f.Output(), usage, strings.Join(lab.Engines(), "|")) }
	return f
}

// parse takes the common flags off the verb's arguments and checks how many are left.
func (c *command) parse(least, most int) error {
	f := c.flags("lab")
	if err := f.Parse(c.args); err != nil {
		return err
	}
	if c.args = f.Args(); len(c.args) < least || len(c.args) > most {
		f.Usage()
		return flag.ErrHelp
	}
	return nil
}

// hosts opens the lab and finds the hosts that the arguments name.
func (c *command) hosts(names []string) (*lab.Lab, []*lab.Host, error) {
	l, err := lab.Open(c.dir, c.name, logf)
	if err != nil {
		return nil, nil, err
	}
	var hosts []*lab.Host
	for _, name := range names {
		h := l.Host(name)
		if h == nil {
			return nil, nil, fmt.Errorf("lab %s has no host %q", l.Name, name)
		}
		hosts = append(hosts, h)
	}
	return l, hosts, nil
}

// onHost is a verb that takes one host.
func (c *command) onHost(do func(*lab.Host, context.Context) error) func() error {
	return func() error {
		if err := c.parse(1, 1); err != nil {
			return err
		}
		_, hosts, err := c.hosts(c.args)
		if err != nil {
			return err
		}
		return do(hosts[0], c.ctx)
	}
}
