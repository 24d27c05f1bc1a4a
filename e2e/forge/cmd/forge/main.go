// Command forge does what an Order or a Watch of package forge says, given in JSON: `forge send ORDER`, `forge watch WATCH`.
// It prints what has come of it in JSON. A watch says "ready" first, on a line of its own.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/carricknet/carrick/e2e/forge"
)

func main() {
	result, err := run(os.Args[1:])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "forge:", err)
		os.Exit(1)
	}
}

func run(args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("usage: forge send ORDER | forge watch WATCH")
	}
	switch args[0] {
	case "send":
		var o forge.Order
		if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
			return nil, err
		}
		return o.Send()
	case "watch":
		var w forge.Watch
		if err := json.Unmarshal([]byte(args[1]), &w); err != nil {
			return nil, err
		}
		return w.Run(func() { fmt.Println("ready") })
	}
	return nil, fmt.Errorf("%q: only send and watch are known", args[0])
}
