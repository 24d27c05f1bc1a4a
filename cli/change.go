package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/carricknet/carrick/cluster"
)

// errNotConfirmed is an answer other than yes.
var errNotConfirmed = errors.New("not confirmed: nothing was done")

func leave(ctx context.Context, s *session) error {
	c, err := s.clusterOf(ctx)
	if err != nil {
		return err
	}
	wanted := c.State != cluster.Refused && c.State != cluster.Quarantined
	question := fmt.Sprintf("Node %s leaves cluster %s with its %d nodes, for ever: its addresses are free for others, its networks reach no other host.",
		c.Node.Name, short(c.Cluster), len(c.Nodes))
	if !wanted {
		question = fmt.Sprintf("This host gives up its identity as node %s (%s) and joins as a new node. It is %s: %s",
			c.Node.Name, short(c.Node.ID), c.State, c.Reason)
	}
	if err := s.confirm(question); err != nil {
		return err
	}
	if _, err := s.call(ctx, "Leave", struct{}{}); err != nil {
		return err
	}
	if !wanted {
		return s.print(fmt.Sprintf("%s has given up its identity and joins as a new node; `carrick status` says how far it is.\n", clean(c.Node.Name)))
	}
	return s.print(fmt.Sprintf("%s has left. `carrick join` here, or the next start of the plugin, makes it a new node.\n", clean(c.Node.Name)))
}

func rejoin(ctx context.Context, s *session) error {
	if err := s.confirm("This host joins the cluster that JOIN names, as a new node."); err != nil {
		return err
	}
	if _, err := s.call(ctx, "Join", struct{}{}); err != nil {
		return err
	}
	return s.print("joining; `carrick status` says how far it is.\n")
}

func forget(ctx context.Context, s *session) error {
	c, err := s.clusterOf(ctx)
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Node %s is taken out of cluster %s, for ever: its addresses are free for others, and it is refused should it come back.",
		describe(*c, s.param), short(c.Cluster))
	if err := s.confirm(question); err != nil {
		return err
	}
	if _, err := s.call(ctx, "Forget", map[string]string{"node": s.param}); err != nil {
		return err
	}
	return s.print(clean(s.param) + " is forgotten.\n")
}

// clusterOf returns the cluster that this node is in.
func (s *session) clusterOf(ctx context.Context) (*cluster.Status, error) {
	var st status
	if err := s.ask(ctx, "Status", &st); err != nil {
		return nil, err
	}
	switch {
	case st.State != stateReady:
		return nil, fmt.Errorf("the plugin is %s", pluginLine(st))
	case st.Cluster == nil || st.Cluster.Cluster == "":
		return nil, errors.New("this host is in no cluster")
	}
	return st.Cluster, nil
}

// describe shows what is known of a node. A name that says nothing here is left to the plugin, which knows why.
func describe(c cluster.Status, nameOrID string) string {
	for _, n := range c.Nodes {
		if n.Name == nameOrID || n.ID == nameOrID {
			return fmt.Sprintf("%s (%s, %s, %s)", n.Name, short(n.ID), address(n.Addr), nodeState(n, c.Node.ID))
		}
	}
	return nameOrID
}

// confirm asks before something that cannot be taken back.
func (s *session) confirm(question string) error {
	if s.yes {
		return nil
	}
	if _, err := fmt.Fprintf(s.Stderr, "%s\nGo on? [yes/no] ", clean(question)); err != nil {
		return err
	}
	line, err := bufio.NewReader(s.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return errNotConfirmed
	}
	return nil
}

func makeSecret(_ context.Context, s *session) error {
	return s.print(cluster.GenerateSecret() + "\n")
}

func showVersion(_ context.Context, s *session) error {
	return s.print("carrick " + s.Version + "\n")
}
