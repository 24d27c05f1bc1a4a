package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A source is one line of sources.list(5), or one stanza of a .sources file, as far as debootstrap needs it.
type source struct {
	uri        string
	suites     []string
	components []string
}

// debianSuites tells an archive of Debian from those of others that the machine may use as well.
var debianSuites = []string{
	"oldstable", "stable", "testing", "unstable", "sid", "bullseye", "bookworm", "trixie", "forky",
}

// mirror returns the archive that the machine itself gets Debian's packages from.
func mirror(etc string) (string, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return "", err
		}
		files = append(files, more...)
	}
	var all []source
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if strings.HasSuffix(file, ".sources") {
			all = append(all, parseDeb822(string(text))...)
		} else {
			all = append(all, parseList(string(text))...)
		}
	}
	i := slices.IndexFunc(all, source.isDebian)
	if i < 0 {
		return "", fmt.Errorf("%s: no archive of Debian among the apt sources", etc)
	}
	return all[i].uri, nil
}

// isDebian is false for archives that have no whole suite: security, updates, backports.
func (s source) isDebian() bool {
	scheme, _, _ := strings.Cut(s.uri, ":")
	return slices.Contains([]string{"http", "https", "file", "ftp"}, scheme) && slices.Contains(s.components, "main") &&
		slices.ContainsFunc(s.suites, func(suite string) bool { return slices.Contains(debianSuites, suite) })
}

// parseList reads the one-line format: deb [option=value …] uri suite component…
func parseList(text string) []source {
	var found []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.Join(strings.Fields(line), " "), "deb ")
		if !ok {
			continue
		}
		if strings.HasPrefix(rest, "[") {
			_, rest, _ = strings.Cut(rest, "]")
		}
		if f := strings.Fields(rest); len(f) >= 3 {
			found = append(found, source{f[0], f[1:2], f[2:]})
		}
	}
	return found
}

// parseDeb822 reads stanzas of "Field: value", in which a line that starts with a blank continues the one before.
func parseDeb822(text string) []source {
	var found []source
	fields := map[string]string{}
	flush := func() {
		enabled := !slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(fields["enabled"]))
		if enabled && slices.Contains(strings.Fields(fields["types"]), "deb") {
			for _, uri := range strings.Fields(fields["uris"]) {
				found = append(found, source{uri, strings.Fields(fields["suites"]), strings.Fields(fields["components"])})
			}
		}
		clear(fields)
	}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		switch name, value, ok := strings.Cut(line, ":"); {
		case strings.HasPrefix(line, "#"):
		case line == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		case ok:
			last = strings.ToLower(name)
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return found
}
