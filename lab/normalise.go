package lab

import (
	"regexp"
	"slices"
	"strings"
)

// normalisers is by the word that dump.sh gives a section. Each gets the lines of one command.
var normalisers = map[string]func([]string) []string{
	"link":             normaliseLinks,
	"addr":             sorted(normaliseAddr),
	"route ipv4":       sorted(normaliseRoute),
	"route ipv6":       sorted(normaliseRoute),
	"neigh":            sorted(normaliseNeigh),
	"neigh proxy":      sorted(strings.TrimSpace),
	"fdb":              sorted(normaliseFDB),
	"mdb":              sorted(normaliseMDB),
	"qdisc":            sorted(normaliseQdisc),
	"iptables":         normaliseIptables,
	"ip6tables":        normaliseIptables,
	"iptables legacy":  normaliseIptables,
	"ip6tables legacy": normaliseIptables,
	"nft":              normaliseNft,
	"listen":           sorted(normaliseListen),
	"mount":            sorted(normaliseMount),
}

var (
	indexPrefix = regexp.MustCompile(`^\d+: `)
	peerIndex   = regexp.MustCompile(`@if\d+\b`)
	lifetime    = regexp.MustCompile(`_lft \d+sec`)
	expires     = regexp.MustCompile(` expires [^\s,]+`)
	continued   = regexp.MustCompile(`\\\s*`)
	spaces      = regexp.MustCompile(`\s+`)
	counters    = regexp.MustCompile(` ?\[\d+:\d+\] ?`)

	// Numbers of a bridge and of its ports that run, that depend on what happened to be learned, or that the kernel deals
	// out in the order things were made.
	running = regexp.MustCompile(` (\w+_timer|topology_change|topology_change_detected|fdb_n_learned|link-netnsid|target-nsid) +\S+`)
)

