// Command plugin is the least that an engine takes for a network driver.
package main

import (
	"log"
	"net"
	"net/http"
)

func main() {
	l, err := net.Listen("unix", "/run/docker/plugins/net.sock")
	if err != nil {
		log.Fatal(err)
	}
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(text)) }
	}
	http.Handle("/Plugin.Activate", answer(`{"Implements":["NetworkDriver"]}`))
	http.Handle("/NetworkDriver.GetCapabilities", answer(`{"Scope":"local"}`))
	log.Fatal(http.Serve(l, nil))
}
