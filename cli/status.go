package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// status is what the plugin says of itself and of its cluster.
type status struct {
	State   string          `json:"state"`
	Version string          `json:"version"`
	Uptime  int64           `json:"uptime"` // seconds
	Waiting string          `json:"waiting"`
	Reason  string          `json:"reason"`
	Alarms  []string        `json:"alarms"`
	Cluster *cluster.Status `json:"cluster"` // nil: it has none, or is not ready
}

// stateReady is the only state in which the plugin works.
const stateReady = "ready"

// alarms are all there are.
func (st status) alarms() []string {
	all := st.Alarms
	if st.Cluster != nil {
		all = append(all, st.Cluster.Alarms...)
	}
	return all
}

// well says whether nobody needs to look.
func (st status) well() bool {
	if st.State != stateReady || len(st.alarms()) > 0 {
		return false
	}
	return st.Cluster == nil || st.Cluster.State == cluster.Member && st.Cluster.Quorum
}

func showStatus(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "Status", struct{}{})
	if err != nil {
		return err
	}
	var st status
	if err := understand(raw, &st); err != nil {
		return err
	}
	if s.json {
		err = s.printJSON(raw)
	} else {
		err = s.printStatus(st)
	}
	if err == nil && !st.well() {
		return errUnwell
	}
	return err
}

func (s *session) printStatus(st status) error {
	w := tabwriter.NewWriter(s.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range statusRows(st) {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", row[0], clean(row[1])); err != nil {
			return err
		}
	}
	return w.Flush()
}

func statusRows(st status) [][2]string {
	rows := [][2]string{{"plugin", pluginLine(st)}}
	if c := st.Cluster; c != nil {
		rows = append(rows, [2]string{"node", fmt.Sprintf("%s, %s, %s", c.Node.Name, address(c.Node.Addr), short(c.Node.ID))})
		rows = append(rows, [2]string{"cluster", clusterLine(*c)})
		if c.State == cluster.Member {
			rows = append(rows, [2]string{"leader", orNone(c.Leader)})
			rows = append(rows, [2]string{"voters", orNone(strings.Join(c.Voters, ", "))})
			rows = append(rows, [2]string{"quorum", quorumLine(c.Quorum)})
			rows = append(rows, [2]string{"nodes", nodesLine(*c)})
		}
	} else if st.State == stateReady {
		rows = append(rows, [2]string{"cluster", "none: this host is on its own"})
	}
	for _, alarm := range st.alarms() {
		rows = append(rows, [2]string{"ALARM", alarm})
	}
	return rows
}

func pluginLine(st status) string {
	line := fmt.Sprintf("%s, version %s, up %s", st.State, st.Version, time.Duration(st.Uptime)*time.Second)
	switch {
	case st.Reason != "":
		line += ": " + st.Reason
	case st.Waiting != "":
		line += ": waits for " + st.Waiting
	}
	return line
}

func clusterLine(c cluster.Status) string {
	line := string(c.State)
	if c.Cluster != "" {
		line = short(c.Cluster) + ", " + line
	}
	if c.Reason != "" {
		line += ": " + c.Reason
	}
	return line
}

func quorumLine(has bool) string {
	if has {
		return "yes"
	}
	return "NO: nothing new can be decided; what runs goes on"
}

func nodesLine(c cluster.Status) string {
	var silent []string
	for _, n := range c.Nodes {
		if !n.Alive && n.ID != c.Node.ID {
			silent = append(silent, n.Name)
		}
	}
	line := fmt.Sprint(len(c.Nodes))
	if len(silent) > 0 {
		line += fmt.Sprintf(", %d of them silent: %s", len(silent), strings.Join(silent, ", "))
	}
	return line
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	return a.String()
}

func showNodes(ctx context.Context, s *session) error {
	var st status
	if err := s.ask(ctx, "Status", &st); err != nil {
		return err
	}
	if st.State != stateReady {
		return fmt.Errorf("the plugin is %s", pluginLine(st))
	}
	c := st.Cluster
	if c == nil {
		c = &cluster.Status{}
	}
	if s.json {
		raw, err := json.Marshal(append([]cluster.Node{}, c.Nodes...)) // [] rather than null
		if err != nil {
			return err
		}
		return s.printJSON(raw)
	}
	var rows [][]string
	for _, n := range c.Nodes {
		rows = append(rows, []string{n.Name, short(n.ID), address(n.Addr), nodeState(n, c.Node.ID), yesNo(n.Voter), n.Version})
	}
	return s.table("nodes: this host is in no cluster", []string{"NODE", "ID", "ADDRESS", "STATE", "VOTER", "VERSION"}, rows)
}

func nodeState(n cluster.Node, self string) string {
	switch {
	case n.ID == self:
		return "this node"
	case n.Suspended:
		return "suspended"
	case !n.Alive:
		return "silent"
	default:
		return "alive"
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
