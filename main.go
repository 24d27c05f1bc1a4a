// Carrick joins Docker hosts: one managed plugin that is a network driver and an IPAM driver, and the command that shows
// an operator what it does.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/carricknet/carrick/bridge"
	"github.com/carricknet/carrick/cli"
	"github.com/carricknet/carrick/driver"
	"github.com/carricknet/carrick/overlay"
	"github.com/carricknet/carrick/plugin"
)

// Where things are in the plugin's own root file system; config.json says what they are on the host.
const (
	socketPath = "/run/docker/plugins/carrick.sock"
	stateDir   = "/var/lib/carrick"   // the propagated mount: survives disable, enable and upgrade
	hostDir    = "/host/run/docker"   // the host's /run/docker
	pinDir     = hostDir + "/carrick" // survives the process
	driverName = "carrick:latest"     // for sentences that say what to type
)

// modes is the table of `-o mode=`.
func modes(find func() (overlay.Underlay, error)) map[string]driver.Mode {
	return map[string]driver.Mode{
		"bridge":  {Open: bridge.Open},
		"none":    {Open: driver.None, NoGateway: true},
		"overlay": {Open: overlay.Open(find), Shared: true},
	}
}

// defaultMode is the mode of a network that names none.
func defaultMode(c Config) string {
	if c.Secret == "" {
		return "bridge"
	}
	return "overlay"
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	if len(args) == 1 && args[0] == "plugin" {
		return serve(ctx)
	}
	return cli.Run(ctx, args, cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version})
}

// serve is the plugin's process. It ends only when it is told to: a plugin that exits is disabled by the engine.
func serve(ctx context.Context) int {
	log := logrus.New()
	log.SetOutput(os.Stdout) // the engine marks what comes on stderr as errors
	listener, err := plugin.Listen(socketPath)
	if err != nil {
		log.WithError(err).Error("no socket, no plugin")
		return 1
	}
	server := plugin.New(plugin.Config{
		Logger: log, Version: version, LocalSpace: localSpace, GlobalSpace: globalSpace, RequestReplay: true, RequestMAC: true,
	})
	working, end := context.WithCancel(context.WithoutCancel(ctx)) // calls at work are brought to their end first
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		work(working, server, log)
	}()
	err = server.Serve(ctx, listener)
	end()
	<-worked
	if err != nil {
		log.WithError(err).Error("stopped")
		return 1
	}
	log.Info("stopped")
	return 0
}
