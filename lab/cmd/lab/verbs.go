package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/carricknet/carrick/lab"
)

// errDiffer makes diff end as diff(1) does.
var errDiffer = errors.New("the dumps differ")

func (c *command) up() error {
	cfg := lab.Config{Logf: logf}
	f := c.flags("lab up")
	f.Func("engine", "family of the engine (default the newest), or several for the hosts to take in turn", func(s string) error {
		cfg.Engines = strings.Split(s, ",")
		return nil
	})
	f.IntVar(&cfg.Hosts, "hosts", 0, "how many hosts (default 3, or as many as engines)")
	f.Func("engine-flag", "flag for every dockerd; may be repeated", func(s string) error {
		cfg.EngineFlags = append(cfg.EngineFlags, s)
		return nil
	})
	if err := f.Parse(c.args); err != nil {
		return err
	}
	cfg.Name, cfg.Dir = c.name, c.dir
	_, err := lab.Start(c.ctx, cfg)
	if errors.Is(err, lab.ErrExists) {
		return fmt.Errorf("%w: `lab down` removes it", err)
	}
	return err
}

func (c *command) down() error {
	if err := c.parse(0, 0); err != nil {
		return err
	}
	return lab.Remove(c.dir, c.name)
}

func (c *command) clean() error {
	if err := c.parse(0, 0); err != nil {
		return err
	}
	return lab.Clean(c.dir)
}

func (c *command) status() error {
	if err := c.parse(0, 0); err != nil {
		return err
	}
	l, err := lab.Open(c.dir, c.name, logf)
	if errors.Is(err, lab.ErrNotExist) {
		names, listErr := lab.List(c.dir)
		if listErr != nil {
			return listErr
		}
		if len(names) > 0 {
			err = fmt.Errorf("%w; there are %s", err, strings.Join(names, ", "))
		}
		return err
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "lab %s\n", l.Name)
	for _, h := range l.Hosts {
		fmt.Fprintf(c.out, "%-7s %-14s %-13s %s\n", h.Name, h.IPv4, h.IPv6, engineState(c.ctx, h))
	}
	return nil
}

func engineState(ctx context.Context, h *lab.Host) string {
	if !h.Running() {
		return "off"
	}
	version, err := h.EngineVersion(ctx)
	if err != nil {
		return "engine does not answer"
	}
	return "engine " + version
}

func (c *command) exec() error {
	if len(c.args) < 2 {
		return errors.New("exec: want a host and a command")
	}
	_, hosts, err := c.hosts(c.args[:1])
	if err != nil {
		return err
	}
	cmd := hosts[0].Command(c.ctx, c.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// A terminal sends its signals to, and lets read, only the process group that has it.
	cmd.SysProcAttr = nil
	cmd.Cancel = func() error { return cmd.Process.Kill() }
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitStatus(exit.ExitCode())
	}
	return err
}

func (c *command) cut() error {
	return c.wire((*lab.Lab).Cut, (*lab.Lab).CutPair)
}

func (c *command) heal() error {
	return c.wire((*lab.Lab).Heal, (*lab.Lab).HealPair)
}

func (c *command) wire(one func(*lab.Lab, context.Context, *lab.Host) error,
	two func(*lab.Lab, context.Context, *lab.Host, *lab.Host) error) error {
	if err := c.parse(1, 2); err != nil {
		return err
	}
	l, hosts, err := c.hosts(c.args)
	if err != nil {
		return err
	}
	if len(hosts) == 2 {
		return two(l, c.ctx, hosts[0], hosts[1])
	}
	return one(l, c.ctx, hosts[0])
}

func (c *command) killPlugin() error {
	if err := c.parse(2, 2); err != nil {
		return err
	}
	_, hosts, err := c.hosts(c.args[:1])
	if err != nil {
		return err
	}
	return hosts[0].KillPlugin(c.ctx, c.args[1])
}

func (c *command) log() error {
	if err := c.parse(1, 1); err != nil {
		return err
	}
	_, hosts, err := c.hosts(c.args)
	if err != nil {
		return err
	}
	text, err := hosts[0].EngineLog()
	fmt.Fprint(c.out, text)
	return err
}

func (c *command) dump() error {
	if err := c.parse(1, 1); err != nil {
		return err
	}
	_, hosts, err := c.hosts(c.args)
	if err != nil {
		return err
	}
	d, err := hosts[0].Dump(c.ctx)
	fmt.Fprint(c.out, d)
	return err
}

func (c *command) diff() error {
	if err := c.parse(2, 2); err != nil {
		return err
	}
	var dumps []lab.Dump
	for _, path := range c.args {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d, err := lab.CheckDump(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		dumps = append(dumps, d)
	}
	diff := dumps[0].Diff(dumps[1])
	fmt.Fprint(c.out, diff)
	if diff != "" {
		return errDiffer
	}
	return nil
}
