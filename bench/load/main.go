// Command load makes traffic between two network namespaces and measures it, with blocking system calls of one thread, so
// that what is measured is the path and not the program:
//
//	load rr|crr|udp serve ADDRESS:PORT         prints "ready", serves until it is killed (udp: until the flood has ended)
//	load rr|crr|udp ADDRESS:PORT DURATION      prints a Result as JSON (udp: the server does, of what arrived)
//	load address SOCKET POOL DURATION          prints a Result as JSON
//
// rr is one byte to and fro on one TCP connection, crr a connection for each byte, udp a flood of 64-byte datagrams;
// address asks the plugin behind a unix socket for an address of a pool, and gives it back.
package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
)

// A Result is what a measurement prints.
type Result struct {
	Rate float64 // transactions or datagrams a second
	P50  float64 // of a transaction, microseconds
	P99  float64
}

// A kind of traffic. Its functions take the time to run, or the socket they serve on.
type kind struct {
	listen func(netip.AddrPort) (int, error)
	serve  func(socket int) (*Result, error) // nil: nothing to tell
	run    func(netip.AddrPort, time.Duration) (*Result, error)
}

var kinds = map[string]kind{
	"rr":  {listenTCP, serveRR, runRR},
	"crr": {listenTCP, serveCRR, runCRR},
	"udp": {listenUDP, serveUDP, runUDP},
}

func main() {
	runtime.LockOSThread()
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 4 && args[0] == "address" {
		d, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		result, err := runAddress(args[1], args[2], d)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	if len(args) != 3 {
		return fmt.Errorf("want three arguments, or four for address; have %q", args)
	}
	k, ok := kinds[args[0]]
	if !ok {
		return fmt.Errorf("kind %q: want rr, crr, udp or address", args[0])
	}
	var result *Result
	if args[1] == "serve" {
		addr, err := netip.ParseAddrPort(args[2])
		if err != nil {
			return err
		}
		socket, err := k.listen(addr)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		if result, err = k.serve(socket); err != nil {
			return err
		}
	} else {
		addr, err := netip.ParseAddrPort(args[1])
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		if result, err = k.run(addr, d); err != nil {
			return err
		}
	}
	if result == nil {
		return nil
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
