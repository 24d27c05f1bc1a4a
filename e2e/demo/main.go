//go:build e2e

// Command demo shows what Carrick does: three Docker hosts in namespaces of this machine, one network across them, in IPv4
// and IPv6. `make demo` builds the plugin and runs it. Nothing is left behind, however it ends.
//
// It has the build tag e2e, as everything that needs the lab does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/carricknet/carrick/lab"
)

const (
	labName = "demo"
	engine  = "28.5"

	pluginDir = "build/plugin"
	plugin    = "carrick:latest"
	network   = "blue"
	subnet4   = "10.11.0.0/24"
	subnet6   = "fd11::/64"

	// patience is how long hosts may take to find each other; it takes some fifteen seconds, ten of which the first host
	// waits for another one to say that there is a cluster already.
	patience = 2 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything is removed")
		os.Exit(130) // as a shell reports SIGINT
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	began := time.Now()
	if _, err := os.Stat(pluginDir + "/config.json"); err != nil {
		return fmt.Errorf("the plugin is not built, `make plugin` builds it: %w", err)
	}
	if err := lab.Remove("", labName); err != nil { // of a demo that was killed
		return err
	}
	d := &demo{ctx: ctx, out: out}
	d.title("Three Docker hosts with engine %s, on one switch", engine)
	d.lab, err = lab.Start(ctx, lab.Config{Name: labName, Hosts: 3, Engines: []string{engine},
		Logf: func(format string, args ...any) { fmt.Fprintf(out, "  "+format+"\n", args...) }})
	if err != nil {
		return err
	}
	defer func() {
		d.title("Cleaning up")
		if closeErr := d.lab.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
			return
		}
		fmt.Fprintf(out, "  the hosts are gone, nothing is left behind; all in all %s\n", time.Since(began).Round(time.Second))
	}()
	for _, step := range []func() error{d.install, d.join, d.network, d.containers, d.ping, d.fetch, d.show, d.remove} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// demo is a walk in steps. Every command a user would type is printed before it runs.
type demo struct {
	ctx   context.Context
	out   io.Writer
	lab   *lab.Lab
	steps int
	made  []container
}

// A container of the demo, one on each host.
type container struct {
	host   *lab.Host
	name   string
	v4, v6 string
}

func (d *demo) title(format string, args ...any) {
	d.steps++
	fmt.Fprintf(d.out, "\n%d. %s\n\n", d.steps, fmt.Sprintf(format, args...))
}

// docker prints a docker command as one would type it on that host, and runs it.
func (d *demo) docker(h *lab.Host, args ...string) (string, error) {
	shown := make([]string, len(args))
	for i, a := range args {
		if strings.HasPrefix(a, "SECRET=") {
			a = "SECRET=…"
		}
		if strings.ContainsAny(a, " &;>") {
			a = "'" + a + "'"
		}
		shown[i] = a
	}
	fmt.Fprintf(d.out, "  %s # docker %s\n", h.Name, strings.Join(shown, " "))
	return h.Docker(d.ctx, args...)
}
