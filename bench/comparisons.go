package main

import (
	"fmt"
	"math"
)

// A row of the page: the ratio of two contestants round by round, or, without To, one contestant's value.
type row struct {
	title      string
	of, to     string // keys of values
	less, from string // what is taken from of and from to: what there is without either
	unit       string // of a value that is not a ratio
	goal       goal
}

// A goal is a bound of the median. The zero goal is none.
type goal struct {
	name  string // under which shortfalls.md speaks of it
	bound float64
	least bool // at least, not at most
}

func (g goal) String() string {
	switch {
	case g.name == "":
		return ""
	case g.least:
		return fmt.Sprintf("≥ %.2f", g.bound)
	}
	return fmt.Sprintf("≤ %.2f", g.bound)
}

func (g goal) met(v float64) bool {
	if g.least {
		return v >= g.bound
	}
	return v <= g.bound
}

// A table of the page.
type table struct {
	title, text string
	columns     string // what the values are, "Carrick's / Docker's"
	rows        []row
}

func least(name string, bound float64) goal { return goal{name, bound, true} }
func most(name string, bound float64) goal  { return goal{name, bound, false} }

// tables are the page, with swarm or with what stands for it.
func tables(overlay string) []table {
	theirs, added := dockerOverlay, func(cell, a, b, less, from, title string, g goal) row {
		return row{title: title, of: key(cell, a, "seconds"), to: key(cell, b, "seconds"),
			less: key(cell, less, "seconds"), from: key(cell, from, "seconds"), goal: g}
	}
	if overlay != "swarm" {
		theirs = rebuiltOverlay
	}
	ratio := func(title, cell, of, to, value string, g goal) row {
		return row{title: title, of: key(cell, of, value), to: key(cell, to, value), goal: g}
	}
	cross := func(of, to string, goals bool) []row {
		rows := []row{
			ratio("TCP, 1 stream, one processor", "tcp1 gro", of, to, "rate", least("tcp", 1.03)),
			ratio("TCP, 4 streams", "tcp4 gro", of, to, "rate", goal{}),
			ratio("TCP, 1 stream, one processor, segments travel whole", "tcp1 whole", of, to, "rate", goal{}),
			ratio("TCP, 4 streams, segments travel whole", "tcp4 whole", of, to, "rate", goal{}),
			ratio("request/response, p50 of the time", "rr gro", of, to, "p50", most("rr", 0.95)),
			ratio("request/response, p99 of the time", "rr gro", of, to, "p99", goal{}),
			ratio("connect/request/response, p50 of the time", "crr gro", of, to, "p50", goal{}),
			ratio("connect/request/response, p99 of the time", "crr gro", of, to, "p99", goal{}),
			ratio("connections a second", "crr gro", of, to, "rate", least("crr", 1.10)),
			ratio("UDP datagrams of 64 bytes a second", "udp gro", of, to, "rate", least("udp", 1.15)),
		}
		for i := range rows {
			if !goals {
				rows[i].goal = goal{}
			}
		}
		return rows
	}
	local := func(of, to string) []row {
		return []row{
			ratio("TCP, 1 stream, one processor", "tcp1 local", of, to, "rate", goal{}),
			ratio("request/response, p50 of the time", "rr local", of, to, "p50", goal{}),
			ratio("connections a second", "crr local", of, to, "rate", goal{}),
			ratio("UDP datagrams of 64 bytes a second", "udp local", of, to, "rate", goal{}),
		}
	}
	const internal = "-internal"
	return []table{
		{"Across hosts: Carrick's overlay beside Docker's", across, "Carrick / Docker", cross(carrickOverlay, theirs, true)},
		{"Across hosts: what an overlay costs", "Against the hosts themselves on the same wire.", "overlay / host", append(
			prefix("Carrick: ", cross(carrickOverlay, underlay, false)), prefix("Docker: ", cross(theirs, underlay, false))...)},
		{"Within a host: Carrick's bridge beside Docker's", "Two containers on one network of one host.", "Carrick / Docker", local(carrickBridge, dockerBridge)},
		{"What a network adds to `docker run`", starting, "Carrick / Docker", []row{
			added("run", carrickBridge+internal, dockerBridge+internal, noNetwork+atBridges, noNetwork+atBridges,
				"bridge, `--internal`, beside Docker's bridge, `--internal`", most("run-bridge", 1)),
			added("run", carrickOverlay+internal, dockerBridge+internal, noNetwork+atCarrick, noNetwork+atBridges,
				"overlay, `--internal`, beside Docker's bridge, `--internal`", most("run-overlay", 1)),
			added("run", carrickOverlay+internal, dockerOverlay+internal, noNetwork+atCarrick, noNetwork+atDocker,
				"overlay, `--internal`, beside Docker's overlay, `--internal`", goal{}),
			added("run", carrickBridge, dockerBridge, noNetwork+atBridges, noNetwork+atBridges, "bridge with docker_gwbridge, beside Docker's bridge", goal{}),
			added("run", carrickOverlay, dockerOverlay, noNetwork+atCarrick, noNetwork+atDocker, "overlay with docker_gwbridge, beside Docker's overlay with it", goal{}),
		}},
		{"A new container, seen from another host", first, "", []row{
			{title: "first reply after the container's process was started", of: key("first", carrickOverlay, "started"), unit: "s", goal: most("first", 0.1)},
			{title: "from `docker run` to the first reply, beside Docker's overlay: Carrick / Docker",
				of: key("first", carrickOverlay, "issued"), to: key("first", dockerOverlay, "issued")},
		}},
		{"An address", addressing, "", []row{
			{title: "an address of a bridge network, p50", of: key("address", carrickBridge, "p50"), unit: "ms"},
			{title: "an address of a bridge network, p99", of: key("address", carrickBridge, "p99"), unit: "ms", goal: most("address", 5)},
			{title: "an address of an overlay network, p50", of: key("address", carrickOverlay, "p50"), unit: "ms"},
			{title: "an address of an overlay network, p99", of: key("address", carrickOverlay, "p99"), unit: "ms", goal: most("address", 5)},
		}},
		{"Docker's layout without Docker", without, "rebuilt / Docker", cross(rebuiltOverlay, dockerOverlay, false)},
	}
}

func prefix(with string, rows []row) []row {
	for i := range rows {
		rows[i].title = with + rows[i].title
	}
	return rows
}

const (
	across = "One processor for both ends, so that what is compared is the work that a path takes, except for four streams, and for " +
		"datagrams, whose receiver has the other one. The wire is a veth; where nothing else is said it carries frames of its MTU, " +
		"1500 bytes, which the receiver joins (GRO), as most network cards do; *segments travel whole* stands for a card that does " +
		"it all itself."
	starting = "The time of `docker run --rm … true` less that with `--network none`, on the same host in the same round."
	first    = "The other host pings the address every 10 ms before its container is started. The address answers when the engine " +
		"has moved the interface into the sandbox and up, which is before it starts the process."
	addressing = "The engine's calls RequestAddress and ReleaseAddress together, on the plugin's socket. Both are on disk when they are " +
		"answered."
	without = "Docker's overlay as a few `ip` commands make it (`bench/layout.go`): what the comparison rests on where Swarm does not run."
)

// values of a row, round by round.
func (b *book) of(r row) []float64 {
	if r.to == "" {
		return b.values[r.of]
	}
	return ratios(b.values[r.of], b.values[r.less], b.values[r.to], b.values[r.from])
}

// known says whether the row was measured.
func (b *book) known(r row) bool { return !math.IsNaN(median(b.of(r))) }
