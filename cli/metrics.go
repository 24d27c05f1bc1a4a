package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// metric is one that the plugin has, with a sample for each value of its label.
type metric struct {
	Name    string `json:"name"`
	Help    string `json:"help"`
	Type    string `json:"type"`
	Samples []struct {
		Label string  `json:"label"`
		Of    string  `json:"of"`
		Value float64 `json:"value"`
	} `json:"samples"`
}

// showMetrics prints the text format of Prometheus, version 0.0.4: for node_exporter's directory of text files, or a look.
func showMetrics(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "Metrics", struct{}{})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(raw)
	}
	var all []metric
	if err := understand(raw, &all); err != nil {
		return err
	}
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, clean(m.Help), m.Name, m.Type)
		for _, v := range m.Samples {
			b.WriteString(m.Name)
			if v.Label != "" {
				fmt.Fprintf(&b, `{%s="%s"}`, v.Label, escape.Replace(clean(v.Of)))
			}
			b.WriteString(" " + strconv.FormatFloat(v.Value, 'g', -1, 64) + "\n")
		}
	}
	return s.print(b.String())
}
