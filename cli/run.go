package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the plugin says no, does not answer, or has an alarm
	exitUsage  = 2 // the command was not understood; nothing was done
)

// Env is what a command works with.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string
	SocketDir      string // where Docker keeps the sockets of plugins; "" is /run/docker/plugins
}

// verb is one command.
type verb struct {
	name  string
	param string // the name of its one parameter, in brackets if it may be left out; "": none
	flags []string
	doc   string
	run   func(ctx context.Context, s *session) error
}

// The flags that there are. All but --plugin are given without a value.
const (
	flagJSON   = "--json"
	flagPlugin = "--plugin"
	flagYes    = "--yes"
	flagHelp   = "--help"
)

// verbs returns the table of commands, in the order in which help shows them.
func verbs() []verb {
	reading, changing := []string{flagJSON, flagPlugin}, []string{flagYes, flagPlugin}
	return []verb{
		{"status", "", reading, "how the plugin and its cluster are; exit code 1 if not well", showStatus},
		{"peers", "", reading, "the nodes of the cluster", showNodes},
		{"networks", "", reading, "the networks of this host", showNetworks},
		{"endpoints", "", reading, "the endpoints of these networks, here and on other nodes", showEndpoints},
		{"ipam pools", "[POOL]", reading, "the subnets, and how many of their addresses are used, free and stranded", showPools},
		{"ipam blocks", "[POOL]", reading, "who gives which of the cluster's addresses", showBlocks},
		{"ipam leases", "[POOL]", reading, "the addresses that are not free on this host, and why", showLeases},
		{"ipam who", "ADDRESS", reading, "who has an address", showWho},
		{"metrics", "", reading, "what other programs watch, in the text format of Prometheus", showMetrics},
		{"leave", "", changing, "take this node out of the cluster, for ever", leave},
		{"join", "", changing, "join again as a new node, after leave", rejoin},
		{"forget", "NODE", changing, "take a node out that is gone for good, and free its addresses", forget},
		{"recover", "", changing, "go on without the voters that are lost for good; this node alone votes then", recoverCluster},
		{"network rm", "NETWORK", changing, "remove a network of this host that Docker has lost", removeNetwork},
		{"secret", "", nil, "make a SECRET for a new cluster", makeSecret},
		{"version", "", nil, "the version of this program", showVersion},
		{"help", "", nil, "this page", showHelp},
	}
}

// session is one command with what it was given.
type session struct {
	Env
	param  string
	json   bool
	yes    bool
	plugin string
}

// usageError is a command that was not understood.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// errUnwell is the end of a command that has shown all there is to say.
var errUnwell = errors.New("not well")

// Run does the command of args, without the program's name, and returns the exit code.
func Run(ctx context.Context, args []string, env Env) int {
	if env.SocketDir == "" {
		env.SocketDir = defaultSocketDir
	}
	err := run(ctx, args, env)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUnwell):
		return exitFailed
	case errors.As(err, &usage):
		complain(env, err)
		return exitUsage
	default:
		complain(env, err)
		return exitFailed
	}
}

// complain has nobody to tell when stderr does not take it.
func complain(env Env, err error) { _, _ = fmt.Fprintln(env.Stderr, "carrick:", clean(err.Error())) }

func run(ctx context.Context, args []string, env Env) error {
	if len(args) == 0 {
		return usageError{"a command is missing; there are " + strings.Join(names(), ", ")}
	}
	name := args[0]
	if name == flagHelp || name == "-h" {
		name = "help"
	}
	all := verbs()
	rest := args[1:]
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == name })
	if i < 0 && len(rest) > 0 {
		i = slices.IndexFunc(all, func(v verb) bool { return v.name == name+" "+rest[0] })
		rest = rest[1:]
	}
	if i < 0 {
		return unknown(args)
	}
	v := all[i]
	s := &session{Env: env}
	help, err := s.parse(v, rest)
	if err != nil {
		return err
	}
	if help {
		return s.print(usage(v) + "\n" + v.doc + "\n")
	}
	return v.run(ctx, s)
}

// unknown tells which commands there are, or, where the first word is right, which second ones.
func unknown(args []string) error {
	name, known := args[0], names()
	below := slices.DeleteFunc(slices.Clone(known), func(v string) bool { return !strings.HasPrefix(v, name+" ") })
	if len(below) > 0 {
		name, known = strings.Join(args[:min(len(args), 2)], " "), below
	}
	return usageError{fmt.Sprintf("%q is no command; there are %s", name, strings.Join(known, ", "))}
}

func names() []string {
	var all []string
	for _, v := range verbs() {
		all = append(all, v.name)
	}
	return all
}

// parse takes flags and parameter in any order.
func (s *session) parse(v verb, args []string) (help bool, err error) {
	var params []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !strings.HasPrefix(arg, "-") {
			params = append(params, arg)
			continue
		}
		name, value, given := strings.Cut(arg, "=")
		if name == flagHelp || name == "-h" {
			return true, nil
		}
		switch {
		case !slices.Contains(v.flags, name):
			return false, usageError{fmt.Sprintf("%s: %q is no flag of it; %s", v.name, arg, allowed(v))}
		case name == flagPlugin && !given && len(args) > 0:
			value, args = args[0], args[1:]
		case name != flagPlugin && given:
			return false, usageError{fmt.Sprintf("%s: %s takes no value", v.name, name)}
		}
		switch name {
		case flagJSON:
			s.json = true
		case flagYes:
			s.yes = true
		case flagPlugin:
			if s.plugin = value; value == "" {
				return false, usageError{v.name + ": " + flagPlugin + " needs the ID of a plugin, as `docker plugin ls` shows it"}
			}
		}
	}
	switch {
	case strings.HasPrefix(v.param, "[") && len(params) > 1:
		return false, usageError{fmt.Sprintf("%s takes one %s at most, and was given %d", v.name, strings.Trim(v.param, "[]"), len(params))}
	case strings.HasPrefix(v.param, "[") && len(params) == 0:
	case v.param == "" && len(params) > 0:
		return false, usageError{fmt.Sprintf("%s takes no parameter, and was given %q", v.name, params[0])}
	case v.param != "" && (len(params) != 1 || params[0] == ""):
		return false, usageError{fmt.Sprintf("%s needs one %s, and was given %d", v.name, strings.Trim(v.param, "[]"), len(params))}
	case v.param != "":
		s.param = params[0]
	}
	return false, nil
}

func allowed(v verb) string {
	if len(v.flags) == 0 {
		return "it has none"
	}
	return "allowed are " + strings.Join(v.flags, ", ")
}

// usage is how a command is called.
func usage(v verb) string {
	text := "carrick " + v.name
	if v.param != "" {
		text += " " + v.param
	}
	for _, f := range v.flags {
		if f == flagPlugin {
			f += " ID"
		}
		text += " [" + f + "]"
	}
	return text
}

func showHelp(_ context.Context, s *session) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, v := range verbs() {
		if _, err := fmt.Fprintf(w, "  %s\t%s\n", usage(v), v.doc); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return s.print("Carrick joins Docker hosts. On a host with the plugin:\n\n" + b.String() + `
--json    as JSON, for programs
--plugin  which plugin, if several run here: its ID, or the beginning of it, as ` + "`docker plugin ls`" + ` shows it
--yes     do it without asking
POOL      a subnet, or the name or the identifier of its network; without it, all

Exit codes: 0 done, 1 not done or not well, 2 not understood.
`)
}

func (s *session) print(text string) error {
	_, err := io.WriteString(s.Stdout, text)
	return err
}