// sorted is for commands whose every line stands for itself. A line that becomes empty is left out.
func sorted(f func(string) string) func([]string) []string {
	return func(lines []string) []string {
		var out []string
		for _, line := range lines {
			if line = f(line); line != "" {
				out = append(out, line)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
}

func squeeze(s string) string { return strings.TrimSpace(spaces.ReplaceAllString(s, " ")) }

// normaliseLinks gives each link its lines again, which ip -o has joined, and each line the link's name.
func normaliseLinks(lines []string) []string {
	var out []string
	for _, line := range lines {
		line = indexPrefix.ReplaceAllString(line, "")
		line = peerIndex.ReplaceAllString(line, "@if")
		line = running.ReplaceAllString(line, "")
		name, rest, _ := strings.Cut(line, ": ")
		for part := range strings.SplitSeq(rest, `\`) {
			if part = squeeze(part); part != "" {
				out = append(out, name+": "+part)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		a, _, _ = strings.Cut(a, ": ")
		b, _, _ = strings.Cut(b, ": ")
		return strings.Compare(a, b)
	})
	return out
}

// normaliseAddr drops "tentative": duplicate address detection ends by itself.
func normaliseAddr(line string) string {
	line = indexPrefix.ReplaceAllString(line, "")
	line = lifetime.ReplaceAllString(line, "_lft limited")
	line = strings.ReplaceAll(line, " tentative", "")
	return squeeze(continued.ReplaceAllString(line, " "))
}

func normaliseRoute(line string) string {
	return squeeze(continued.ReplaceAllString(expires.ReplaceAllString(line, ""), " "))
}

// normaliseNeigh keeps what somebody wrote: an entry that the kernel found out comes and goes.
func normaliseNeigh(line string) string {
	f := strings.Fields(line)
	if !slices.Contains(f, "PERMANENT") && !slices.Contains(f, "extern_learn") && !slices.Contains(f, "NOARP") {
		return ""
	}
	// The kernel itself makes NOARP entries for multicast and for loopback.
	if slices.Contains(f, "NOARP") && !slices.Contains(f, "extern_learn") {
		return ""
	}
	return squeeze(line)
}

// normaliseFDB drops what a bridge or a VXLAN device has learned.
func normaliseFDB(line string) string {
	f := strings.Fields(line)
	for _, written := range []string{"permanent", "static", "extern_learn"} {
		if slices.Contains(f, written) {
			return squeeze(line)
		}
	}
	return ""
}

func normaliseMDB(line string) string {
	if !slices.Contains(strings.Fields(line), "permanent") {
		return ""
	}
	return squeeze(indexPrefix.ReplaceAllString(line, ""))
}

// normaliseQdisc drops the queue that every virtual link has.
func normaliseQdisc(line string) string {
	if strings.HasPrefix(line, "qdisc noqueue ") {
		return ""
	}
	return squeeze(line)
}

// normaliseIptables names the table in every line. Chains are in the order they were made in, which says nothing; rules
// keep theirs, which says all.
func normaliseIptables(lines []string) []string {
	var chains, rules []string
	table := ""
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			chains = append(chains, table+" "+squeeze(counters.ReplaceAllString(line, "")))
		case strings.HasPrefix(line, "#"), line == "COMMIT":
		default:
			rules = append(rules, table+" "+squeeze(counters.ReplaceAllString(line, "")))
		}
	}
	slices.Sort(chains)
	slices.SortStableFunc(rules, func(a, b string) int { return strings.Compare(ruleChain(a), ruleChain(b)) })
	return append(chains, rules...)
}

// ruleChain is "filter -A FORWARD" of a rule.
func ruleChain(rule string) string {
	f := strings.SplitN(rule, " ", 4)
	return strings.Join(f[:min(3, len(f))], " ")
}

// normaliseNft writes each line with the table and chain or set it is in, sorts by those, and keeps the order within.
func normaliseNft(lines []string) []string {
	type entry struct{ within, line string }
	var entries []entry
	var within []string
	for _, line := range joinBraces(lines) {
		switch line = squeeze(expires.ReplaceAllString(line, "")); {
		case strings.HasPrefix(line, "#"), line == "":
		case line == "}":
			within = within[:max(0, len(within)-1)]
		case strings.HasSuffix(line, "{"):
			within = append(within, strings.TrimSuffix(line, " {"))
			entries = append(entries, entry{strings.Join(within, " "), ""})
		default:
			entries = append(entries, entry{strings.Join(within, " "), line})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.within, b.within) })
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.within+": "+e.line, ": "))
	}
	return out
}

// joinBraces makes one line of the elements of a set, which nft wraps.
func joinBraces(lines []string) []string {
	var out []string
	joined := ""
	for _, line := range lines {
		joined += line
		open := strings.Count(joined, "{") - strings.Count(joined, "}")
		if open > 0 && !strings.HasSuffix(joined, "{") {
			continue
		}
		out = append(out, joined)
		joined = ""
	}
	if joined != "" {
		out = append(out, joined)
	}
	return out
}

// normaliseListen keeps the protocol and the local address of ss.
func normaliseListen(line string) string {
	f := strings.Fields(line)
	if len(f) < 5 {
		return squeeze(line)
	}
	return f[0] + " " + f[4]
}

// normaliseMount keeps of a line of proc_pid_mountinfo(5) where, what, and how it propagates; not the numbers.
func normaliseMount(line string) string {
	front, back, ok := strings.Cut(line, " - ")
	f, kind := strings.Fields(front), strings.Fields(back)
	if !ok || len(f) < 6 || len(kind) == 0 {
		return squeeze(line)
	}
	root := f[3]
	if name, _, ok := strings.Cut(root, ":["); ok {
		root = name
	}
	out := []string{f[4], kind[0], root, f[5]}
	for _, propagation := range f[6:] {
		word, _, _ := strings.Cut(propagation, ":")
		out = append(out, word)
	}
	return strings.Join(out, " ")
}
