package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"
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

func short(id string) string { return id[:min(len(id), shortID)] }
