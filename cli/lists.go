package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/carricknet/carrick/driver"
)

func showNetworks(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "Networks", struct{}{})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(raw)
	}
	var all []driver.NetworkStatus
	if err := understand(raw, &all); err != nil {
		return err
	}
	var rows [][]string
	for _, n := range all {
		var notes []string
		if n.Internal {
			notes = append(notes, "internal")
		}
		if n.Problem != "" {
			notes = append(notes, n.Problem)
		}
		rows = append(rows, []string{
			short(n.ID), n.Name, n.Mode, short(n.Shared), number(int(n.VNI)), number(n.MTU), strings.Join(n.Subnets, ","),
			strconv.Itoa(n.Local), strconv.Itoa(n.Remote), strings.Join(notes, "; "),
		})
	}
	head := []string{"NETWORK", "NAME", "MODE", "SHARED", "VNI", "MTU", "SUBNETS", "LOCAL", "REMOTE", "NOTES"}
	return s.table("networks", head, rows)
}

// number shows what is not set as nothing.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func showEndpoints(ctx context.Context, s *session) error {
	raw, err := s.call(ctx, "Endpoints", struct{}{})
	if err != nil {
		return err
	}
	if s.json {
		return s.printJSON(raw)
	}
	var all []driver.EndpointStatus
	if err := understand(raw, &all); err != nil {
		return err
	}
	var rows [][]string
	for _, e := range all {
		rows = append(rows, []string{short(e.Network), short(e.ID), e.MAC, strings.Join(e.Addrs, ","), e.Node, e.VTEP})
	}
	return s.table("endpoints", []string{"NETWORK", "ENDPOINT", "MAC", "ADDRESSES", "NODE", "VTEP"}, rows)
}
