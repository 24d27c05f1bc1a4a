package report

import (
	"os"
	"strings"
	"testing"
)

// Every table has a header for what Add is given, and a line where it ends.
func TestTablesAreThere(t *testing.T) {
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []Table{Soaks, Lifecycles, Histories, Nemesis, Crashes} {
		before, _, ok := strings.Cut(string(text), table.end())
		if !ok {
			t.Errorf("no table ends at %q", strings.TrimSpace(table.end()))
			continue
		}
		rows := before[strings.LastIndex(before, "\n\n"):]
		if !strings.HasPrefix(rows, "\n\n| date | build | ") {
			t.Errorf("%s: the table begins with %.60q", table, rows)
		}
		columns := strings.Count(strings.SplitN(rows, "\n", 4)[2], "|")
		for _, row := range strings.Split(strings.TrimSpace(rows), "\n") {
			if got := strings.Count(row, "|"); got != columns {
				t.Errorf("%s: %d columns, want %d: %s", table, got-1, columns-1, row)
			}
		}
	}
}
