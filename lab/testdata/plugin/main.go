// Command plugin is the least that an engine takes for a network driver.
package main

import (
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first process of a PID namespace dies of no signal that it does not handle.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	l, err := net.Listen("unix", "/run/docker/plugins/net.sock")
	if err != nil {
		log.Fatal(err)
	}
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }
	}
	http.Handle("/Plugin.Activate", answer(`{"Implements":["NetworkDriver"]}`))
	http.Handle("/NetworkDriver.GetCapabilities", answer(`{"Scope":"local"}`))
	go func() { log.Fatal(http.Serve(l, nil)) }()
	<-stop
}
