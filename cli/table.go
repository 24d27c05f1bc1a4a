package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// table shows rows under a head, or says that there are none.
func (s *session) table(what string, head []string, rows [][]string) error {
	if len(rows) == 0 {
		return s.print("no " + what + "\n")
	}
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			if cell = clean(cell); cell == "" {
				cell = "-"
			}
			row[i] = cell
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// rows shows what has a name each.
func (s *session) rows(rows [][2]string) error {
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", row[0], clean(row[1])); err != nil {
			return err
		}
	}
	return w.Flush()
}

// clean makes one line of a text, and keeps names that other nodes have chosen from moving the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return '?'
		}
	}, s)
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// sinceThen is empty for what is not known: a node that was not heard since this plugin's start, for one.
func sinceThen(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + when(t)
}

func short(id string) string { return id[:min(len(id), shortID)] }
