package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

// status is what the plugin says of itself and of its cluster.
type status struct {
	State   string   `json:"state"`
	Version string   `json:"version"`
	Uptime  int64    `json:"uptime"` // seconds
	Waiting string   `json:"waiting"`
	Reason  string   `json:"reason"`
	Alarms  []string `json:"alarms"`

	Warnings []string        `json:"warnings"`
	Cluster  *cluster.Status `json:"cluster"` // nil: it has none, or is not ready
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
		err = s.rows(statusRows(st))
	}
	if err == nil && !st.well() {
		return errUnwell
	}
	return err
}

func statusRows(st status) [][2]string {
	rows := [][2]string{{"plugin", pluginLine(st)}}
	if c := st.Cluster; c != nil {
		rows = append(rows, [2]string{"node", fmt.Sprintf("%s, %s, %s", c.Node.Name, address(c.Node.Addr), short(c.Node.ID))})
		rows = append(rows, [2]string{"cluster", clusterLine(*c)})
		if c.State == cluster.Member {
			rows = append(rows, [2]string{"leader", orNone(c.Leader)})
			rows = append(rows, [2]string{"voters", votersLine(*c)})
			rows = append(rows, [2]string{"quorum", quorumLine(c.Quorum)})
			rows = append(rows, [2]string{"nodes", nodesLine(*c)})
		}
	} else if st.State == stateReady {
		rows = append(rows, [2]string{"cluster", "none: this host is on its own"})
	}
	for _, alarm := range st.alarms() {
		rows = append(rows, [2]string{"ALARM", alarm})
	}
	for _, warning := range st.Warnings {
		rows = append(rows, [2]string{"warning", warning})
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

// votersLine marks those that are not there to be counted on.
func votersLine(c cluster.Status) string {
	voters := slices.Clone(c.Voters)
	for i, name := range voters {
		for _, n := range c.Nodes {
			if n.Name == name && n.ID != c.Node.ID && !n.Alive {
				voters[i] += " (" + nodeState(n, c.Node.ID) + ")"
			}
		}
	}
	return orNone(strings.Join(voters, ", "))
}

func quorumLine(has bool) string {
	if has {
		return "yes"
	}
	return "NO: nothing new can be decided; what runs goes on"
}

func nodesLine(c cluster.Status) string {
	var silent, suspended []string
	for _, n := range c.Nodes {
		switch {
		case n.ID == c.Node.ID || n.Alive || n.Lost:
		case n.Suspended:
			suspended = append(suspended, n.Name)
		default:
			silent = append(silent, n.Name)
		}
	}
	line := fmt.Sprint(len(c.Nodes))
	if len(silent) > 0 {
		line += "; silent, but their hosts answer: " + strings.Join(silent, ", ")
	}
	if len(suspended) > 0 {
		line += "; suspended, for their hosts do not answer: " + strings.Join(suspended, ", ")
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
	case n.Lost:
		return "left behind"
	case n.Suspended:
		return "suspended" + sinceThen(n.Silent)
	case !n.Alive:
		return "silent" + sinceThen(n.Silent)
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
