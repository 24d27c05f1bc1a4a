package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carricknet/carrick/cluster"
)

const (
	// recoverLimit is how long a recovery may take until the node votes: the plugin begins again (seconds) and elects itself.
	recoverLimit = 60 * time.Second
	// recoverEvery is how often it is looked at.
	recoverEvery = 500 * time.Millisecond
)

func recoverCluster(ctx context.Context, s *session) error {
	c, err := s.clusterOf(ctx)
	if err != nil {
		return err
	}
	var loss cluster.Loss
	if err := s.ask(ctx, "Loss", &loss); err != nil {
		return err
	}
	if err := s.print(lossText(*c, loss, time.Now())); err != nil {
		return err
	}
	if err := s.confirm("The voters above are lost for good."); err != nil {
		return err
	}
	if _, err := s.call(ctx, "Recover", struct{}{}); err != nil {
		return err
	}
	return s.awaitRecovery(ctx)
}

// lossText says who is lost, and what that may mean.
func lossText(c cluster.Status, loss cluster.Loss, now time.Time) string {
	var b strings.Builder
	silent := func(what string, nodes []cluster.Node) {
		for _, n := range nodes {
			host := ""
			if !n.Suspended {
				host = "; its HOST ANSWERS: is its plugin only disabled?"
			}
			fmt.Fprintf(&b, "  %s %s (%s), silent %s%s\n", what, clean(n.Name), address(n.Addr), since(n.Silent, now), host)
		}
	}
	fmt.Fprintf(&b, "Cluster %s has no quorum. These do not answer:\n", short(c.Cluster))
	silent("voter", loss.Voters)
	silent("node ", loss.Others)
	copied := fmt.Sprintf("entry %d", loss.Index)
	if !loss.At.IsZero() {
		copied += ", decided at " + loss.At.Format(time.RFC3339)
	}
	fmt.Fprintf(&b, "%s becomes the only voter, and the cluster goes on with its copy, which ends with %s. What was decided after\n", clean(c.Node.Name), copied)
	b.WriteString("that is lost: networks, joins, who has which addresses. The nodes above are left behind: they are refused when they come\n" +
		"back, until `carrick leave` there and `carrick forget` here.\n")
	return b.String()
}

func since(t, now time.Time) string {
	if t.IsZero() {
		return "since before this plugin was started"
	}
	return fmt.Sprintf("for %s (since %s)", now.Sub(t).Round(time.Second), t.Format(time.RFC3339))
}

// awaitRecovery returns when the node leads the cluster.
func (s *session) awaitRecovery(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	ticker := time.NewTicker(recoverEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.New("the recovery is decided, but the cluster has no quorum yet: look at `carrick status` again")
		case <-ticker.C:
		}
		var st status
		if err := s.ask(ctx, "Status", &st); err != nil || st.State != stateReady || st.Cluster == nil {
			continue // it begins again
		}
		if st.Cluster.State == cluster.Member && st.Cluster.Quorum {
			return s.print(fmt.Sprintf("%s votes alone, and the cluster decides again. `carrick forget` each lost node; %s\n",
				clean(st.Cluster.Node.Name), "new nodes get votes by themselves."))
		}
	}
}

func removeNetwork(ctx context.Context, s *session) error {
	question := fmt.Sprintf("Network %s is removed from this host, behind Docker's back. If `docker network ls` still shows it, use `docker network rm` instead.", s.param)
	if err := s.confirm(question); err != nil {
		return err
	}
	if _, err := s.call(ctx, "RemoveNetwork", map[string]string{"network": s.param}); err != nil {
		return err
	}
	return s.print(clean(s.param) + " is removed.\n")
}
