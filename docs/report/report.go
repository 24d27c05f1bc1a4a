// Package report adds what long tests have measured to the tables in docs/reliability.md.
package report

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// page is where the tables are, in the repository.
const page = "docs/reliability.md"

// Table is the name of one: it ends at a line that says so.
type Table string

// Tables of the page.
const (
	Soaks      Table = "soak"
	Lifecycles Table = "lifecycles"
	Histories  Table = "sim"
	Nemesis    Table = "nemesis"
	Crashes    Table = "crash"
)

func (table Table) end() string {
	return fmt.Sprintf("<!-- make %s adds lines above this one -->\n", string(table))
}

// Add adds a line to a table: the date, the build, which is dirty if more than the page has changed since, and the columns. It fails
// outside the repository, and if the page has no such table. Two calls at once would undo each other.
func Add(table Table, columns ...any) error {
	build, err := git("describe", "--always")
	if err != nil {
		return err
	}
	if changed, err := git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)"+page); err != nil {
		return err
	} else if changed != "" {
		build += "-dirty"
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	row := []string{"", time.Now().UTC().Format(time.DateOnly), build}
	for _, c := range columns {
		row = append(row, fmt.Sprint(c))
	}
	path := filepath.Join(root, page)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, after, ok := bytes.Cut(text, []byte(table.end()))
	if !ok {
		return fmt.Errorf("%s: no line %q", path, strings.TrimSpace(table.end()))
	}
	line := strings.TrimSpace(strings.Join(row, " | ")) + " |\n"
	return os.WriteFile(path, bytes.Join([][]byte{before, []byte(line), []byte(table.end()), after}, nil), 0o644)
}

func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
